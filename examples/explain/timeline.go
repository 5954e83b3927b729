package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// A timeline is how the quotas and migrations of a recording went.
type timeline struct {
	end    time.Duration
	charts map[chartKey][]sample // in the order of time; each holds until the next
	bars   []*bar                // in the order in which they began
}

type chartKey struct{ namespace, quota, resource string }

// compareCharts puts memory first, which is what people look at.
func compareCharts(a, b chartKey) int {
	rank := func(k chartKey) bool { return k.resource != string(corev1.ResourceLimitsMemory) }
	order := cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.quota, b.quota))
	switch {
	case order != 0 || rank(a) == rank(b):
		return cmp.Or(order, cmp.Compare(a.resource, b.resource))
	case rank(a):
		return 1
	}
	return -1
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
func newTimeline(f *film, o *options) (*timeline, error) {
	only, err := f.narrow(o)
	if err != nil {
		return nil, err
	}
	t := &timeline{end: f.end(), charts: map[chartKey][]sample{}}
	w := newWorld(recordingSource, f.name)
	w.namespace = only
	var now, looked, pause time.Duration
	if len(f.events) > looks {
		pause = f.end() / looks
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
			t.look(now, tenant, o, running)
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

// look notes the state of a namespace.
func (t *timeline) look(now time.Duration, n tenant, o *options, running map[types.UID]bool) {
	present := map[chartKey]bool{}
	_, rulings, _ := decide(n, o.policy)
	for _, r := range rulings {
		for _, name := range sortedNames(r.quota.Spec.Hard) {
			if len(o.resources) > 0 && !slices.Contains(o.resources, string(name)) {
				continue
			}
			key := chartKey{n.name, r.quota.Name, string(name)}
			present[key] = true
			number := func(list corev1.ResourceList) float64 { q := list[name]; return q.AsApproximateFloat64() }
			t.add(key, sample{
				at: now, static: number(r.quota.Spec.Hard), enforced: number(enforced(r.quota)),
				used: number(r.quota.Status.Used), temporary: number(r.decision.Temporary), effective: number(r.effective),
			})
		}
	}
	for key := range t.charts {
		if key.namespace == n.name && !present[key] {
			t.add(key, sample{at: now})
		}
	}
	for _, m := range explain(n, o.policy).Migrations {
		state, ended := m.State, m.Phase == string(kubevirtv1.MigrationSucceeded) || m.Phase == string(kubevirtv1.MigrationFailed)
		switch {
		case state == over:
			continue
		case state == charged && (ended || m.Phase == ""):
			state = leaving
		case m.Decision == deferred:
			state = deferred
		}
		running[m.UID] = true
		t.bar(m).enter(now, state)
	}
}

func (t *timeline) add(key chartKey, s sample) {
	samples := t.charts[key]
	if n := len(samples); n > 0 {
		last := samples[n-1]
		if last.at = s.at; last == s {
			return
		}
	}
	t.charts[key] = append(samples, s)
}

func (t *timeline) bar(m migrationReport) *bar {
	if i := slices.IndexFunc(t.bars, func(b *bar) bool { return b.uid == m.UID }); i >= 0 {
		return t.bars[i]
	}
	b := &bar{uid: m.UID, name: m.Name}
	t.bars = append(t.bars, b)
	return b
}

func (b *bar) enter(now time.Duration, state string) {
	if n := len(b.spans); n > 0 {
		if b.spans[n-1].state == state {
			return
		}
		b.spans[n-1].to = now
	}
	b.spans = append(b.spans, span{from: now, to: now, state: state})
}
