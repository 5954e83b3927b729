package migration

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// An update of what the library does not read changes nothing.
func TestUpdateOfWhatIsNotRead(t *testing.T) {
	changes := 0
	s := newStore(trimmed, func(namespace string) {
		if namespace != "" {
			changes++
		}
	})
	update := func(version string, guest string, phase kubevirtv1.VirtualMachineInstancePhase) any {
		vmi := &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "vm", ResourceVersion: version}}
		vmi.Status.Phase, vmi.Status.GuestOSInfo.Name = phase, guest
		require.NoError(t, s.Update(vmi))
		known, _, _ := s.GetByKey("tenant/vm")
		return known
	}
	first := update("1", "", kubevirtv1.Running)
	require.Same(t, first, update("2", "Fedora", kubevirtv1.Running))
	require.Equal(t, 1, changes)
	require.NotSame(t, first, update("3", "Fedora", kubevirtv1.Succeeded))
	require.Equal(t, 2, changes)
	require.NoError(t, s.Replace([]any{first}, "4"))
	require.Equal(t, 3, changes)
}

// An expiring is a client whose first watch is told that its resourceVersion has expired.
type expiring struct {
	lists   chan metav1.ListOptions
	watches int
}

func (e *expiring) List(_ context.Context, options metav1.ListOptions) (*corev1.PodList, error) {
	e.lists <- options
	return &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "5"}}, nil
}

func (e *expiring) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	w := watch.NewFakeWithChanSize(1, false)
	if e.watches++; e.watches == 1 {
		status := apierrors.NewResourceExpired("too old resource version").Status()
		w.Error(&status)
	}
	return w, nil
}

// An API server that is asked for a page of a resourceVersion answers with that version, which is
// still too old to watch from.
func TestListAfterAnExpiredWatch(t *testing.T) {
	c, err := NewController(Clients{Core: fake.NewClientset(), KubeVirt: dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())}, Options{})
	require.NoError(t, err)
	s, e := c.informers.source(podsKind, "tenant"), &expiring{lists: make(chan metav1.ListOptions, 10)}
	s.ListWatch = listWatch(e)
	newStore(trimmed, func(string) {}).reflect(t.Context(), s)
	<-e.lists
	require.Zero(t, (<-e.lists).Limit)
}
