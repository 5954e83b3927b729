// Thief tries to take the room that a quota has for the target pod of a migration, on the
// cluster of $KUBECONFIG, and prints how much it got, without the guard and with it.
//
//	kubectl apply -k examples/controller/guard/fail-closed
//	go -C examples/controller/guard run ./thief
//
// It needs an administrator's kubeconfig. It creates a namespace for each attempt, and
// deletes it. It makes the room itself, as headroom does, so no migration and no
// controller is needed; in a namespace without migrations a controller would end it early.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"

	"github.com/vmquota/headroom/ledger/applier"
)

// The quota's static limit is zero, and its enforced limit is raised to 4 cores, which is
// room for 40 pods. So each pod that is created is stolen.
const (
	name              = "q"
	unit, room, cores = 1, 4000, 100 // thousandths of a core: the least amount, all that is stolen from, and a pod's
	virtController    = "system:serviceaccount:kubevirt:kubevirt-controller"
)

func main() {
	rounds := flag.Int("rounds", 5, "how often each attempt is made")
	pause := flag.Duration("pause", 20*time.Millisecond, "how long after the annotation room is made")
	open := flag.Duration("open", 300*time.Millisecond, "how long there is room")
	flag.Parse()
	if err := run(context.Background(), *rounds, *pause, *open); err != nil {
		fmt.Fprintln(os.Stderr, "thief:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, pause, open time.Duration) error {
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	if err != nil {
		return err
	}
	config.QPS = -1
	fmt.Printf("%-6s  %-24s  %-38s  %s\n", "GUARD", "ANNOTATION", "WHO", "STOLEN PODS, OF 40 THAT THERE IS ROOM FOR")
	announced := fmt.Sprint(pause, " before the room")
	for _, try := range []attempt{
		{how: "none", who: "1 at a time", creators: 1},
		{how: "none", who: "10 at once", creators: 10},
		{how: "none", who: "60 at once", creators: 60},
		{guarded: true, how: announced, pause: pause, who: "1 at a time", creators: 1},
		{guarded: true, how: announced, pause: pause, who: "10 at once", creators: 10},
		{guarded: true, how: announced, pause: pause, who: "60 at once", creators: 60},
		{guarded: true, how: announced, pause: pause, who: "10 at once, with forged labels", creators: 10, labels: migrationLabels},
		{guarded: true, how: announced, pause: pause, who: "KubeVirt's controller, for a migration", creators: 1, labels: migrationLabels, user: virtController},
		{guarded: true, how: "with the room", who: "10 at once", creators: 10},
		{guarded: true, how: "with the room", who: "60 at once", creators: 60},
	} {
		try.open = open
		stolen := make([]string, rounds)
		for i := range stolen {
			n, err := try.run(ctx, config)
			if err != nil {
				return fmt.Errorf("%s: %w", try.who, err)
			}
			stolen[i] = fmt.Sprint(n)
		}
		onOff := map[bool]string{true: "on", false: "off"}[try.guarded]
		fmt.Printf("%-6s  %-24s  %-38s  %s\n", onOff, try.how, try.who, strings.Join(stolen, " "))
	}
	return nil
}

var migrationLabels = map[string]string{"kubevirt.io": "virt-launcher", "kubevirt.io/migrationJobUID": "forged"}

// An attempt has creators that create pods in tight loops before, while and after there is
// room.
type attempt struct {
	guarded     bool
	how, who    string
	pause, open time.Duration
	creators    int
	labels      map[string]string
	user        string
}

// run makes the attempt in a new namespace, and returns how many pods were created.
func (a attempt) run(ctx context.Context, config *rest.Config) (stolen int, err error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return 0, err
	}
	namespace, err := prepare(ctx, client, a.guarded)
	if err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}))
	}()
	as := rest.CopyConfig(config)
	as.Impersonate.UserName = a.user
	thief, err := kubernetes.NewForConfig(as)
	if err != nil {
		return 0, err
	}

	stealing, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	var group sync.WaitGroup
	for range a.creators {
		group.Go(func() {
			for stealing.Err() == nil {
				_, failed := thief.CoreV1().Pods(namespace).Create(ctx, pod(a.labels), metav1.CreateOptions{})
				mu.Lock()
				switch {
				case failed == nil:
					stolen++
				case !apierrors.IsForbidden(failed) && !apierrors.IsConflict(failed):
					err = errors.Join(err, failed)
				}
				mu.Unlock()
			}
		})
	}
	failed := errors.Join(sleep(ctx, 300*time.Millisecond), a.offer(ctx, client, namespace), sleep(ctx, 200*time.Millisecond))
	stop()
	group.Wait()
	return stolen, errors.Join(err, failed)
}

// offer announces room if the attempt says so, makes it, and ends it.
func (a attempt) offer(ctx context.Context, client kubernetes.Interface, namespace string) error {
	if a.pause > 0 {
		// The guard wants the enforced limit above the static one, so there is room of the
		// least amount, in which no pod fits.
		if err := announce(ctx, client, namespace, a.pause); err != nil {
			return err
		}
	}
	return errors.Join(
		enforce(ctx, client, namespace, room, a.guarded), sleep(ctx, a.open),
		enforce(ctx, client, namespace, 0, true), enforce(ctx, client, namespace, 0, false))
}

// announce writes the annotation, and returns when headroom would make room: after pause, or three
// times as long as a watch took to show it.
func announce(ctx context.Context, client kubernetes.Interface, namespace string, pause time.Duration) error {
	quotas, err := client.CoreV1().ResourceQuotas(namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer quotas.Stop()
	begun := time.Now()
	if err := enforce(ctx, client, namespace, unit, true); err != nil {
		return err
	}
	for e := range quotas.ResultChan() {
		if rq, ok := e.Object.(*corev1.ResourceQuota); ok && rq.Annotations[applier.OfferAnnotation] != "" {
			break
		}
	}
	lag := time.Since(begun)
	return sleep(ctx, min(max(pause, 3*lag), 500*time.Millisecond)-lag)
}

// enforce writes the enforced limit of the quota in namespace, and whether an offer is open.
func enforce(ctx context.Context, client kubernetes.Interface, namespace string, milli int64, offered bool) error {
	quotas := client.CoreV1().ResourceQuotas(namespace)
	return retry.OnError(wait.Backoff{Steps: 100, Duration: time.Millisecond}, apierrors.IsConflict, func() error {
		rq, err := quotas.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		rq.Status.Hard = corev1.ResourceList{corev1.ResourceLimitsCPU: *resource.NewMilliQuantity(milli, resource.DecimalSI)}
		rq.Annotations = nil
		if offered {
			rq.Annotations = map[string]string{applier.OfferAnnotation: "thief"}
		}
		_, err = quotas.UpdateStatus(ctx, rq, metav1.UpdateOptions{})
		return err
	})
}

// prepare creates a namespace with a quota of nothing, and returns when it is enforced.
func prepare(ctx context.Context, client kubernetes.Interface, guarded bool) (string, error) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "thief-", Labels: map[string]string{"headroom.vmquota.io/guard": "disabled"}}}
	if guarded {
		ns.Labels["headroom.vmquota.io/guard"] = "enabled"
	}
	ns, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	quotas := client.CoreV1().ResourceQuotas(ns.Name)
	_, err = quotas.Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceLimitsCPU: resource.Quantity{}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	// A pod is refused by quota only after its service account is there, and after
	// kube-controller-manager has counted for the first time.
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().Pods(ns.Name).Create(ctx, pod(nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			return false, nil
		}
		return strings.Contains(err.Error(), "exceeded quota"), nil
	})
	if err != nil {
		return "", fmt.Errorf("the quota of %s is not enforced: %w", ns.Name, err)
	}
	return ns.Name, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func pod(labels map[string]string) *corev1.Pod {
	automount := false
	limits := corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(cores, resource.DecimalSI)}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-", Labels: labels},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &automount,
			Containers:                   []corev1.Container{{Name: "c", Image: "registry.k8s.io/pause", Resources: corev1.ResourceRequirements{Limits: limits}}},
		},
	}
}
