package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/quota"
)

// A timeline is how the quotas and migrations of a recording went.
type timeline struct {
	name  string // of the recording
	end   time.Duration
	parts []*part
}

// A part is one namespace.
type part struct {
	namespace string
	charts    []*chart
	bars      []*bar
}

// A chart is one resource of one quota.
type chart struct {
	quota    string
	resource corev1.ResourceName
	samples  []sample // in the order of time; each holds until the next
}

// A sample is the state of a chart, in the units of the resource.
type sample struct {
	at time.Duration
	levels
}

type levels struct {
	present                                      bool // the quota exists
	static, enforced, used, temporary, effective float64
}

// A bar is one migration.
type bar struct {
	uid       types.UID
	name, vmi string
	spans     []span
	marks     []mark
}

// A span is a stretch of a bar in one state.
type span struct {
	from, to time.Duration
	state    state
	deferred bool
	open     bool // it lasts to the end of the recording
}

// A mark is a moment of a bar.
type mark struct {
	at   time.Duration
	kind markKind
	text string
}

type markKind int

const (
	refusedMark markKind = iota
	admittedMark
	endedMark    // KubeVirt calls it Succeeded or Failed, or it was deleted
	releasedMark // it counts twice no more
)

// newTimeline plays the one recording of in.
func newTimeline(in *input, opts options, p *progress) (*timeline, error) {
	if len(in.recordings) != 1 || len(in.names) != 1 {
		return nil, fmt.Errorf("%s: -o svg draws one recording (.jsonl) at a time", in.names[0])
	}
	rec := in.recordings[0]
	if err := rec.check(nil); err != nil {
		return nil, err
	}
	w := &watcher{
		policy: opts.policy, resources: opts.resources,
		parts: map[string]*part{}, dirty: map[string]bool{},
	}
	looked, pause := time.Duration(0), rec.pause()
	for i, e := range rec.events {
		w.take(e)
		if last := i == len(rec.events)-1; last || rec.events[i+1].At >= looked+pause {
			w.look()
			looked = e.At
		}
		p.show("replaying %s: event %d of %d", rec.name, i+1, len(rec.events))
	}
	t := &timeline{name: rec.name, end: rec.end()}
	for _, namespace := range rec.namespaces() {
		if opts.namespace != "" && opts.namespace != namespace {
			continue
		}
		if p := w.parts[namespace]; len(p.charts) > 0 {
			p.arrange(opts.resources)
			t.parts = append(t.parts, p)
		}
	}
	if len(t.parts) == 0 {
		return nil, fmt.Errorf("%s: %w", rec.name, nothingToDraw(opts))
	}
	return t, nil
}

func nothingToDraw(opts options) error {
	switch {
	case opts.resources != nil:
		return errors.New("no quota limits what --resource names")
	case opts.namespace != "":
		return fmt.Errorf("no ResourceQuota of namespace %s in it", opts.namespace)
	default:
		return errors.New("no ResourceQuota in it")
	}
}

// exactEvents is up to how many events a recording is looked at after each of them.
const exactEvents = 2000

// pause is how long nothing is looked at in a long recording: half a pixel.
func (r namedRecording) pause() time.Duration {
	if len(r.events) <= exactEvents {
		return 0
	}
	return r.end() / exactEvents
}

// A watcher notes what has changed.
type watcher struct {
	policy    quota.Policy
	resources []corev1.ResourceName // nil: all
	cache     recording.Cache
	parts     map[string]*part
	dirty     map[string]bool // the namespaces with events that were not looked at
	now       time.Duration
}

func (w *watcher) take(e recording.Event) {
	w.now = max(w.now, e.At) // watches of several kinds may overtake each other a little
	w.cache.Apply(e)
	namespace := e.Object.GetNamespace()
	if w.parts[namespace] == nil {
		w.parts[namespace] = &part{namespace: namespace}
	}
	w.dirty[namespace] = true
	w.notice(w.parts[namespace], e)
}

// look notes the state of the namespaces in which something happened.
func (w *watcher) look() {
	for namespace := range w.dirty {
		t, p := newTenant(namespace, &w.cache), w.parts[namespace]
		inFlight, rulings := decide(t, w.policy)
		w.sample(p, rulings)
		w.follow(p, newCast(t, inFlight).migrations(rulings))
	}
	clear(w.dirty)
}

// sample adds the state of every quota to its charts.
func (w *watcher) sample(p *part, rulings []ruling) {
	sampled := map[*chart]bool{}
	for _, r := range rulings {
		for _, name := range sortedNames(r.static) {
			if w.resources != nil && !slices.Contains(w.resources, name) {
				continue
			}
			c := p.chart(r.quota.Name, name)
			c.add(w.now, levels{
				present:   true,
				static:    number(r.static[name]),
				enforced:  number(enforced(r.quota)[name]),
				used:      number(r.quota.Status.Used[name]),
				temporary: number(r.decision.Temporary[name]),
				effective: number(r.effective[name]),
			})
			sampled[c] = true
		}
	}
	for _, c := range p.charts {
		if !sampled[c] {
			c.add(w.now, levels{})
		}
	}
}

func number(q resource.Quantity) float64 { return q.AsApproximateFloat64() }

func (p *part) chart(quota string, name corev1.ResourceName) *chart {
	for _, c := range p.charts {
		if c.quota == quota && c.resource == name {
			return c
		}
	}
	c := &chart{quota: quota, resource: name}
	p.charts = append(p.charts, c)
	return c
}

func (c *chart) add(at time.Duration, l levels) {
	if n := len(c.samples); n == 0 || c.samples[n-1].levels != l {
		c.samples = append(c.samples, sample{at: at, levels: l})
	}
}

// arrange sorts the charts: by quota, and in it limits.memory first, or in the
// order of resources.
func (p *part) arrange(resources []corev1.ResourceName) {
	if resources == nil {
		resources = []corev1.ResourceName{corev1.ResourceLimitsMemory}
	}
	rank := func(c *chart) int {
		if i := slices.Index(resources, c.resource); i >= 0 {
			return i
		}
		return len(resources)
	}
	slices.SortFunc(p.charts, func(a, b *chart) int {
		return compareAll(a.quota, b.quota, rank(a), rank(b), string(a.resource), string(b.resource))
	})
}

// follow extends the bars of the migrations that are in flight.
func (w *watcher) follow(p *part, migrations []migrationReport) {
	running := map[types.UID]bool{}
	for _, m := range migrations {
		if m.State == over {
			continue
		}
		running[m.UID] = true
		p.bar(m).enter(w.now, m.State, m.Decision == deferred)
	}
	for _, b := range p.bars {
		if !running[b.uid] {
			b.leave(w.now)
		}
	}
	for _, b := range p.bars {
		if n := len(b.spans); n > 0 && b.spans[n-1].open {
			b.spans[n-1].to = w.now
		}
	}
}

func (p *part) bar(m migrationReport) *bar {
	for _, b := range p.bars {
		if b.uid == m.UID {
			return b
		}
	}
	b := &bar{uid: m.UID, name: m.Name, vmi: m.VMI}
	p.bars = append(p.bars, b)
	return b
}

// enter notes the state of a migration at the moment at.
func (b *bar) enter(at time.Duration, s state, deferred bool) {
	var before state
	if n := len(b.spans); n > 0 {
		last := &b.spans[n-1]
		before = last.state
		if last.open && last.state == s && last.deferred == deferred {
			return
		}
		if last.open {
			last.to, last.open = at, false
		}
	}
	switch {
	case s == blocked && before != blocked:
		b.marks = append(b.marks, mark{at: at, kind: refusedMark, text: "refused by quota"})
	case s == charged && before == blocked:
		b.marks = append(b.marks, mark{at: at, kind: admittedMark, text: "target pod let in"})
	}
	b.spans = append(b.spans, span{from: at, to: at, state: s, deferred: deferred, open: true})
}

// leave notes that a migration is in flight no more.
func (b *bar) leave(at time.Duration) {
	n := len(b.spans)
	if n == 0 || !b.spans[n-1].open {
		return
	}
	last := &b.spans[n-1]
	last.to, last.open = at, false
	if last.state == charged {
		b.marks = append(b.marks, mark{at: at, kind: releasedMark, text: "losing pod gone"})
	}
}

// notice marks the end of a migration as KubeVirt tells it.
func (w *watcher) notice(p *part, e recording.Event) {
	m, ok := e.Object.(*kubevirtv1.VirtualMachineInstanceMigration)
	if !ok || !m.IsFinal() && e.Type != watch.Deleted {
		return
	}
	text := string(m.Status.Phase)
	if !m.IsFinal() {
		text = "deleted"
	}
	for _, b := range p.bars {
		ended := slices.ContainsFunc(b.marks, func(m mark) bool { return m.kind == endedMark })
		if b.uid == m.UID && !ended {
			b.marks = append(b.marks, mark{at: w.now, kind: endedMark, text: text})
		}
	}
}

func (t *timeline) draw(out io.Writer) error {
	_, err := out.Write(newPicture(t).draw())
	return err
}
