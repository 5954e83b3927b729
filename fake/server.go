package fake

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// suffixes are the letters of generated names.
const suffixes = "bcdfghjklmnpqrstvwxz2456789"

// errModified is what the API server says to a stale update.
var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

// create stores a copy of o for user, if admission lets it in.
func (c *Cluster) create(user string, o object) (object, error) {
	o = clone(o)
	if o.GetName() == "" && o.GetGenerateName() != "" {
		o.SetName(o.GetGenerateName() + c.suffix())
	}
	c.setDefaults(o)
	if err := c.admit(user, o); err != nil {
		return nil, err
	}
	kind := kindOf(o)
	if c.store.get(kind, o.GetNamespace(), o.GetName()) != nil {
		return nil, apierrors.NewAlreadyExists(kind.groupResource(), o.GetName())
	}
	o.SetUID(c.uid())
	o.SetCreationTimestamp(c.stamp())
	c.store.put(user, o)
	return o, nil
}

// update stores a copy of o in place of the version that it was made from: its status, or all but its status
// where the kind keeps these apart. An update that changes nothing is no new version.
func (c *Cluster) update(user string, o object, status bool) (object, error) {
	kind := kindOf(o)
	current := c.store.get(kind, o.GetNamespace(), o.GetName())
	switch {
	case current == nil:
		return nil, apierrors.NewNotFound(kind.groupResource(), o.GetName())
	case o.GetResourceVersion() != "" && o.GetResourceVersion() != current.GetResourceVersion(),
		o.GetUID() != "" && o.GetUID() != current.GetUID():
		return nil, apierrors.NewConflict(kind.groupResource(), o.GetName(), errModified)
	}
	updated := clone(o)
	if status {
		updated = withStatusOf(current, o)
	} else {
		copyStatus(updated, current)
	}
	updated.SetUID(current.GetUID())
	updated.SetCreationTimestamp(current.GetCreationTimestamp())
	updated.SetDeletionTimestamp(current.GetDeletionTimestamp())
	updated.SetDeletionGracePeriodSeconds(current.GetDeletionGracePeriodSeconds())
	updated.SetResourceVersion(current.GetResourceVersion())
	if err := c.lockedUpdate(user, current, updated, status); err != nil {
		return nil, err
	}
	if identical(current, updated) {
		return current, nil
	}
	c.store.put(user, updated)
	c.release(user, updated)
	return updated, nil
}

// identical reports whether two versions of an object are the same, limits to the byte.
func identical(before, after object) bool {
	if b, ok := before.(*corev1.ResourceQuota); ok {
		if a, ok := after.(*corev1.ResourceQuota); !ok || list(b.Spec.Hard) != list(a.Spec.Hard) || list(b.Status.Hard) != list(a.Status.Hard) {
			return false
		}
	}
	return equality.Semantic.DeepEqual(before, after)
}

// apart are the kinds whose status is written on its own.
var apart = []Kind{Namespaces, Pods, ResourceQuotas, Claims, Migrations}

// withStatusOf returns what an update of the status of current to that of o stores. As in the strategies of the
// API server (k8s.io/kubernetes/pkg/registry/core), kinds of its own take over metadata too, so annotations may
// be written with the status, and keep spec. Custom resources take over nothing but the status, and kinds
// without a status nothing at all.
func withStatusOf(current, o object) object {
	kind := kindOf(o)
	if kind == Migrations || !slices.Contains(apart, kind) {
		kept := clone(current)
		copyStatus(kept, o)
		return kept
	}
	updated := clone(o)
	copyField(updated, current, "Spec")
	if kind == Pods {
		updated.SetOwnerReferences(current.GetOwnerReferences())
	}
	return updated
}

// copyStatus gives to the status of from, if they are of a kind whose status is apart.
func copyStatus(to, from object) {
	if slices.Contains(apart, kindOf(to)) {
		copyField(to, from, "Status")
	}
}

func copyField(to, from object, name string) {
	reflect.ValueOf(to).Elem().FieldByName(name).Set(reflect.ValueOf(clone(from)).Elem().FieldByName(name))
}

// write is an update by a part of the simulation that never goes wrong: it is made on the latest version. It
// does nothing if the object is gone.
func write[T object](c *Cluster, user string, o T, change func(T)) {
	latest, ok := find[T](&c.store, o.GetNamespace(), o.GetName())
	if !ok || latest.GetUID() != o.GetUID() {
		return
	}
	changed := clone(latest)
	change(changed)
	if identical(latest, changed) {
		return
	}
	c.store.put(user, changed)
	c.release(user, changed)
}

// remove deletes an object for user: at once, or when its grace period or its finalizers let it go.
func (c *Cluster) remove(user string, kind Kind, namespace, name string, options metav1.DeleteOptions) error {
	current := c.store.get(kind, namespace, name)
	if current == nil {
		return apierrors.NewNotFound(kind.groupResource(), name)
	}
	if p := options.Preconditions; p != nil {
		if p.UID != nil && *p.UID != current.GetUID() || p.ResourceVersion != nil && *p.ResourceVersion != current.GetResourceVersion() {
			return apierrors.NewConflict(kind.groupResource(), name, errors.New("the precondition does not match the object"))
		}
	}
	if err := c.lockedFor(user, current); err != nil && user != namespaceController {
		return err
	}
	pod, isPod := current.(*corev1.Pod)
	if !isPod && len(current.GetFinalizers()) == 0 {
		c.store.remove(user, current)
		return nil
	}
	grace := int64(0)
	if isPod {
		grace = gracePeriod(pod, options)
	}
	if current.GetDeletionTimestamp() != nil && (!isPod || grace > 0) {
		return nil
	}
	deleted := clone(current)
	end := metav1.NewTime(c.stamp().Add(time.Duration(grace) * time.Second))
	deleted.SetDeletionTimestamp(&end)
	deleted.SetDeletionGracePeriodSeconds(&grace)
	c.store.put(user, deleted)
	c.release(user, deleted)
	return nil
}

// gracePeriod returns how many seconds a pod has to end, as the strategy of the API server does: none if it
// runs nowhere or has ended.
func gracePeriod(pod *corev1.Pod, options metav1.DeleteOptions) int64 {
	switch {
	case options.GracePeriodSeconds != nil:
		return *options.GracePeriodSeconds
	case pod.Spec.NodeName == "" || ended(pod) || pod.Spec.TerminationGracePeriodSeconds == nil:
		return 0
	default:
		return *pod.Spec.TerminationGracePeriodSeconds
	}
}

// release removes o for good, if it is being deleted and nothing holds it any more.
func (c *Cluster) release(user string, o object) {
	grace := o.GetDeletionGracePeriodSeconds()
	if o.GetDeletionTimestamp() != nil && len(o.GetFinalizers()) == 0 && (grace == nil || *grace == 0) {
		c.store.remove(user, o)
	}
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// stamp is the time as Kubernetes writes it into objects, in whole seconds.
func (c *Cluster) stamp() metav1.Time { return metav1.NewTime(c.clock.now.Truncate(time.Second)) }

func (c *Cluster) suffix() string {
	letters := make([]byte, 5)
	for i := range letters {
		letters[i] = suffixes[c.random.IntN(len(suffixes))]
	}
	return string(letters)
}

func (c *Cluster) uid() types.UID {
	a, b := c.random.Uint64(), c.random.Uint64()
	return types.UID(fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0xfff, b&0xffffffffffff))
}
