package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// read reads in the audit log for how long the guard refused, and for how long there was
// less room here than there.
func (t *twins) read() error {
	mine, first := t.here.Audit()
	theirs, second := t.there.Audit()
	versions, third := onbed.QuotaVersions(append(mine, theirs...))
	if err := errors.Join(first, second, third); err != nil {
		return err
	}
	for _, w := range t.report.wrong {
		t.report.Timelines = append(t.report.Timelines, timeline(mine, w))
	}
	var closed, behind stopwatch
	var here, there *corev1.ResourceQuota
	for _, rq := range versions {
		if rq.Namespace == t.here.Namespace() {
			here = rq.ResourceQuota
			_, offered := here.Annotations[applier.OfferAnnotation]
			closed.measure(offered && !quota.Equal(here.Spec.Hard, here.Status.Hard), rq.At)
		} else {
			there = rq.ResourceQuota
		}
		if here != nil && there != nil {
			behind.measure(hasLessRoom(here, there), rq.At)
		}
	}
	t.report.Closed, t.report.Behind = closed.sorted(), behind.sorted()
	return nil
}

// hasLessRoom reports whether a has less room than b has, of anything of which b has some.
func hasLessRoom(a, b *corev1.ResourceQuota) bool {
	for name, hard := range b.Status.Hard {
		room, needed := a.Status.Hard[name].DeepCopy(), hard.DeepCopy()
		room.Sub(a.Status.Used[name])
		needed.Sub(b.Status.Used[name])
		if needed.Sign() > 0 && room.Cmp(needed) < 0 {
			return true
		}
	}
	return false
}

// A stopwatch measures for how long things last.
type stopwatch struct {
	since time.Time // zero: it is not
	took  []time.Duration
}

func (s *stopwatch) measure(is bool, now time.Time) {
	switch {
	case is && s.since.IsZero():
		s.since = now
	case !is && !s.since.IsZero():
		s.took = append(s.took, max(0, now.Sub(s.since)))
		s.since = time.Time{}
	}
}

func (s *stopwatch) sorted() []time.Duration {
	slices.Sort(s.took)
	return s.took
}

func cpu(list corev1.ResourceList) string {
	q := list[corev1.ResourceLimitsCPU]
	return q.String()
}

// timeline tells what the API server was asked while it admitted an object.
func timeline(events []bed.AuditEvent, w wrong) string {
	i := slices.IndexFunc(events, func(e bed.AuditEvent) bool { return e.Name == w.name && e.Verb == "create" })
	if i < 0 {
		return w.name
	}
	from := events[i].Received
	text := fmt.Sprintf("%s was admitted here, and there: %v; at %v:", w.name, w.right, from.UTC())
	for _, e := range events {
		if e.Answered.Before(from.Add(-300*time.Millisecond)) || e.Received.After(events[i].Answered.Add(50*time.Millisecond)) {
			continue
		}
		text += fmt.Sprintf("\n  %4d to %4d ms: %s %s %s/%s %s: %d %s", e.Received.Sub(from).Milliseconds(), e.Answered.Sub(from).Milliseconds(),
			e.User, e.Verb, e.Resource, e.Subresource, e.Name, e.Code, e.Message)
		if e.Resource != "resourcequotas" {
			continue
		}
		var rq corev1.ResourceQuota
		if json.Unmarshal(e.ResponseObject, &rq) == nil {
			text += fmt.Sprintf("%s, hard %s, used %s", rq.Annotations[applier.OfferAnnotation],
				cpu(rq.Status.Hard), cpu(rq.Status.Used))
		}
	}
	return text
}
