package main

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/fake"
	clientset "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
)

var (
	vmims = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstancemigrations")
	vmis  = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstances")
)

// A world is client-go's fake API server with watches, in which a recording is played. It
// notes which calls are made.
type world struct {
	t        *testing.T
	client   *clientset.Clientset
	kubeVirt *fake.FakeDynamicClient
	left     []recording.Event

	mu      sync.Mutex
	calls   map[string]bool // verb, group and resource, such as "update /resourcequotas/status"
	version int             // of the last quota that was written
}

func newWorld(t *testing.T, name string) *world {
	t.Helper()
	file, err := os.Open("../../migration/testdata/recordings/" + name + ".jsonl")
	require.NoError(t, err)
	defer file.Close()
	events, err := recording.Read(file)
	require.NoError(t, err)

	scheme := runtime.NewScheme()
	require.NoError(t, kubevirtv1.AddToScheme(scheme))
	w := &world{t: t, client: clientset.NewClientset(), kubeVirt: fake.NewSimpleDynamicClient(scheme), left: events, calls: map[string]bool{}}
	note := func(action clienttesting.Action) {
		resource := action.GetResource().Resource
		if action.GetSubresource() != "" {
			resource += "/" + action.GetSubresource()
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.calls[action.GetVerb()+" "+action.GetResource().Group+"/"+resource] = true
	}
	react := func(action clienttesting.Action) (bool, runtime.Object, error) {
		note(action)
		return false, nil, nil
	}
	w.client.PrependReactor("update", "resourcequotas", w.updateQuota)
	w.client.PrependReactor("*", "*", react)
	w.kubeVirt.PrependReactor("*", "*", react)
	noteWatch := func(action clienttesting.Action) (bool, watch.Interface, error) {
		note(action)
		return false, nil, nil
	}
	w.client.PrependWatchReactor("*", noteWatch)
	w.kubeVirt.PrependWatchReactor("*", noteWatch)
	return w
}

func (w *world) called() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.calls))
}

// play plays the recording up to a moment, without the raise that is in it: of a quota, the
// static limits are those that it has at first.
func (w *world) play(until time.Duration) {
	w.t.Helper()
	for len(w.left) > 0 && w.left[0].At <= until {
		event := w.left[0]
		w.left = w.left[1:]
		switch object := event.Object.(type) {
		case *corev1.ResourceQuota:
			w.playQuota(object)
		case *corev1.Pod:
			w.store(w.client.Tracker(), corev1.SchemeGroupVersion.WithResource("pods"), object, event.Type)
		case *kubevirtv1.VirtualMachineInstance:
			w.store(w.kubeVirt.Tracker(), vmis, object, event.Type)
		case *kubevirtv1.VirtualMachineInstanceMigration:
			w.store(w.kubeVirt.Tracker(), vmims, object, event.Type)
		default:
			w.t.Fatalf("what is a %T", object)
		}
	}
}

// playQuota plays what quota admission and kube-controller-manager did: the one raises what
// is used, and the other lowers it and copies spec.hard to status.hard.
func (w *world) playQuota(recorded *corev1.ResourceQuota) {
	rq := recorded.DeepCopy()
	rq.Status.Hard = rq.Spec.Hard.DeepCopy()
	if memory := rq.Spec.Hard[corev1.ResourceLimitsMemory]; memory.String() == "5547429376" {
		live := w.quota(rq.Namespace)
		before, now := live.Status.Used[corev1.ResourceLimitsMemory], rq.Status.Used[corev1.ResourceLimitsMemory]
		live.Status.Used = rq.Status.Used
		if now.Cmp(before) < 0 {
			live.Status.Hard = live.Spec.Hard.DeepCopy()
		}
		rq = live
	}
	rq.ResourceVersion = w.nextVersion()
	w.store(w.client.Tracker(), corev1.SchemeGroupVersion.WithResource("resourcequotas"), rq, watch.Modified)
}

// updateQuota does what the fake API server does not: it compares the version of a quota,
// and gives it a new one.
func (w *world) updateQuota(action clienttesting.Action) (bool, runtime.Object, error) {
	rq := action.(clienttesting.UpdateAction).GetObject().(*corev1.ResourceQuota)
	if rq.ResourceVersion != w.quota(rq.Namespace).ResourceVersion {
		return true, nil, apierrors.NewConflict(corev1.Resource("resourcequotas"), rq.Name, errors.New("it was changed"))
	}
	rq.ResourceVersion = w.nextVersion()
	return false, nil, nil
}

func (w *world) nextVersion() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.version++
	return strconv.Itoa(1_000_000 + w.version)
}

// quota is the only one of the recording, as it is now.
func (w *world) quota(namespace string) *corev1.ResourceQuota {
	w.t.Helper()
	object, err := w.client.Tracker().Get(corev1.SchemeGroupVersion.WithResource("resourcequotas"), namespace, "q")
	require.NoError(w.t, err)
	return object.(*corev1.ResourceQuota).DeepCopy()
}

func (w *world) store(tracker clienttesting.ObjectTracker, gvr schema.GroupVersionResource, object metav1.Object, change watch.EventType) {
	w.t.Helper()
	o := object.(runtime.Object).DeepCopyObject()
	if kind := map[string]string{vmis.Resource: "VirtualMachineInstance", vmims.Resource: "VirtualMachineInstanceMigration"}[gvr.Resource]; kind != "" {
		o.GetObjectKind().SetGroupVersionKind(gvr.GroupVersion().WithKind(kind))
		data, err := json.Marshal(o)
		require.NoError(w.t, err)
		u := &unstructured.Unstructured{} // what the dynamic client has
		require.NoError(w.t, u.UnmarshalJSON(data))
		o = u
	}
	_, err := tracker.Get(gvr, object.GetNamespace(), object.GetName())
	switch exists := err == nil; {
	case change == watch.Deleted:
		require.NoError(w.t, tracker.Delete(gvr, object.GetNamespace(), object.GetName()))
	case exists:
		require.NoError(w.t, tracker.Update(gvr, o, object.GetNamespace()))
	default:
		require.NoError(w.t, tracker.Create(gvr, o, object.GetNamespace()))
	}
}
