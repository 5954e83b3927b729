package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/ledger/applier"
)

// installGuard installs the guard, of which the policy and its binding are in folder, and
// returns when the API server goes by it.
func installGuard(ctx context.Context, stage *onbed.Stage, folder string) error {
	for _, name := range []string{"policy.yaml", "binding.yaml"} {
		content, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return err
		}
		if err := install(ctx, stage, content); err != nil {
			return err
		}
	}
	namespace, err := stage.Bed.NewNamespace(ctx, "guard-")
	if err != nil {
		return err
	}
	return errors.Join(tryGuard(ctx, stage, namespace), stage.Client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}))
}

// tryGuard waits until the guard is on where a namespace says so, and only there. The quota
// of this one says that room is open for a migration, and keeps the library from ending that.
func tryGuard(ctx context.Context, stage *onbed.Stage, namespace string) error {
	_, err := stage.Client.CoreV1().ResourceQuotas(namespace).Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "q", Annotations: map[string]string{applier.OfferAnnotation: "trial", applier.DisabledAnnotation: "true"}},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(1, resource.DecimalSI)}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	// After kube-controller-manager has.
	if err := eventually(ctx, "status.hard is written", func() bool {
		rq, err := stage.Client.CoreV1().ResourceQuotas(namespace).Get(ctx, "q", metav1.GetOptions{})
		if err != nil || len(rq.Status.Hard) == 0 {
			return false
		}
		rq.Status.Hard = corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(2, resource.DecimalSI)}
		_, err = stage.Client.CoreV1().ResourceQuotas(namespace).UpdateStatus(ctx, rq, metav1.UpdateOptions{})
		return err == nil
	}); err != nil {
		return err
	}
	pod := scenario.NewPod("p", nil)
	create := func() error {
		_, err := stage.Client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	if err := eventually(ctx, "quota lets a pod in", func() bool { return create() == nil }); err != nil {
		return err
	}
	if err := guard(ctx, stage, namespace); err != nil {
		return err
	}
	return eventually(ctx, "the guard is on", func() bool { return apierrors.IsForbidden(create()) })
}

// guard switches the guard on in namespace.
func guard(ctx context.Context, stage *onbed.Stage, namespace string) error {
	_, err := stage.Client.CoreV1().Namespaces().Patch(ctx, namespace, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"headroom.vmquota.io/guard":"enabled"}}}`), metav1.PatchOptions{})
	return err
}

// eventually waits until is. The API server says nowhere which policies it goes by.
func eventually(ctx context.Context, what string, is func() bool) error {
	for range 600 {
		if is() {
			return nil
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("waited in vain until %s", what)
}
