package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota/amounts"
)

// A world is the objects that were read, whether from a cluster, from files or from a
// recording.
type world struct {
	source    source
	cache     recording.Cache
	seen      map[string]metav1.Object // by kind, namespace and name
	now       time.Time                // zero: it is not known
	namespace string                   // the only one to show; empty: all
	noLease   bool                     // the cluster has no Lease of that name
	notes     []string

	passed  map[string]int // by kind: objects that say nothing about quota
	newer   int            // objects with fields that this program does not know
	example string         // one of these fields
}

func newWorld(kind string, files ...string) *world {
	return &world{
		source: source{Kind: kind, Files: files}, seen: map[string]metav1.Object{}, passed: map[string]int{},
	}
}

// A tenant is one namespace.
type tenant struct {
	name     string
	quotas   []*corev1.ResourceQuota // sorted by name
	snapshot migration.Snapshot
	events   []*corev1.Event // headroom's, on the quotas
}

// tenants returns the namespaces to show: those with a quota or a migration.
func (w *world) tenants() []tenant {
	names := w.cache.Namespaces()
	if w.namespace != "" {
		names = []string{w.namespace}
	}
	var tenants []tenant
	for _, name := range names {
		t := tenant{name: name, quotas: w.cache.Quotas(name), snapshot: w.cache.Snapshot(name)}
		t.snapshot.Now = w.now
		for _, event := range t.snapshot.Events {
			if !migration.IsRefusal(event) {
				t.events = append(t.events, event)
			}
		}
		if w.namespace != "" || len(t.quotas) > 0 || len(t.snapshot.Migrations) > 0 {
			tenants = append(tenants, t)
		}
	}
	return tenants
}

// limited returns an error if budget names a resource that no quota limits.
func (w *world) limited(budget corev1.ResourceList) error {
	limits := corev1.ResourceList{}
	for _, t := range w.tenants() {
		for _, rq := range t.quotas {
			maps.Copy(limits, rq.Spec.Hard)
		}
	}
	for _, name := range amounts.Names(budget) {
		if _, limited := limits[name]; len(limits) > 0 && !limited {
			return fmt.Errorf("--budget: no ResourceQuota limits %q, but %s", name, enumerate(amounts.Names(limits)))
		}
	}
	return nil
}

// kinds are those that say something about the quota of migrations.
var kinds = []string{
	"ResourceQuota", "LimitRange", "Pod", "PersistentVolumeClaim", "Event", "Namespace",
	"VirtualMachineInstance", "VirtualMachineInstanceMigration", "ResourceClaim", "DeviceClass", "Lease",
}

var scheme = runtime.NewScheme()

func init() {
	utilruntime.Must(corev1.AddToScheme(scheme))
	utilruntime.Must(resourcev1.AddToScheme(scheme))
	utilruntime.Must(coordinationv1.AddToScheme(scheme))
	utilruntime.Must(kubevirtv1.AddToScheme(scheme))
}

// empty returns an object of the kind of u, nil if u says nothing about quota: also if it is a pod
// of no virtual machine, or an event of something else.
func empty(u *unstructured.Unstructured) metav1.Object {
	object, err := scheme.New(u.GroupVersionKind())
	if err != nil || !slices.Contains(kinds, u.GetKind()) {
		return nil
	}
	switch object.(type) {
	case *corev1.Pod:
		if app := u.GetLabels()[kubevirtv1.AppLabel]; app != "virt-launcher" && app != "hotplug-disk" {
			return nil
		}
	case *corev1.Event:
		reason, _, _ := unstructured.NestedString(u.Object, "reason")
		kind, _, _ := unstructured.NestedString(u.Object, "involvedObject", "kind")
		refusal := migration.IsRefusal(&corev1.Event{Reason: reason, InvolvedObject: corev1.ObjectReference{Kind: kind}})
		if !refusal && !strings.HasPrefix(reason, "Headroom") {
			return nil
		}
	}
	accessor, _ := meta.Accessor(object)
	return accessor
}

// take takes in one object, and counts one that says nothing about quota. Its errors name the
// object.
func (w *world) take(u *unstructured.Unstructured) error {
	object := empty(u)
	if object == nil {
		w.passed[u.GetKind()]++
		return nil
	}
	if u.GetNamespace() == "" && u.GetKind() != "Namespace" && u.GetKind() != "DeviceClass" {
		u.SetNamespace(cmp.Or(w.namespace, metav1.NamespaceDefault))
	}
	id := strings.Trim(u.GetKind()+" "+u.GetNamespace()+"/"+u.GetName(), "/")
	if u.GetName() == "" {
		return fmt.Errorf("%s: it has no name", id)
	}
	if err := w.decode(u, object, id); err != nil {
		return err
	}
	if object.GetUID() == "" {
		object.SetUID(types.UID(id)) // written by hand; without one it could not be told from others
	}
	if before, ok := w.seen[id]; ok && !newer(object, before) {
		if object.GetResourceVersion() == "" && !equality.Semantic.DeepEqual(object, before) {
			return fmt.Errorf("%s: it was read twice, and differs", id)
		}
		return nil
	}
	w.seen[id] = object
	w.cache.Apply(recording.Event{Type: watch.Added, Object: object})
	return nil
}

// decode fills object. A field that does not exist is an error where people write objects, and
// in quotas, whose fields have not changed for ten years. An object that a server has stored may
// have fields of a newer version.
func (w *world) decode(u *unstructured.Unstructured, object metav1.Object, id string) error {
	if err := checkFields(object, u.Object, false); err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(u.Object, object, true)
	strict, unknown := runtime.AsStrictDecodingError(err)
	rq, isQuota := object.(*corev1.ResourceQuota)
	switch {
	case unknown && (isQuota || u.GetResourceVersion() == ""):
		err = errors.Join(strict.Errors()...)
	case unknown:
		w.newer++
		w.example = id + ": " + strict.Errors()[0].Error()
		err = nil
	case err != nil:
		err = cmp.Or(checkFields(object, u.Object, true), err)
	case isQuota:
		err = errors.Join(negative("spec.hard", rq.Spec.Hard), negative("status.hard", rq.Status.Hard), negative("status.used", rq.Status.Used))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	return nil
}

// negative returns an error for each negative amount of a field.
func negative(field string, list corev1.ResourceList) (err error) {
	for _, name := range amounts.Names(list) {
		if q := list[name]; q.Sign() < 0 {
			err = errors.Join(err, fmt.Errorf("%s[%s]: %q is negative", field, name, q.String()))
		}
	}
	return err
}

// newer reports whether a is a later state of the same object than b.
func newer(a, b metav1.Object) bool {
	va, errA := strconv.ParseUint(a.GetResourceVersion(), 10, 64)
	vb, errB := strconv.ParseUint(b.GetResourceVersion(), 10, 64)
	return errA == nil && (errB != nil || va > vb)
}

// asides are what the user should know beside the answer.
func (w *world) asides() []string {
	var lines []string
	if len(w.passed) > 0 {
		total, counts := 0, []string{}
		for _, kind := range slices.Sorted(maps.Keys(w.passed)) {
			total += w.passed[kind]
			counts = append(counts, fmt.Sprintf("%d %s", w.passed[kind], kind))
		}
		lines = append(lines, fmt.Sprintf("passed over %d that have nothing to do with the quota of migrations: %s", total, strings.Join(counts, ", ")))
	}
	if w.newer > 0 {
		lines = append(lines, fmt.Sprintf("%d objects have fields that this version does not know, such as %s", w.newer, w.example))
	}
	return lines
}

// A fieldCheck finds the field of an object that cannot be read, which errors of quantities do not name.
type fieldCheck struct {
	object reflect.Type
	all    bool // not only numbers with a huge exponent
}

// find checks value, which is at path. Whole returns an object that has nothing but a value there.
func (c fieldCheck) find(value any, path string, whole func(value any) any) error {
	if fields, is := value.(map[string]any); is && len(fields) > 0 {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			at := strings.TrimPrefix(path+"."+name, ".")
			if strings.ContainsAny(name, "./") {
				at = path + "[" + name + "]"
			}
			if err := c.find(fields[name], at, func(v any) any { return whole(map[string]any{name: v}) }); err != nil {
				return err
			}
		}
		return nil
	}
	if items, is := value.([]any); is && len(items) > 0 {
		for i, item := range items {
			if err := c.find(item, fmt.Sprintf("%s[%d]", path, i), func(v any) any { return whole([]any{v}) }); err != nil {
				return err
			}
		}
		return nil
	}
	text := fmt.Sprint(value)
	huge := hugeExponent.MatchString(text)
	if huge {
		value = "huge" // says whether a quantity belongs there
	} else if !c.all {
		return nil
	}
	data, err := json.Marshal(whole(value))
	if err == nil {
		err = json.Unmarshal(data, reflect.New(c.object).Interface())
	}
	wrong, malformed := (*json.UnmarshalTypeError)(nil), errors.Is(err, resource.ErrFormatWrong) || errors.Is(err, resource.ErrSuffix)
	switch {
	case err == nil:
		return nil
	case malformed && huge:
		return fmt.Errorf("%s: %q is out of range", path, text)
	case malformed:
		return fmt.Errorf("%s: %.64q is not a quantity, as 500m and 2Gi are", path, text)
	case errors.As(err, &wrong):
		return fmt.Errorf("%s: %s where %s belongs", wrong.Field, wrong.Value, wrong.Type.Kind())
	}
	return fmt.Errorf("%s: %w", path, err)
}
