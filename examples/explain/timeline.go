package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
)

// A film is a recording.
type film struct {
	name       string
	events     []recording.Event
	begin, end time.Duration // when the first event came, and the last
}

func newFilm(name string, events []recording.Event) *film {
	byTime := func(a, b recording.Event) int { return cmp.Compare(a.At, b.At) }
	return &film{name: name, events: events, begin: slices.MinFunc(events, byTime).At, end: slices.MaxFunc(events, byTime).At}
}

// narrow returns the namespace to show: that of -n, or the only one there is. Empty means all.
func (f *film) narrow(asked string) (string, error) {
	seen := map[string]bool{} // those that have a quota or a migration at any time
	for _, e := range f.events {
		switch e.Object.(type) {
		case *corev1.ResourceQuota, *kubevirtv1.VirtualMachineInstanceMigration:
			seen[e.Object.GetNamespace()] = true
		}
	}
	switch names := slices.Sorted(maps.Keys(seen)); {
	case len(names) == 0:
		return "", fmt.Errorf("%s: no ResourceQuota and no VirtualMachineInstanceMigration in it", f.name)
	case asked != "" && !seen[asked]:
		return "", fmt.Errorf("%s: nothing of namespace %s in it, but of %s", f.name, asked, enumerate(names))
	case asked == "" && len(names) == 1:
		return names[0], nil
	}
	return asked, nil
}

// replay returns the world at the moment of --at.
func (f *film) replay(o *options) (*world, error) {
	at := f.end
	if o.at >= 0 {
		at = o.at
	}
	if at < f.begin || at > f.end {
		return nil, fmt.Errorf("%s: --at %s is not in it: it begins at %s and ends at %s", f.name, at, f.begin, f.end)
	}
	w := newWorld(recordingSource, f.name)
	w.source.At, w.source.End = at.String(), f.end.String()
	for _, e := range f.events {
		if e.At <= at {
			w.cache.Apply(e)
		}
	}
	var err error
	w.namespace, err = f.narrow(*o.config.Namespace)
	return w, err
}

// A timeline is how the quotas and migrations of a recording went.
type timeline struct {
	end    time.Duration
	charts map[chartKey][]sample // in the order of time; each holds until the next
	bars   []*bar                // in the order in which they began
}

type chartKey struct{ namespace, quota, resource string }

// compareCharts puts memory first, which is what people look at.
func compareCharts(a, b chartKey) int {
	rank := func(k chartKey) string {
		if k.resource == string(corev1.ResourceLimitsMemory) {
			return ""
		}
		return k.resource
	}
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.quota, b.quota), cmp.Compare(rank(a), rank(b)))
}

// A sample is the state of a chart, in the units of the resource. It is zero where there is no
// quota.
type sample struct {
	at                                           time.Duration
	static, enforced, used, temporary, effective float64
}

// A bar is one migration, from when it comes to when it charges nothing twice any more.
type bar struct {
	uid   types.UID
	name  string
	spans []span
	over  bool
}

// A span is a stretch of a bar in one state.
type span struct {
	from, to time.Duration
	state    string
}

// leaving is the state of a migration that KubeVirt has ended while both its pods count.
const leaving = "charged, and over for KubeVirt"

// looks is at how many moments of a long recording its state is looked at: two for each pixel.
const looks = 2000

// newTimeline plays f.
func newTimeline(f *film, o *options) (t *timeline, err error) {
	t = &timeline{end: f.end, charts: map[chartKey][]sample{}}
	w := newWorld(recordingSource, f.name)
	if w.namespace, err = f.narrow(*o.config.Namespace); err != nil {
		return nil, err
	}
	var now, looked, pause time.Duration
	if len(f.events) > looks {
		pause = f.end / looks
	}
	for i, e := range f.events {
		now = max(now, e.At) // watches of several kinds may overtake each other a little
		w.cache.Apply(e)
		if i < len(f.events)-1 && f.events[i+1].At < looked+pause {
			continue
		}
		looked = now
		running := map[types.UID]bool{}
		for _, tenant := range w.tenants() {
			n := explain(tenant, o.policy)
			t.sample(now, n, o.resources)
			for _, m := range n.Migrations {
				if m.State != over {
					running[m.UID] = true
					t.bar(now, m)
				}
			}
		}
		for _, b := range t.bars {
			if !b.over {
				b.spans[len(b.spans)-1].to, b.over = now, !running[b.uid]
			}
		}
	}
	if len(t.charts) == 0 {
		return nil, fmt.Errorf("%s: no ResourceQuota in it that limits what --resource names", f.name)
	}
	return t, nil
}

// sample notes the state of the quotas of a namespace.
func (t *timeline) sample(now time.Duration, n namespaceReport, resources []string) {
	samples := map[chartKey]sample{}
	for key := range t.charts {
		if key.namespace == n.Name {
			samples[key] = sample{}
		}
	}
	for _, q := range n.Quotas {
		for _, r := range q.Resources {
			if len(resources) == 0 || slices.Contains(resources, string(r.Resource)) {
				samples[chartKey{n.Name, q.Name, string(r.Resource)}] = sample{
					static: r.Static.AsApproximateFloat64(), enforced: r.Enforced.AsApproximateFloat64(), used: r.Used.AsApproximateFloat64(),
					temporary: r.Temporary.AsApproximateFloat64(), effective: r.Effective.AsApproximateFloat64(),
				}
			}
		}
	}
	for key, s := range samples {
		var last sample
		if before := t.charts[key]; len(before) > 0 {
			last = before[len(before)-1]
		}
		s.at = last.at
		if s != last || t.charts[key] == nil {
			s.at = now
			t.charts[key] = append(t.charts[key], s)
		}
	}
}

// bar notes the state of a migration.
func (t *timeline) bar(now time.Duration, m migrationReport) {
	state := m.State
	switch {
	case state == charged && (m.ended() || m.Phase == ""):
		state = leaving
	case m.Decision == deferred:
		state = deferred
	}
	b := find(t.bars, func(b *bar) bool { return b.uid == m.UID })
	if b == nil {
		b = &bar{uid: m.UID, name: m.Name}
		t.bars = append(t.bars, b)
	}
	if n := len(b.spans); n == 0 || b.spans[n-1].state != state {
		if n > 0 {
			b.spans[n-1].to = now
		}
		b.spans = append(b.spans, span{from: now, to: now, state: state})
	}
}
