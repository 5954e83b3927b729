package measure

import (
	"encoding/json"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
)

// read reads in the audit log what a policy came to.
func (r *Result) read(f *onbed.Fleet, events []bed.AuditEvent) error {
	r.Delays = delays(events)
	for _, e := range events {
		if onbed.Wrote(e) {
			r.Writes++
		}
	}
	var err error
	r.Exposure, err = exposure(events, f.Static, f.Regular)
	return err
}

// delays returns for how long every migration waited for its target pod, in ascending order.
func delays(events []bed.AuditEvent) []time.Duration {
	var found []time.Duration
	for _, w := range waits(events) {
		found = append(found, w.to.Sub(w.from))
	}
	slices.Sort(found)
	return found
}

// A wait is that of a migration for its target pod, from the request to create the one to
// the answer that the other is there.
type wait struct {
	name     string
	from, to time.Time
}

// waits returns those of the migrations that got a target pod.
func waits(events []bed.AuditEvent) []wait {
	created := map[string]time.Time{}
	var found []wait
	for _, e := range events {
		switch {
		case e.Verb != "create" || e.Subresource != "" || e.Code != 201:
		case e.Resource == "virtualmachineinstancemigrations":
			created[e.Name] = e.Received
		case e.Resource == "pods":
			var pod corev1.Pod
			if json.Unmarshal(e.RequestObject, &pod) != nil {
				continue
			}
			name := pod.Annotations[kubevirtv1.MigrationJobNameAnnotation]
			if from, ok := created[name]; ok {
				found = append(found, wait{name, from, e.Answered})
			}
		}
	}
	return found
}

// An Exposure is room in limits.memory that regular pods could have taken and should not.
type Exposure struct {
	Total float64 // byte seconds
	Most  float64 // bytes, at one time
}

// exposure sums up over time what is enforced, and neither used nor available to regular
// workloads by the static limits. Of what is used, regular workloads have no more than
// regular, because all that they are is VMs that migrate.
func exposure(events []bed.AuditEvent, static, regular corev1.ResourceList) (Exposure, error) {
	memory := func(list corev1.ResourceList) float64 {
		q := list[corev1.ResourceLimitsMemory]
		return q.AsApproximateFloat64()
	}
	versions, err := onbed.QuotaVersions(events)
	if err != nil {
		return Exposure{}, err
	}
	room := func(rq onbed.QuotaVersion) float64 {
		used := memory(rq.Status.Used)
		return max(0, memory(rq.Status.Hard)-used-max(0, memory(static)-min(used, memory(regular))))
	}
	var found Exposure
	for i, rq := range versions {
		found.Most = max(found.Most, room(rq))
		if i+1 < len(versions) {
			found.Total += room(rq) * max(0, versions[i+1].At.Sub(rq.At).Seconds())
		}
	}
	return found, nil
}
