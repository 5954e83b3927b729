package main

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
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

// A world is client-go's fake API server with watches, in which a recording is played. It
// notes which calls are made. It knows no conflicts: those are the matter of other tests.
type world struct {
	t        *testing.T
	client   *clientset.Clientset
	kubeVirt *fake.FakeDynamicClient
	left     []recording.Event

	mu    sync.Mutex
	calls map[string]bool // verb, group and resource, such as "update /resourcequotas"
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

// play plays the recording up to a moment, without the raise that is in it: of a quota,
// the limits count only as they are at first, or as stand by the time.
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

func (w *world) playQuota(recorded *corev1.ResourceQuota) {
	quotas := corev1.SchemeGroupVersion.WithResource("resourcequotas")
	rq := recorded.DeepCopy()
	if memory := rq.Spec.Hard[corev1.ResourceLimitsMemory]; memory.String() == "5547429376" {
		live := w.quota(rq.Namespace)
		live.Status.Used = rq.Status.Used
		rq = live
	}
	rq.Status.Hard = rq.Spec.Hard.DeepCopy()
	w.store(w.client.Tracker(), quotas, rq, watch.Modified)
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
	o := object.(runtime.Object)
	if strings.Contains(gvr.Group, "kubevirt") {
		kind := map[string]string{vmis.Resource: "VirtualMachineInstance", vmims.Resource: "VirtualMachineInstanceMigration"}[gvr.Resource]
		o = unstructuredOf(w.t, object, gvr.GroupVersion().String(), kind)
	}
	accessor, err := meta.Accessor(o)
	require.NoError(w.t, err)
	_, err = tracker.Get(gvr, accessor.GetNamespace(), accessor.GetName())
	switch exists := err == nil; {
	case change == watch.Deleted:
		require.NoError(w.t, tracker.Delete(gvr, accessor.GetNamespace(), accessor.GetName()))
	case exists:
		require.NoError(w.t, tracker.Update(gvr, o, accessor.GetNamespace()))
	default:
		require.NoError(w.t, tracker.Create(gvr, o, accessor.GetNamespace()))
	}
}

// unstructuredOf makes of an object what the dynamic client has of it.
func unstructuredOf(t *testing.T, object any, apiVersion, kind string) *unstructured.Unstructured {
	t.Helper()
	data, err := json.Marshal(object)
	require.NoError(t, err)
	u := &unstructured.Unstructured{}
	require.NoError(t, json.Unmarshal(data, &u.Object))
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	data, err = json.Marshal(u)
	require.NoError(t, err)
	require.NoError(t, u.UnmarshalJSON(data)) // numbers as a client decodes them
	return u
}
