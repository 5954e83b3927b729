package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
)

const pictureWidth = 30 * vg.Centimeter

// The colours of Okabe and Ito, which colour-blind people tell apart.
var (
	grey   = color.RGBA{0xc9, 0xd1, 0xd9, 0xff}
	sky    = color.RGBA{0x56, 0xb4, 0xe9, 0xff}
	blue   = color.RGBA{0x00, 0x72, 0xb2, 0xff}
	purple = color.RGBA{0xcc, 0x79, 0xa7, 0xff}
	red    = color.RGBA{0xd5, 0x5e, 0x00, 0xff}
	yellow = color.RGBA{0xf0, 0xe4, 0x42, 0xff}
)

// states are those of the bars, with their colours and what they mean.
var states = []struct {
	state, meaning string
	color          color.Color
}{
	{queued, "queued", color.White},
	{blocked, "blocked: quota refuses the target pod", red},
	{deferred, "deferred: no room is granted", yellow},
	{charged, "charged: both pods count", sky},
	{leaving, "over for KubeVirt: both pods still count", grey},
	{decentralized, "decentralized: one pod counts", purple},
}

// draw writes the picture of the one recording that -f names.
func (o *options) draw() error {
	if len(o.files.Filenames) == 0 || o.at >= 0 {
		return errors.New("-o svg draws a whole recording: name one with -f, and leave out --at")
	}
	f, err := o.recording()
	if err != nil {
		return err
	}
	if f == nil {
		return fmt.Errorf("%s: -o svg draws a recording (.jsonl)", o.files.Filenames[0])
	}
	t, err := newTimeline(f, o)
	if err != nil {
		return err
	}
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	plotter.DefaultFont = plot.DefaultFont
	var panels [][]*plot.Plot
	for _, key := range slices.SortedFunc(maps.Keys(t.charts), compareCharts) {
		p, err := t.chart(key, len(panels) == 0)
		if err != nil {
			return err
		}
		panels = append(panels, []*plot.Plot{p})
	}
	p, err := t.migrations()
	if err != nil {
		return err
	}
	panels = append(panels, []*plot.Plot{p})
	panels[0][0].Title.Text = filepath.Base(f.name) + "\n\n" + panels[0][0].Title.Text
	canvas, pad := vgsvg.New(pictureWidth, t.panelHeight()*vg.Length(len(panels))), 3*vg.Millimeter
	tiles := draw.Tiles{Rows: len(panels), Cols: 1, PadY: pad, PadTop: pad, PadRight: pad, PadLeft: pad}
	for i, row := range plot.Align(panels, tiles, draw.New(canvas)) {
		panels[i][0].Draw(row[0])
	}
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	// Who reads it may not have this font.
	_, err = o.Out.Write(bytes.ReplaceAll(svg.Bytes(), []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif")))
	return err
}

// panelHeight is that of each panel: what the migrations need.
func (t *timeline) panelHeight() vg.Length {
	return 7*vg.Centimeter + vg.Length(max(0, len(t.bars)-2))*vg.Centimeter/2
}

// panel returns an empty one.
func (t *timeline) panel(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.X.Min, p.X.Max = 0, t.end.Seconds()
	p.Legend.Top, p.Legend.Left, p.Legend.Padding = true, true, vg.Millimeter
	return p
}

// chart draws one resource of one quota.
func (t *timeline) chart(key chartKey, legend bool) (*plot.Plot, error) {
	samples := t.charts[key]
	top, size := 0.0, 1.0
	for _, s := range samples {
		top = max(top, s.static, s.enforced, s.used, s.effective)
	}
	p := t.panel(fmt.Sprintf("ResourceQuota %s/%s: %s", key.namespace, key.quota, key.resource))
	if inBytes(corev1.ResourceName(key.resource)) {
		i := min(int(math.Log2(max(top, 1))/10), len(binaryUnits)-1)
		p.Y.Label.Text, size = binaryUnits[i], math.Pow(1024, float64(i))
	}
	p.Y.Min, p.Y.Max = 0, max(top/size, 1e-9)*1.05
	if legend {
		p.Y.Max *= 1.5 // it needs room
	}
	p.Add(plotter.NewGrid())
	for _, l := range []struct {
		name  string
		of    func(sample) float64
		fill  color.Color
		style draw.LineStyle
	}{
		{"temporary usage: charged twice", func(s sample) float64 { return s.used }, sky, draw.LineStyle{}},
		{"regular usage", func(s sample) float64 { return max(0, s.used-s.temporary) }, grey, draw.LineStyle{}},
		{"effective: what status.hard must be", func(s sample) float64 { return s.effective }, nil, draw.LineStyle{Color: blue, Width: 3}},
		{"enforced: status.hard as recorded", func(s sample) float64 { return s.enforced }, nil, draw.LineStyle{Color: purple, Width: 1.5}},
		{"static: spec.hard", func(s sample) float64 { return s.static }, nil, draw.LineStyle{Color: color.Black, Width: 1.2, Dashes: []vg.Length{5, 3}}},
	} {
		var points plotter.XYs
		for i, s := range samples {
			if i+1 == len(samples) || samples[i+1].at-s.at >= t.end/500 { // or it is too short to be seen
				points = append(points, plotter.XY{X: s.at.Seconds(), Y: l.of(s) / size})
			}
		}
		points = append(points, plotter.XY{X: t.end.Seconds(), Y: points[len(points)-1].Y})
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		line.StepStyle, line.FillColor, line.LineStyle = plotter.PostStep, l.fill, l.style
		p.Add(line)
		if legend {
			p.Legend.Add(l.name, line)
		}
	}
	return p, nil
}

// migrations draws each migration as a bar.
func (t *timeline) migrations() (*plot.Plot, error) {
	p := t.panel("Migrations")
	p.X.Label.Text = "seconds"
	var names []string
	for _, b := range t.bars {
		names = append([]string{b.name}, names...)
	}
	for _, s := range states {
		for i, b := range t.bars {
			y := float64(len(t.bars) - 1 - i)
			for _, span := range b.spans {
				if span.state != s.state {
					continue
				}
				x0, x1 := span.from.Seconds(), span.to.Seconds()
				stretch, err := plotter.NewPolygon(plotter.XYs{{X: x0, Y: y - 0.3}, {X: x0, Y: y + 0.3}, {X: x1, Y: y + 0.3}, {X: x1, Y: y - 0.3}})
				if err != nil {
					return nil, err
				}
				stretch.Color, stretch.LineStyle.Width = s.color, 0.5
				p.Add(stretch)
				if s.meaning != "" {
					p.Legend.Add(s.meaning, stretch)
					s.meaning = "" // once
				}
			}
		}
	}
	if len(names) > 0 {
		p.NominalY(names...)
	}
	const legendHeight = 2.8 * vg.Centimeter
	height := t.panelHeight() - 1.8*vg.Centimeter // without title and axis
	p.Y.Min = -0.6
	p.Y.Max = p.Y.Min + (float64(len(t.bars))+0.2)*float64(height/(height-legendHeight))
	return p, nil
}

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
