package sim

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// A view is what the caches hold at one moment. Its objects are read only.
type view struct {
	nodes     map[string]*corev1.Node
	pods      []*corev1.Pod
	vmis      []*kubevirtv1.VirtualMachineInstance
	vmims     map[types.UID]*kubevirtv1.VirtualMachineInstanceMigration
	launchers map[types.UID][]*corev1.Pod // by their VMI
}

func (s *Simulator) view() *view {
	v := &view{
		nodes:     map[string]*corev1.Node{},
		pods:      list[corev1.Pod](s.caches.pods),
		vmis:      list[kubevirtv1.VirtualMachineInstance](s.caches.vmis),
		vmims:     map[types.UID]*kubevirtv1.VirtualMachineInstanceMigration{},
		launchers: map[types.UID][]*corev1.Pod{},
	}
	for _, node := range list[corev1.Node](s.caches.nodes) {
		v.nodes[node.Name] = node
	}
	for _, vmim := range list[kubevirtv1.VirtualMachineInstanceMigration](s.caches.vmims) {
		v.vmims[vmim.UID] = vmim
	}
	for _, pod := range v.pods {
		if vmi := machineOf(pod); vmi != "" {
			v.launchers[vmi] = append(v.launchers[vmi], pod)
		}
	}
	slices.SortFunc(v.pods, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	return v
}

func list[T any](store cache.Store) []*T {
	objects := store.List()
	result := make([]*T, 0, len(objects))
	for _, object := range objects {
		if typed, ok := object.(*T); ok {
			result = append(result, typed)
		}
	}
	return result
}

// machineOf returns the UID of the VMI that pod is a virt-launcher of, empty if none.
func machineOf(pod *corev1.Pod) types.UID {
	if pod.Labels[kubevirtv1.AppLabel] != "virt-launcher" {
		return ""
	}
	return types.UID(pod.Labels[kubevirtv1.CreatedByLabel])
}

// alive tells whether anything moves on the node.
func (v *view) alive(node string) bool {
	n := v.nodes[node]
	return n != nil && !dead(n)
}

func dead(node *corev1.Node) bool {
	return node.Annotations[DeadAnnotation] == "true"
}

func terminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
