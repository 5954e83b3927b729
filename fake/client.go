package fake

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	kubefake "k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
)

// errNoWatch is what a client's Watch returns. An informer would need goroutines and real time.
var errNoWatch = errors.New("the simulated cluster has no watches: read the Caches of a Process")

// Client returns a client of that user for the test itself: its calls take no simulated time, and no faults are
// injected into them. It serves create, get, list, update, update of status, resize of pods, delete and patch
// (JSON, merge and strategic merge patch) of all kinds of objects.
func (c *Cluster) Client(user string) kubernetes.Interface {
	return c.clientset(func(action clienttesting.Action) (runtime.Object, error) { return c.serve(user, action) })
}

func (c *Cluster) clientset(serve func(clienttesting.Action) (runtime.Object, error)) *kubefake.Clientset {
	clientset := &kubefake.Clientset{}
	clientset.AddReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		answer, err := serve(action)
		return true, answer, err
	})
	clientset.AddWatchReactor("*", func(clienttesting.Action) (bool, watch.Interface, error) {
		return true, nil, errNoWatch
	})
	return clientset
}

// serve carries out action for user.
func (c *Cluster) serve(user string, action clienttesting.Action) (runtime.Object, error) {
	sub := action.GetSubresource()
	if sub != "" && sub != "status" && (sub != "resize" || action.GetResource().Resource != string(Pods)) {
		return nil, fmt.Errorf("the simulated cluster does not have %s/%s", action.GetResource().Resource, sub)
	}
	r := &request{cluster: c, user: user, status: sub == "status", resize: sub == "resize"}
	_, answer, err := clienttesting.ObjectReaction(r)(action)
	if err != nil {
		return nil, err
	}
	if r.stored != nil {
		return r.stored.DeepCopyObject(), nil
	}
	return answer, nil
}

// A request is one call of a client. client-go's fake clientset takes it for its object tracker, and so lends
// it its handling of verbs and patches.
type request struct {
	clienttesting.ObjectTracker // none: what is not implemented here is not asked for
	cluster                     *Cluster
	user                        string
	status, resize              bool
	stored                      object // the outcome of a write
}

func (r *request) Get(gvr schema.GroupVersionResource, namespace, name string, _ ...metav1.GetOptions) (runtime.Object, error) {
	found := r.cluster.store.get(Kind(gvr.Resource), namespace, name)
	if found == nil {
		return nil, apierrors.NewNotFound(gvr.GroupResource(), name)
	}
	return found.DeepCopyObject(), nil
}

// List returns copies. The typed clients apply the label selector.
func (r *request) List(gvr schema.GroupVersionResource, gvk schema.GroupVersionKind, namespace string, _ ...metav1.ListOptions) (runtime.Object, error) {
	list, err := scheme.Scheme.New(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	if err != nil {
		return nil, err
	}
	var items []runtime.Object
	for _, o := range r.cluster.store.list(Kind(gvr.Resource), namespace) {
		items = append(items, o.DeepCopyObject())
	}
	if err := meta.SetList(list, items); err != nil {
		return nil, err
	}
	return list, nil
}

// Create also names the object as it was stored, for those who look it up next.
func (r *request) Create(_ schema.GroupVersionResource, o runtime.Object, namespace string, _ ...metav1.CreateOptions) error {
	created, err := asObject(o, namespace)
	if err != nil {
		return err
	}
	if r.stored, err = r.cluster.create(r.user, created); err != nil {
		return err
	}
	created.SetName(r.stored.GetName())
	return nil
}

func (r *request) Update(_ schema.GroupVersionResource, o runtime.Object, namespace string, _ ...metav1.UpdateOptions) error {
	updated, err := asObject(o, namespace)
	if err != nil {
		return err
	}
	if pod, ok := updated.(*corev1.Pod); ok && r.resize {
		if updated, err = r.cluster.resize(pod); err != nil {
			return err
		}
	}
	r.stored, err = r.cluster.update(r.user, updated, r.status)
	return err
}

// Patch is called with the object that has the patch applied.
func (r *request) Patch(gvr schema.GroupVersionResource, o runtime.Object, namespace string, _ ...metav1.PatchOptions) error {
	return r.Update(gvr, o, namespace)
}

func (r *request) Delete(gvr schema.GroupVersionResource, namespace, name string, options ...metav1.DeleteOptions) error {
	options = append(options, metav1.DeleteOptions{})
	return r.cluster.remove(r.user, Kind(gvr.Resource), namespace, name, options[0])
}

func (r *request) Apply(schema.GroupVersionResource, runtime.Object, string, ...metav1.PatchOptions) error {
	return errors.New("the simulated cluster has no server-side apply")
}

func asObject(o runtime.Object, namespace string) (object, error) {
	typed, ok := o.(object)
	if !ok {
		return nil, fmt.Errorf("a %T is no API object", o)
	}
	if typed.GetNamespace() == "" {
		typed.SetNamespace(namespace)
	}
	if typed.GetNamespace() != namespace {
		return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return typed, nil
}
