package fake

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// A Kind is a kind of objects, named as in the paths of the API.
type Kind string

// The kinds that have caches; see [Caches].
const (
	Namespaces     Kind = "namespaces"
	ResourceQuotas Kind = "resourcequotas"
	LimitRanges    Kind = "limitranges"
	Pods           Kind = "pods"
	Claims         Kind = "persistentvolumeclaims"
	ConfigMaps     Kind = "configmaps"
	VMIs           Kind = "virtualmachineinstances"
	Migrations     Kind = "virtualmachineinstancemigrations"
	Events         Kind = "events"
)

// An object is what the API server stores. Those in the store are never changed; a
// changed copy takes their place.
type object interface {
	metav1.Object
	runtime.Object
}

// kindOf returns the kind of o, which may be a nil pointer.
func kindOf(o object) Kind {
	switch o.(type) {
	case *corev1.Namespace:
		return Namespaces
	case *corev1.ResourceQuota:
		return ResourceQuotas
	case *corev1.LimitRange:
		return LimitRanges
	case *corev1.Pod:
		return Pods
	case *corev1.PersistentVolumeClaim:
		return Claims
	case *corev1.ConfigMap:
		return ConfigMaps
	case *corev1.Event:
		return Events
	case *kubevirtv1.VirtualMachineInstance:
		return VMIs
	case *kubevirtv1.VirtualMachineInstanceMigration:
		return Migrations
	}
	kinds, _, err := scheme.Scheme.ObjectKinds(o)
	if err != nil || len(kinds) == 0 {
		return Kind(fmt.Sprintf("%T", o))
	}
	plural, _ := meta.UnsafeGuessKindToResource(kinds[0])
	return Kind(plural.Resource)
}

func (k Kind) groupResource() schema.GroupResource {
	gr := schema.GroupResource{Resource: string(k)}
	if k == VMIs || k == Migrations {
		gr.Group = kubevirtv1.GroupVersion.Group
	}
	return gr
}

// A change is what user did to one object: before is nil if it was added, after if it
// was deleted.
type change struct {
	user          string
	tested        bool // by a process under test
	kind          Kind
	before, after object
}

// object returns what the change is about, as it is now or was last.
func (c change) object() object {
	if c.after != nil {
		return c.after
	}
	return c.before
}

// A store holds the objects, and tells of their changes.
type store struct {
	version uint64
	objects map[Kind]map[string]*shelf // by namespace
	pods    map[types.UID][]string     // names by controller, oldest first
	tested  bool                       // a call of a process under test is carried out
	tell    []func(change)
}

// A shelf holds the objects of one kind in one namespace.
type shelf struct {
	byName map[string]object
	names  []string // sorted
}

func newStore() store {
	return store{objects: map[Kind]map[string]*shelf{}, pods: map[types.UID][]string{}}
}

// shelf returns that of a kind in a namespace, an empty one if there is none yet.
func (s *store) shelf(kind Kind, namespace string) *shelf {
	if s.objects[kind] == nil {
		s.objects[kind] = map[string]*shelf{}
	}
	if s.objects[kind][namespace] == nil {
		s.objects[kind][namespace] = &shelf{byName: map[string]object{}}
	}
	return s.objects[kind][namespace]
}

func (s *store) get(kind Kind, namespace, name string) object {
	return s.shelf(kind, namespace).byName[name]
}

// list returns the objects of namespace sorted by name; of all namespaces, sorted, if
// it is empty.
func (s *store) list(kind Kind, namespace string) []object {
	namespaces := []string{namespace}
	if namespace == "" {
		namespaces = slices.Sorted(maps.Keys(s.objects[kind]))
	}
	var all []object
	for _, ns := range namespaces {
		shelf := s.shelf(kind, ns)
		for _, name := range shelf.names {
			all = append(all, shelf.byName[name])
		}
	}
	return all
}

// put stores o, which belongs to the store from now on, under the next version.
func (s *store) put(user string, o object) {
	kind := kindOf(o)
	before := s.get(kind, o.GetNamespace(), o.GetName())
	s.stamp(o)
	shelf := s.shelf(kind, o.GetNamespace())
	shelf.byName[o.GetName()] = o
	if i, known := slices.BinarySearch(shelf.names, o.GetName()); !known {
		shelf.names = slices.Insert(shelf.names, i, o.GetName())
	}
	if owner := podOwner(o); owner != "" && before == nil {
		s.pods[owner] = append(s.pods[owner], o.GetName())
	}
	s.spread(change{user: user, tested: s.tested, kind: kind, before: before, after: o})
}

// remove deletes what o is a version of.
func (s *store) remove(user string, o object) {
	kind := kindOf(o)
	shelf := s.shelf(kind, o.GetNamespace())
	delete(shelf.byName, o.GetName())
	if i, known := slices.BinarySearch(shelf.names, o.GetName()); known {
		shelf.names = slices.Delete(shelf.names, i, i+1)
	}
	if owner := podOwner(o); owner != "" {
		s.pods[owner] = slices.DeleteFunc(s.pods[owner], func(name string) bool { return name == o.GetName() })
		if len(s.pods[owner]) == 0 {
			delete(s.pods, owner)
		}
	}
	last := clone(o)
	s.stamp(last)
	s.spread(change{user: user, tested: s.tested, kind: kind, before: last})
}

// podOwner returns the UID of the controller of o, if o is a pod that has one.
func podOwner(o object) types.UID {
	if pod, ok := o.(*corev1.Pod); ok {
		if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
			return owner.UID
		}
	}
	return ""
}

// podsOf returns the pods that owner controls, oldest first.
func (s *store) podsOf(owner object) []*corev1.Pod {
	pods := make([]*corev1.Pod, 0, len(s.pods[owner.GetUID()]))
	for _, name := range s.pods[owner.GetUID()] {
		if pod, ok := find[*corev1.Pod](s, owner.GetNamespace(), name); ok {
			pods = append(pods, pod)
		}
	}
	return pods
}

func (s *store) stamp(o object) {
	s.version++
	o.SetResourceVersion(strconv.FormatUint(s.version, 10))
}

func (s *store) spread(c change) {
	for _, tell := range s.tell {
		tell(c)
	}
}

// clone returns a copy of o that may be changed.
func clone[T object](o T) T {
	copied, ok := o.DeepCopyObject().(T)
	if !ok {
		return o
	}
	return copied
}

// find returns the object of that name; false if there is none.
func find[T object](s *store, namespace, name string) (T, bool) {
	var none T
	found, ok := s.get(kindOf(none), namespace, name).(T)
	return found, ok
}

// all returns the objects of namespace, or of all if it is empty, sorted by name.
func all[T object](s *store, namespace string) []T {
	var none T
	objects := s.list(kindOf(none), namespace)
	typed := make([]T, 0, len(objects))
	for _, o := range objects {
		if t, ok := o.(T); ok {
			typed = append(typed, t)
		}
	}
	return typed
}

// key is how work queues name an object.
func key(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }
