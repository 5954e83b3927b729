package recording

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
)

// A Cache holds what an informer's cache would hold after the events that were applied. The zero value is empty
// and ready. It is not safe for concurrent use.
type Cache struct {
	namespaces map[string]map[key]metav1.Object // a Namespace is among what is in it
}

// A key is as in an informer's cache: without the UID, so that a recreated object takes the place of the old
// one, also if the deletion was missed.
type key struct {
	kind reflect.Type
	name string
}

// Apply applies one event.
func (c *Cache) Apply(e Event) {
	namespace := e.Object.GetNamespace()
	if _, ok := e.Object.(*corev1.Namespace); ok {
		namespace = e.Object.GetName()
	}
	objects, k := c.namespaces[namespace], key{reflect.TypeOf(e.Object), e.Object.GetName()}
	switch {
	case e.Type == watch.Deleted:
		if delete(objects, k); len(objects) == 0 {
			delete(c.namespaces, namespace)
		}
		return
	case c.namespaces == nil:
		c.namespaces = map[string]map[key]metav1.Object{}
		fallthrough
	case objects == nil:
		objects = map[key]metav1.Object{}
		c.namespaces[namespace] = objects
	}
	objects[k] = e.Object
}

// Namespaces returns those that the cache has objects in, sorted.
func (c *Cache) Namespaces() []string {
	names := slices.Sorted(maps.Keys(c.namespaces))
	return slices.DeleteFunc(names, func(name string) bool { return name == "" }) // DeviceClasses
}

// Quotas returns the ResourceQuotas of namespace, sorted by name.
func (c *Cache) Quotas(namespace string) []*corev1.ResourceQuota {
	return list[*corev1.ResourceQuota](c, namespace)
}

// Snapshot returns the other objects of namespace, and the DeviceClasses, each kind sorted by name.
func (c *Cache) Snapshot(namespace string) migration.Snapshot {
	s := migration.Snapshot{
		Migrations:  list[*kubevirtv1.VirtualMachineInstanceMigration](c, namespace),
		VMIs:        list[*kubevirtv1.VirtualMachineInstance](c, namespace),
		Pods:        list[*corev1.Pod](c, namespace),
		LimitRanges: list[*corev1.LimitRange](c, namespace),
		PVCs:        list[*corev1.PersistentVolumeClaim](c, namespace),
		Events:      list[*corev1.Event](c, namespace),

		ResourceClaims: list[*resourcev1.ResourceClaim](c, namespace),
		DeviceClasses:  list[*resourcev1.DeviceClass](c, ""),
	}
	s.Namespace, _ = c.namespaces[namespace][key{reflect.TypeFor[*corev1.Namespace](), namespace}].(*corev1.Namespace)
	return s
}

func list[T metav1.Object](c *Cache, namespace string) []T {
	var objects []T
	for _, o := range c.namespaces[namespace] {
		if t, ok := o.(T); ok {
			objects = append(objects, t)
		}
	}
	slices.SortFunc(objects, func(a, b T) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return objects
}
