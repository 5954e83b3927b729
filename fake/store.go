package fake

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
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
	ResourceClaims Kind = "resourceclaims"
)

// An object is what the API server stores. Those in the store are never changed; a changed copy takes their
// place.
type object interface {
	metav1.Object
	runtime.Object
}

var kinds = map[reflect.Type]Kind{
	reflect.TypeFor[*corev1.Namespace]():                           Namespaces,
	reflect.TypeFor[*corev1.ResourceQuota]():                       ResourceQuotas,
	reflect.TypeFor[*corev1.LimitRange]():                          LimitRanges,
	reflect.TypeFor[*corev1.Pod]():                                 Pods,
	reflect.TypeFor[*corev1.PersistentVolumeClaim]():               Claims,
	reflect.TypeFor[*corev1.ConfigMap]():                           ConfigMaps,
	reflect.TypeFor[*corev1.Event]():                               Events,
	reflect.TypeFor[*resourcev1.ResourceClaim]():                   ResourceClaims,
	reflect.TypeFor[*resourcev1.ResourceClaimTemplate]():           "resourceclaimtemplates",
	reflect.TypeFor[*kubevirtv1.VirtualMachineInstance]():          VMIs,
	reflect.TypeFor[*kubevirtv1.VirtualMachineInstanceMigration](): Migrations,
}

// kindOf returns the kind of o, which may be a nil pointer.
func kindOf(o object) Kind {
	if kind, ok := kinds[reflect.TypeOf(o)]; ok {
		return kind
	}
	known, _, err := scheme.Scheme.ObjectKinds(o)
	if err != nil || len(known) == 0 {
		return Kind(fmt.Sprintf("%T", o))
	}
	plural, _ := meta.UnsafeGuessKindToResource(known[0])
	return Kind(plural.Resource)
}

func (k Kind) groupResource() schema.GroupResource {
	gr := schema.GroupResource{Resource: string(k)}
	switch k {
	case VMIs, Migrations:
		gr.Group = kubevirtv1.GroupVersion.Group
	case ResourceClaims:
		gr.Group = resourcev1.GroupName
	default: // core
	}
	return gr
}

// A change is what user did to one object: before is nil if it was added, after if it was deleted.
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
	objects map[Kind]map[string][]object // by namespace, sorted by name
	pods    map[types.UID][]string       // names by controller, oldest first
	tested  bool                         // a call of a process under test is carried out
	tell    []func(change)
}

func (s *store) search(kind Kind, namespace, name string) (int, bool) {
	return slices.BinarySearchFunc(s.objects[kind][namespace], name, func(o object, name string) int { return strings.Compare(o.GetName(), name) })
}

func (s *store) get(kind Kind, namespace, name string) object {
	if i, ok := s.search(kind, namespace, name); ok {
		return s.objects[kind][namespace][i]
	}
	return nil
}

// list returns the objects of namespace sorted by name; of all namespaces, sorted, if it is empty.
func (s *store) list(kind Kind, namespace string) []object {
	if namespace != "" {
		return slices.Clone(s.objects[kind][namespace])
	}
	var all []object
	for _, ns := range slices.Sorted(maps.Keys(s.objects[kind])) {
		all = append(all, s.objects[kind][ns]...)
	}
	return all
}

// put stores o, which belongs to the store from now on, under the next version.
func (s *store) put(user string, o object) {
	kind, namespace := kindOf(o), o.GetNamespace()
	if s.objects[kind] == nil {
		s.objects[kind] = map[string][]object{}
	}
	s.stamp(o)
	change := change{user: user, tested: s.tested, kind: kind, after: o}
	if i, known := s.search(kind, namespace, o.GetName()); known {
		change.before = s.objects[kind][namespace][i]
		s.objects[kind][namespace][i] = o
	} else {
		s.objects[kind][namespace] = slices.Insert(s.objects[kind][namespace], i, o)
		if owner := podOwner(o); owner != "" {
			s.pods[owner] = append(s.pods[owner], o.GetName())
		}
	}
	s.spread(change)
}

// remove deletes what o is a version of.
func (s *store) remove(user string, o object) {
	kind, namespace := kindOf(o), o.GetNamespace()
	if i, known := s.search(kind, namespace, o.GetName()); known {
		s.objects[kind][namespace] = slices.Delete(s.objects[kind][namespace], i, i+1)
	}
	if owner := podOwner(o); owner != "" {
		s.pods[owner] = slices.DeleteFunc(s.pods[owner], func(name string) bool { return name == o.GetName() })
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
	copied, _ := o.DeepCopyObject().(T)
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

// findKey is find by key.
func findKey[T object](s *store, key string) (T, bool) {
	namespace, name, _ := strings.Cut(key, "/")
	return find[T](s, namespace, name)
}
