package migration_test

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// reconcile raises the quotas of a namespace for the migrations in flight, and lowers
// them again. It is the code of the README's first screen.
func reconcile(ctx context.Context, client kubernetes.Interface, static map[string]corev1.ResourceList, quotas []corev1.ResourceQuota, snapshot migration.Snapshot) error {
	inFlight := migration.InFlight(snapshot)
	for _, rq := range quotas {
		hard := quota.Effective(static[rq.Name], quota.Under(&rq, inFlight), rq.Status.Used)
		if quota.Equal(hard, rq.Spec.Hard) {
			continue
		}
		rq.Spec.Hard = hard
		if _, err := client.CoreV1().ResourceQuotas(rq.Namespace).Update(ctx, &rq, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func Example_reconcile() {
	r := recordingOf(nil, "basic")
	r.until(2 * time.Second) // quota has refused the target pod
	rq := *r.cache.Quotas(r.namespace)[0]
	client := fake.NewClientset(&rq)
	static := map[string]corev1.ResourceList{"q": rq.Spec.Hard}

	ctx := context.Background()
	if err := reconcile(ctx, client, static, []corev1.ResourceQuota{rq}, r.cache.Snapshot(r.namespace)); err != nil {
		fmt.Println(err)
	}
	raised, err := client.CoreV1().ResourceQuotas(r.namespace).Get(ctx, "q", metav1.GetOptions{})
	if err != nil {
		fmt.Println(err)
	}
	was, is := rq.Spec.Hard["limits.memory"], raised.Spec.Hard["limits.memory"]
	fmt.Println(was.String(), "->", is.String())
	// Output: 2773714688 -> 5547429376
}
