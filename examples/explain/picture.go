package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// Sizes of the picture, in pixels.
const (
	pictureWidth = 1120.0
	marginLeft   = 104.0
	marginRight  = 164.0
	chartHeight  = 190.0
	plotLeft     = marginLeft
	plotRight    = pictureWidth - marginRight
)

// The colours of Okabe and Ito, which colour-blind people tell apart.
const style = `text{font-family:` + fonts + `;fill:#222}
.title{font-size:20px;font-weight:600}
.subtitle{font-size:13.5px;fill:#555}
.head{font-size:14px;font-weight:600}
.small{font-size:12px}
.muted{font-size:12px;fill:#666}
.strong{font-size:12px;font-weight:600}
.bright{font-size:11.5px;font-weight:600;fill:#fff}
.halo{font-size:12px;font-weight:600;stroke:#fff;stroke-width:4px;stroke-linejoin:round;paint-order:stroke}
.grid{stroke:#e6e6e6;stroke-width:1}
.axis{stroke:#999;stroke-width:1}
.regular{fill:#c9d1d9}
.temporary{fill:#56b4e9}
.static{fill:none;stroke:#000;stroke-width:1.6;stroke-dasharray:6 4}
.enforced{fill:none;stroke:#d58fb8;stroke-width:2}
.effective{fill:none;stroke:#0072b2;stroke-width:4;stroke-linejoin:round}
.guide-refused{stroke:#d55e00;stroke-width:1.2;stroke-dasharray:2 3}
.guide-admitted{stroke:#009e73;stroke-width:1.2;stroke-dasharray:2 3}
.guide-ended,.guide-released{stroke:#777;stroke-width:1;stroke-dasharray:2 3}
.queued{fill:#f2f2f2;stroke:#999;stroke-width:1}
.blocked{fill:#d55e00}
.charged{fill:#56b4e9}
.decentralized{fill:#cc79a7}
.deferred{fill:url(#deferred)}
.mark-refused{fill:#d55e00;stroke:#fff;stroke-width:2;paint-order:stroke}
.mark-admitted{fill:#009e73;stroke:#fff;stroke-width:2;paint-order:stroke}
.mark-ended{fill:#fff;stroke:#222;stroke-width:1.5}
.mark-released{fill:#222}
`

// A picture is a timeline with its sizes.
type picture struct {
	*timeline
	*canvas
	x scale // seconds to pixels
	y float64
}

func newPicture(t *timeline) *picture {
	end := max(t.end.Seconds(), 0.001)
	// What holds at the end is drawn a little further, or nobody would see it.
	return &picture{timeline: t, canvas: &canvas{}, x: scale{0, end * 1.025, plotLeft, plotRight}}
}

// draw returns the whole file.
func (p *picture) draw() []byte {
	p.header()
	for _, part := range p.parts {
		p.part(part)
	}
	height := p.y + 12
	var file canvas
	fmt.Fprintf(&file, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" width="%s" height="%s" role="img">`+"\n",
		num(pictureWidth), num(height), num(pictureWidth), num(height))
	fmt.Fprintf(&file, "<title>%s</title>\n<desc>%s</desc>\n", escape(p.title()), escape(p.subtitle()))
	fmt.Fprintf(&file, "<style>\n%s</style>\n", style)
	file.WriteString(`<defs><pattern id="deferred" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">` +
		`<rect width="6" height="6" fill="#d55e00"/><rect width="2.5" height="6" fill="#fff"/></pattern></defs>` + "\n")
	file.rect(0, 0, pictureWidth, height, `fill="#fff"`)
	file.Write(p.Bytes())
	file.WriteString("</svg>\n")
	return file.Bytes()
}

func (p *picture) title() string {
	first := p.parts[0]
	if len(p.parts) > 1 {
		return fmt.Sprintf("Quotas of %d namespaces while virtual machines migrate", len(p.parts))
	}
	for _, c := range first.charts {
		if c.quota != first.charts[0].quota {
			return fmt.Sprintf("Quotas of namespace %s while virtual machines migrate", first.namespace)
		}
	}
	return fmt.Sprintf("ResourceQuota %s of namespace %s while virtual machines migrate", first.charts[0].quota, first.namespace)
}

// subtitle sums up what happened.
func (p *picture) subtitle() string {
	migrations, refused, admitted := 0, 0, 0
	var longest time.Duration
	for _, part := range p.parts {
		for _, b := range part.bars {
			migrations++
			wait, in, out := b.waited()
			if out {
				refused++
			}
			if in {
				admitted++
				longest = max(longest, wait)
			}
		}
	}
	text := fmt.Sprintf("%s, %s: %s", filepath.Base(p.name), moment(p.end), count(migrations, "migration"))
	switch {
	case refused == 0:
		return text + ", none refused by quota"
	case admitted == 0:
		return text + fmt.Sprintf(", %d refused by quota and never let in", refused)
	case refused == 1:
		return text + fmt.Sprintf(", refused by quota and let in %s later", moment(longest))
	default:
		return text + fmt.Sprintf(", %d refused by quota, %d of them let in, after %s at most", refused, admitted, moment(longest))
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// waited tells whether the migration was refused, whether it was let in, and how
// long that took.
func (b *bar) waited() (wait time.Duration, admitted, refused bool) {
	var since time.Duration
	for _, m := range b.marks {
		switch m.kind {
		case refusedMark:
			since, refused = m.at, true
		case admittedMark:
			wait, admitted = max(wait, m.at-since), true
		case endedMark, releasedMark:
		}
	}
	return wait, admitted, refused
}

func (p *picture) header() {
	p.text(plotLeft, 34, "start", "title", clip(p.title(), pictureWidth-plotLeft-10, 20))
	p.text(plotLeft, 56, "start", "subtitle", clip(p.subtitle(), pictureWidth-plotLeft-10, 13.5))
	p.y = 82
	p.legend()
	p.y += 18
}

// legend is what the charts show, and in a new line what the bars show. Only what
// is there is named.
func (p *picture) legend() {
	x := plotLeft
	item := func(draw func(x, y float64), label string) {
		const gap, swatch = 20, 24
		width := swatch + 7 + textWidth(label, 12)
		if x+width > pictureWidth-10 {
			x = plotLeft
			p.y += 20
		}
		draw(x+swatch/2, p.y-4)
		p.text(x+swatch+7, p.y, "start", "small", label)
		x += width + gap
	}
	stroke := func(class string) func(x, y float64) {
		return func(x, y float64) { p.line(x-12, y, x+12, y, class) }
	}
	area := func(class string) func(x, y float64) {
		return func(x, y float64) { p.rect(x-12, y-6, 24, 12, `class="`+class+`"`) }
	}
	item(stroke("effective"), "effective: what status.hard must be")
	item(stroke("static"), "static: spec.hard")
	item(stroke("enforced"), "enforced: status.hard as recorded")
	item(area("regular"), "regular usage")
	item(area("temporary"), "temporary usage: charged twice")
	p.y += 22
	x = plotLeft
	for _, s := range []struct {
		class, label string
		is           func(span) bool
	}{
		{"queued", "queued", func(s span) bool { return s.state == queued && !s.deferred }},
		{"blocked", "blocked: quota refuses the target pod", func(s span) bool { return s.state == blocked && !s.deferred }},
		{"deferred", "deferred: no room granted", func(s span) bool { return s.deferred }},
		{"charged", "charged: both pods count", func(s span) bool { return s.state == charged }},
		{"decentralized", "decentralized: one pod counts", func(s span) bool { return s.state == decentralized }},
	} {
		if p.hasSpan(s.is) {
			item(area(s.class), s.label)
		}
	}
	for kind, label := range []string{"refused", "let in", "over, says KubeVirt", "losing pod gone"} {
		if kind := markKind(kind); p.hasMark(kind) {
			item(func(x, y float64) { p.glyph(kind, x, y) }, label)
		}
	}
}

func (p *picture) hasSpan(is func(span) bool) bool {
	return p.hasBar(func(b *bar) bool { return slices.ContainsFunc(b.spans, is) })
}

func (p *picture) hasMark(kind markKind) bool {
	return p.hasBar(func(b *bar) bool {
		return slices.ContainsFunc(b.marks, func(m mark) bool { return m.kind == kind })
	})
}

func (p *picture) hasBar(is func(*bar) bool) bool {
	return slices.ContainsFunc(p.parts, func(part *part) bool { return slices.ContainsFunc(part.bars, is) })
}

// part draws the charts of a namespace, its migrations, and the axis below them.
func (p *picture) part(part *part) {
	if len(p.parts) > 1 {
		p.y += 26
		p.text(plotLeft, p.y, "start", "title", clip("Namespace "+part.namespace, pictureWidth-plotLeft-10, 20))
	}
	// What lies beneath the charts is drawn when their heights are known.
	beneath, top := p.canvas, p.y
	p.canvas = &canvas{}
	var bottoms []float64
	for _, c := range part.charts {
		p.chart(part, c)
		bottoms = append(bottoms, p.y)
	}
	p.bars(part)
	above := p.canvas
	p.canvas = beneath
	p.verticals(part, top, bottoms)
	p.Write(above.Bytes())
	p.timeAxis()
}
