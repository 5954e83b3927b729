package fake

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// eventTTL is after which time the API server forgets an event, by default.
const eventTTL = time.Hour

// A recorder writes events about VMIs as client-go's does for virt-controller: by and by, similar ones as one
// after the tenth, and of more than 25 about one VMI one each five minutes.
type recorder struct {
	*Cluster
	correlator *record.EventCorrelator
}

// failedCreate tells that a pod of vmi could not be created.
func (r *recorder) failedCreate(vmi *kubevirtv1.VirtualMachineInstance, format string, err error) {
	event := r.event(vmi, kubevirtv1.VirtualMachineInstanceGroupVersionKind, "FailedCreate", "virtualmachine-controller", fmt.Sprintf(format, err))
	event.Name = fmt.Sprintf("%s.%x", vmi.Name, r.clock.now.UnixNano())
	event.InvolvedObject.ResourceVersion = vmi.ResourceVersion
	result, correlateErr := r.correlator.EventCorrelate(event)
	if correlateErr == nil && !result.Skip {
		r.clock.after(r.draw(r.config.Timing.Call), func() { r.write(result.Event) })
	}
}

// event returns a warning about o, without a name.
func (r *recorder) event(o object, gvk schema.GroupVersionKind, reason, component, message string) *corev1.Event {
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.GetNamespace()},
		InvolvedObject: corev1.ObjectReference{
			Kind: gvk.Kind, APIVersion: gvk.GroupVersion().String(), Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(),
		},
		Type:           corev1.EventTypeWarning,
		Reason:         reason,
		Message:        message,
		Source:         corev1.EventSource{Component: component},
		FirstTimestamp: r.stamp(),
		LastTimestamp:  r.stamp(),
		Count:          1,
	}
}

// write brings event to the API server, in place of the one that it repeats.
func (r *recorder) write(event *corev1.Event) {
	event = event.DeepCopy()
	event.LastTimestamp.Time = event.LastTimestamp.Truncate(time.Second)
	event.FirstTimestamp.Time = event.FirstTimestamp.Truncate(time.Second)
	event.ResourceVersion = ""
	if old, ok := find[*corev1.Event](&r.store, event.Namespace, event.Name); ok {
		event.UID, event.CreationTimestamp = old.UID, old.CreationTimestamp
		r.store.put(virtControllerUser, event)
	} else {
		created, err := r.create(virtControllerUser, event)
		if err != nil {
			return // admission does not look at events
		}
		event, _ = created.(*corev1.Event)
	}
	r.correlator.UpdateState(event)
	r.clock.after(eventTTL, func() {
		if latest, ok := find[*corev1.Event](&r.store, event.Namespace, event.Name); ok && latest.ResourceVersion == event.ResourceVersion {
			r.store.remove(apiServer, latest)
		}
	})
}
