package main

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"maps"
	"math"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
	corev1 "k8s.io/api/core/v1"
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
