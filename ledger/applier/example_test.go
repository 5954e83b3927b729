package applier_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/quota"
)

// The quota of the examples: full, with a limit of 4Gi.
func fullQuota() *corev1.ResourceQuota {
	limit := corev1.ResourceList{corev1.ResourceLimitsMemory: resource.MustParse("4Gi")}
	return &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "q"},
		Spec:       corev1.ResourceQuotaSpec{Hard: limit},
		Status:     corev1.ResourceQuotaStatus{Hard: limit, Used: limit},
	}
}

// A blocked migration raises status.hard; when it is over the quota is what it was.
func Example() {
	ctx := context.Background()
	client := fake.NewClientset(fullQuota())
	record := memory.New() // where the migrations in flight are recorded
	a, err := applier.New(applier.Config{Ledger: record, Quotas: client.CoreV1(), Now: time.Now})
	if err != nil {
		fmt.Println(err)
		return
	}
	apply := func(inFlight ...quota.Migration) {
		if err := record.Replace(ctx, "tenant", inFlight); err != nil {
			fmt.Println(err)
		}
		result, err := a.Apply(ctx, "tenant")
		if err != nil {
			fmt.Println(err)
		}
		for _, q := range result.Quotas {
			fmt.Println(q.Name, q.Action, q.Hard.Name(corev1.ResourceLimitsMemory, resource.BinarySI))
		}
	}

	apply(quota.Migration{
		UID:   "0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0a001",
		VMI:   "database",
		State: quota.Blocked,
		Surge: corev1.ResourceList{corev1.ResourceLimitsMemory: resource.MustParse("1Gi")},
	})
	apply()

	// Output:
	// q Raised 5Gi
	// q Restored 4Gi
}

// Work is what a controller's worker does with the name of a namespace; add puts it back
// into the queue after some time.
func work(ctx context.Context, a *applier.Applier, namespace string, add func(namespace string, after time.Duration)) error {
	result, err := a.Apply(ctx, namespace)
	if result.RequeueAfter > 0 {
		add(namespace, result.RequeueAfter)
	}
	if errors.Is(err, applier.ErrForbidden) {
		fmt.Println("for the administrator:", err)
	}
	return applier.WorthRetry(err) // the queue's rate limiter tries again
}

// Refuses is a cluster in which a webhook guards the quotas.
func refuses() kubernetes.Interface {
	client := fake.NewClientset(fullQuota())
	client.PrependReactor("update", "resourcequotas", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("resourcequotas"), "q", errors.New("it is managed"))
	})
	return client
}

// What a worker does with a Result and with errors that no retry cures.
func ExampleApplier_Apply() {
	ctx := context.Background()
	record := memory.New()
	a, err := applier.New(applier.Config{Ledger: record, Quotas: refuses().CoreV1(), Now: time.Now})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = record.Replace(ctx, "tenant", []quota.Migration{{
		UID:   "0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0a001",
		State: quota.Blocked,
		Surge: corev1.ResourceList{corev1.ResourceLimitsMemory: resource.MustParse("1Gi")},
	}})
	if err != nil {
		fmt.Println(err)
	}
	err = work(ctx, a, "tenant", func(namespace string, after time.Duration) {
		fmt.Println(namespace, "again after", after)
	})
	fmt.Println("error for the queue:", err)

	// Output:
	// tenant again after 500ms
	// for the administrator: ResourceQuota tenant/q: write status: the API server refuses it: resourcequotas "q" is forbidden: it is managed
	// error for the queue: <nil>
}
