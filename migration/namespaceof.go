package migration

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// NamespaceOf returns the namespace to reconcile after an event of object, and "" if the
// event says nothing about migrations: most pods and claims have nothing to do with
// virtual machines. It takes what informers hand to their event handlers, the
// tombstones of missed deletions included.
func NamespaceOf(object any) string {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	switch o := object.(type) {
	case *kubevirtv1.VirtualMachineInstanceMigration, *kubevirtv1.VirtualMachineInstance,
		*corev1.LimitRange, *corev1.ResourceQuota:
		return namespaceIn(o)
	case *corev1.Namespace:
		return o.Name
	case *corev1.Event:
		if IsRefusal(o) {
			return o.Namespace
		}
	case *corev1.Pod:
		if _, ok := o.Labels[kubevirtv1.AppLabel]; ok {
			return o.Namespace
		}
	case *resourcev1.ResourceClaim:
		if ownerPod(o) != "" {
			return o.Namespace
		}
	case *corev1.PersistentVolumeClaim:
		_, first := o.Labels[persistentState]
		_, second := o.Labels[kubevirtv1.MigrationNameLabel]
		if first || second || strings.HasPrefix(o.Name, persistentState) {
			return o.Namespace
		}
	}
	return ""
}

// InProgress reports whether object is a VMIM that is not final. Of all that an initial list
// contains, the namespaces of these cannot wait; see Urgent of loop.Config.
func InProgress(object any) bool {
	vmim, ok := object.(*kubevirtv1.VirtualMachineInstanceMigration)
	return ok && !vmim.IsFinal()
}
