// Thief tries to take the room of a raised quota, on the cluster of $KUBECONFIG, which has
// the guard, and prints how much it got, without the guard and with it.
//
//	kubectl apply -k examples/controller/guard/fail-closed
//	go -C examples/controller/guard run ./thief
//
// It needs an administrator's kubeconfig. It makes namespaces, one for each row that it
// prints, and removes them. Do not run it beside a working controller: the quotas that it
// raises have no migration in flight, so the controller lowers them again.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/vmquota/headroom/ledger/applier"
)

// The quota has 1 core, half of it free, and is raised by 4 cores for a migration. So
// thieves may have 5 pods of 100m, and there is room for 40 that are theft.
const (
	static, raised = "1", "5"
	mayHave        = 5
	theft          = 40
	virtController = "system:serviceaccount:kubevirt:kubevirt-controller"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "thief:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 1000, 1000
	fmt.Printf("%-8s  %-44s  %s\n", "GUARD", "WHO", "STOLEN PODS, OF 40 THAT THERE IS ROOM FOR")
	for _, guarded := range []bool{false, true} {
		for _, try := range []struct {
			who      string
			parallel int
			labels   map[string]string
			user     string
		}{
			{who: "one pod after the other", parallel: 1},
			{who: "the same with forged labels", parallel: 1, labels: migrationLabels},
			{who: "10 at once", parallel: 10},
			{who: "60 at once", parallel: 60},
			{who: "KubeVirt's controller, for a migration", parallel: 1, labels: migrationLabels, user: virtController},
		} {
			stolen, err := attempt(ctx, config, guarded, try.parallel, try.labels, try.user)
			if err != nil {
				return fmt.Errorf("%s: %w", try.who, err)
			}
			fmt.Printf("%-8s  %-44s  %d\n", onOff(guarded), try.who, stolen)
		}
	}
	return nil
}

var migrationLabels = map[string]string{"kubevirt.io": "virt-launcher", "kubevirt.io/migrationJobUID": "forged"}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// attempt creates 60 pods of 100m, so many at a time, in a new namespace with a raised
// quota. It returns how many more there are than there may be.
func attempt(ctx context.Context, config *rest.Config, guarded bool, parallel int, labels map[string]string, user string) (stolen int, err error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return 0, err
	}
	namespace, err := prepare(ctx, client, guarded)
	if err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}))
	}()
	as := rest.CopyConfig(config)
	as.Impersonate.UserName = user
	thief, err := kubernetes.NewForConfig(as)
	if err != nil {
		return 0, err
	}
	const tries = 60
	var mu sync.Mutex
	var wg sync.WaitGroup
	created := 0
	turns := make(chan struct{}, parallel)
	for range tries {
		turns <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-turns }()
			_, failed := thief.CoreV1().Pods(namespace).Create(ctx, pod("100m", labels), metav1.CreateOptions{})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case failed == nil:
				created++
			case !strings.Contains(failed.Error(), "is forbidden"):
				err = errors.Join(err, failed)
			}
		}()
	}
	wg.Wait()
	return max(0, created-mayHave), err
}

// prepare makes a namespace whose quota is raised, as headroom would, and of which a pod
// uses half of what it has without the raise.
func prepare(ctx context.Context, client kubernetes.Interface, guarded bool) (string, error) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "thief-"}}
	if guarded {
		ns.Labels = map[string]string{"headroom.vmquota.io/guard": "enabled"}
	}
	ns, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	limit := func(cores string) corev1.ResourceList {
		q, parsed := resource.ParseQuantity(cores)
		err = errors.Join(err, parsed)
		return corev1.ResourceList{corev1.ResourceLimitsCPU: q}
	}
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: limit(static)}}
	rq = applier.WithLimits(rq, limit(static), limit(raised))
	rq.Annotations[applier.GuardAnnotation] = `{"limits.cpu":"` + static + `"}`
	if _, created := client.CoreV1().ResourceQuotas(ns.Name).Create(ctx, rq, metav1.CreateOptions{}); created != nil || err != nil {
		return "", errors.Join(err, created)
	}
	// A quota's controller that computes the usage for the first time while a pod is created
	// may not know of that pod yet.
	if err := awaitUsed(ctx, client, ns.Name, "0"); err != nil {
		return "", err
	}
	created := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().Pods(ns.Name).Create(ctx, pod("500m", nil), metav1.CreateOptions{})
		return err == nil, nil // the service account comes in its time
	})
	if created != nil {
		return "", fmt.Errorf("the first pod: %w", created)
	}
	return ns.Name, awaitUsed(ctx, client, ns.Name, "500m")
}

// awaitUsed waits until the quota in namespace says that so many cores are used.
func awaitUsed(ctx context.Context, client kubernetes.Interface, namespace, cores string) error {
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		rq, err := client.CoreV1().ResourceQuotas(namespace).Get(ctx, "q", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		used, known := rq.Status.Used[corev1.ResourceLimitsCPU]
		return known && used.String() == cores, nil
	})
	if err != nil {
		return fmt.Errorf("a usage of %s: %w", cores, err)
	}
	return nil
}

func pod(cores string, labels map[string]string) *corev1.Pod {
	q, err := resource.ParseQuantity(cores)
	if err != nil {
		return nil
	}
	automount := false
	limits := corev1.ResourceList{corev1.ResourceCPU: q}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-", Labels: labels},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &automount,
			Containers:                   []corev1.Container{{Name: "c", Image: "registry.k8s.io/pause", Resources: corev1.ResourceRequirements{Limits: limits}}},
		},
	}
}
