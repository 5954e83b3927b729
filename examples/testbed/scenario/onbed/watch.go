package onbed

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
)

// A watch has caches of what scenarios look at, in all namespaces.
type watch struct {
	namespaces, quotas, pods, vmis, vmims, records, events cache.SharedIndexInformer
}

// newWatch returns when the caches are filled. They are kept true until t ends.
func newWatch(t try.T, client kubernetes.Interface, objects dynamic.Interface) *watch {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(stop)
	some := func(tweak func(*metav1.ListOptions)) informers.SharedInformerFactory {
		return informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(tweak))
	}
	core := informers.NewSharedInformerFactory(client, 0).Core().V1()
	w := &watch{
		namespaces: core.Namespaces().Informer(),
		quotas:     core.ResourceQuotas().Informer(),
		pods:       core.Pods().Informer(),
		vmis:       virt.Informer(objects, virt.Instances),
		vmims:      virt.Informer(objects, virt.Migrations),
		records:    some(configmap.Select).Core().V1().ConfigMaps().Informer(),
		events:     some(func(o *metav1.ListOptions) { o.FieldSelector = "source=" + migration.Component }).Core().V1().Events().Informer(),
	}
	require.NoError(t, virt.Watch(ctx, cache.ResourceEventHandlerFuncs{}, w.namespaces, w.quotas, w.pods, w.vmis, w.vmims, w.records, w.events))
	return w
}

// state returns what the caches hold about namespace.
func (w *watch) state(namespace string) scenario.State {
	s := scenario.State{
		Quotas:     held[*corev1.ResourceQuota](w.quotas, namespace),
		Pods:       held[*corev1.Pod](w.pods, namespace),
		VMIs:       held[*kubevirtv1.VirtualMachineInstance](w.vmis, namespace),
		Migrations: held[*kubevirtv1.VirtualMachineInstanceMigration](w.vmims, namespace),
	}
	for _, e := range held[*corev1.Event](w.events, namespace) {
		s.Waits = append(s.Waits, scenario.Waits(&metav1.ObjectMeta{Name: e.InvolvedObject.Name}, e.Reason, e.Message)...)
	}
	if ns, known, _ := w.namespaces.GetStore().GetByKey(namespace); known {
		s.Namespace, _ = ns.(*corev1.Namespace)
	}
	for _, object := range w.records.GetStore().List() {
		if record, ok := object.(*corev1.ConfigMap); ok && record.Name == configmap.Name(namespace) {
			s.Ledger = record
		}
	}
	return s
}

// held returns the objects of namespace, sorted by name.
func held[T metav1.Object](informer cache.SharedIndexInformer, namespace string) []T {
	objects, err := informer.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return nil // the index is there
	}
	typed := make([]T, 0, len(objects))
	for _, o := range objects {
		if t, ok := o.(T); ok {
			typed = append(typed, t)
		}
	}
	slices.SortFunc(typed, func(a, b T) int { return strings.Compare(a.GetName(), b.GetName()) })
	return typed
}

// Record writes the watch events of the ResourceQuotas, pods, VMIs and VMIMs of the namespace to
// out, as package fake/recording reads them, until the test ends. It fails if an event could not
// be written.
func (c *Cluster) Record(out io.Writer) {
	c.Helper()
	scheme := runtime.NewScheme()
	require.NoError(c, errors.Join(corev1.AddToScheme(scheme), kubevirtv1.AddToScheme(scheme)))
	var mu sync.Mutex
	var failed error
	var begun time.Time
	c.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		require.NoError(c, failed)
	})
	write := func(kind apiwatch.EventType, object any) {
		of, ok := object.(interface {
			runtime.Object
			metav1.Object
		})
		if !ok || of.GetNamespace() != c.namespace {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if begun.IsZero() {
			begun = time.Now()
		}
		line, err := withKind(scheme, of)
		if err == nil {
			err = json.NewEncoder(out).Encode(map[string]any{"t": time.Since(begun).Round(time.Millisecond).Seconds(), "type": kind, "object": line})
		}
		failed = errors.Join(failed, err)
	}
	for _, informer := range []cache.SharedIndexInformer{c.stage.watch.quotas, c.stage.watch.pods, c.stage.watch.vmis, c.stage.watch.vmims} {
		registration := try.Must(informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { write(apiwatch.Added, object) },
			UpdateFunc: func(_, object any) { write(apiwatch.Modified, object) },
			DeleteFunc: func(object any) {
				if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
					object = unknown.Obj
				}
				write(apiwatch.Deleted, object)
			},
		}))(c)
		c.Cleanup(func() { require.NoError(c, informer.RemoveEventHandler(registration)) })
	}
}

// withKind returns a copy of object with its kind, and without managedFields.
func withKind(scheme *runtime.Scheme, object runtime.Object) (runtime.Object, error) {
	kinds, _, err := scheme.ObjectKinds(object)
	if err != nil {
		return nil, err
	}
	object = object.DeepCopyObject()
	object.GetObjectKind().SetGroupVersionKind(kinds[0])
	if accessor, ok := object.(metav1.Object); ok {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}

// A QuotaVersion is a quota as a write has left it.
type QuotaVersion struct {
	*corev1.ResourceQuota
	Event bed.AuditEvent // of the write

	revision uint64
}

// QuotaVersions returns what the quotas were from each write to the next, in etcd's order.
func QuotaVersions(events []bed.AuditEvent) ([]QuotaVersion, error) {
	var found []QuotaVersion
	for _, e := range events {
		if e.Resource != "resourcequotas" || e.Code >= 300 || e.Verb == "delete" || len(e.ResponseObject) == 0 || strings.Contains(e.URI, "dryRun=") {
			continue
		}
		v := QuotaVersion{ResourceQuota: &corev1.ResourceQuota{}, Event: e}
		if err := json.Unmarshal(e.ResponseObject, v.ResourceQuota); err != nil {
			return nil, fmt.Errorf("%s: %w", where(e), err)
		}
		var err error
		if v.revision, err = strconv.ParseUint(v.ResourceVersion, 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w", where(e), err)
		}
		found = append(found, v)
	}
	slices.SortFunc(found, func(a, b QuotaVersion) int { return cmp.Compare(a.revision, b.revision) })
	return found, nil
}

// Wrote reports whether e is a write of the process under test to a quota that was carried
// out.
func Wrote(e bed.AuditEvent) bool {
	return (e.User == User || e.User == OtherUser) && e.Resource == "resourcequotas" && e.Code < 300
}

// TargetOf returns the name of the migration whose target pod e creates, or tries to; empty if e
// is something else.
func TargetOf(e bed.AuditEvent) string {
	var pod corev1.Pod
	if e.Verb != "create" || e.Resource != "pods" || e.Subresource != "" || json.Unmarshal(e.RequestObject, &pod) != nil {
		return ""
	}
	return pod.Annotations[kubevirtv1.MigrationJobNameAnnotation]
}

// Timeline says what the API server was asked between two moments, in seconds from since on.
func Timeline(events []bed.AuditEvent, since, from, to time.Time) (text string) {
	for _, e := range events {
		if e.Answered.Before(from) || e.Received.After(to) {
			continue
		}
		text += fmt.Sprintf("\n  %8.3f s, took %3d ms: %s %s %s/%s %s: %d %.80s", e.Received.Sub(since).Seconds(),
			e.Answered.Sub(e.Received).Milliseconds(), e.User, e.Verb, e.Resource, e.Subresource, cmp.Or(e.Name, TargetOf(e)), e.Code, e.Message)
		if versions, err := QuotaVersions([]bed.AuditEvent{e}); err == nil && len(versions) > 0 {
			rq := versions[0]
			text += fmt.Sprintf("%s, spec.hard %s, status %s", rq.Annotations[applier.OfferAnnotation], Spelled(rq.Spec.Hard), Spelled(rq.Status))
		}
	}
	return text
}

// CheckAudit reads an audit log, and returns an error for every request of [User] that
// writes a quota otherwise than by an update of resourcequotas/status, whatever came of
// it; and for every such update that has changed spec, usage, labels, or an annotation
// that is not applier.OfferAnnotation.
func CheckAudit(events []bed.AuditEvent) error {
	var wrong []error
	for _, e := range events {
		if e.Resource == "resourcequotas" && e.User == User && (e.Verb != "update" || e.Subresource != "status") {
			wrong = append(wrong, fmt.Errorf("%s: the library tried to %s resourcequotas/%s", where(e), e.Verb, e.Subresource))
		}
	}
	versions, err := QuotaVersions(events)
	last := map[types.UID]QuotaVersion{}
	for _, v := range versions {
		delete(v.Annotations, applier.OfferAnnotation)
		before, known := last[v.UID]
		last[v.UID] = v
		if !known || v.Event.User != User {
			continue
		}
		if what := v.changed(before); what != "" {
			wrong = append(wrong, fmt.Errorf("%s: the library changed %s: %s", where(v.Event), what, v.Event.ResponseObject))
		}
	}
	return errors.Join(append(wrong, err)...)
}

func where(e bed.AuditEvent) string {
	return fmt.Sprintf("audit log, %s, quota %s/%s", e.Received.Format("15:04:05.000"), e.Namespace, e.Name)
}

// changed says what of all that the library must not change is not as it was before.
func (v QuotaVersion) changed(before QuotaVersion) string {
	switch {
	case Spelled(v.Spec) != Spelled(before.Spec):
		return "spec"
	case Spelled(v.Status.Used) != Spelled(before.Status.Used):
		return "status.used"
	case !maps.Equal(v.Labels, before.Labels):
		return "labels"
	case !maps.Equal(v.Annotations, before.Annotations):
		return "annotations"
	default:
		return ""
	}
}

// Spelled is a part of an object as the API server has it, to the byte.
func Spelled(part any) string {
	text, err := json.Marshal(part)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
