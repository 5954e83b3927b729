package measure

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"

	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
)

// tellSlow writes what the API server was asked in the namespace of a migration, from
// before its VMIM was created to after its target pod was, for every migration that took
// longer than slow.
func tellSlow(out io.Writer, what string, events []bed.AuditEvent, slow time.Duration) {
	if slow <= 0 {
		return
	}
	for _, w := range waits(events) {
		if w.to.Sub(w.from) <= slow {
			continue
		}
		fmt.Fprintf(out, "%s: %s took %v:\n", what, w.name, w.to.Sub(w.from).Round(time.Millisecond))
		for _, e := range events {
			if e.Received.Before(w.from.Add(-200*time.Millisecond)) || e.Received.After(w.to.Add(100*time.Millisecond)) {
				continue
			}
			fmt.Fprintf(out, "  %8.3f s, took %3d ms: %s %s %s/%s: %d %s\n", e.Received.Sub(w.from).Seconds(), e.Answered.Sub(e.Received).Milliseconds(),
				e.User, e.Verb, e.Resource, e.Subresource, e.Code, describe(e))
		}
	}
}

// describe says what of a request matters here.
func describe(e bed.AuditEvent) string {
	switch e.Resource {
	case "resourcequotas":
		var rq corev1.ResourceQuota
		if json.Unmarshal(e.ResponseObject, &rq) != nil || e.Code >= 300 {
			return e.Message
		}
		list := func(list corev1.ResourceList) string {
			q := list[corev1.ResourceLimitsMemory]
			return fmt.Sprintf("%.2f", q.AsApproximateFloat64()/(1<<30))
		}
		return fmt.Sprintf("spec.hard %s, status.hard %s, used %s GiB", list(rq.Spec.Hard), list(rq.Status.Hard), list(rq.Status.Used))
	case "virtualmachineinstancemigrations":
		var m kubevirtv1.VirtualMachineInstanceMigration
		if json.Unmarshal(e.RequestObject, &m) != nil {
			return e.Name
		}
		return fmt.Sprintf("%s %s, %d conditions", e.Name, m.Status.Phase, len(m.Status.Conditions))
	case "pods":
		var pod corev1.Pod
		if json.Unmarshal(e.RequestObject, &pod) != nil || e.Verb != "create" {
			return e.Name
		}
		return fmt.Sprintf("for %s %.80s", pod.Annotations[kubevirtv1.MigrationJobNameAnnotation], e.Message)
	default:
		return e.Name
	}
}
