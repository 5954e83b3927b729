package main

import (
	"cmp"
	"fmt"
	"slices"
)

// roomy is up to how many migrations the moments are written out.
const roomy = 8

// bars draws the migrations of a namespace below p.y.
func (p *picture) bars(part *part) {
	if len(part.bars) == 0 {
		p.y += 4
		return
	}
	p.y += 22
	p.text(plotLeft, p.y, "start", "head", "Migrations")
	p.y += 8
	for _, b := range part.bars {
		if len(part.bars) > roomy {
			p.compactBar(b)
		} else {
			p.roomyBar(b)
		}
	}
	p.y += 4
}

// edges are where the bar begins and ends.
func (p *picture) edges(b *bar) (from, to float64) {
	return p.x.at(b.spans[0].from.Seconds()), p.spanEnd(b.spans[len(b.spans)-1])
}

func (p *picture) spanEnd(s span) float64 {
	if s.open {
		return plotRight
	}
	return p.x.at(s.to.Seconds())
}

// roomyBar has its name above it and its moments below it.
func (p *picture) roomyBar(b *bar) {
	const height = 18
	from, to := p.edges(b)
	label := clip(b.name+", VM "+b.vmi, pictureWidth-plotLeft-10, 12)
	p.y += 16
	width := textWidth(label, 12)
	x, anchor := from, "start"
	if from+width > plotRight {
		x, anchor = max(to, plotLeft+width), "end"
	}
	p.text(x, p.y, anchor, "small", label)
	p.y += 6
	p.spans(b, height, true)
	p.y += height
	p.y = p.moments(b, p.y) + 8
}

// compactBar is one line.
func (p *picture) compactBar(b *bar) {
	const height = 12
	from, to := p.edges(b)
	p.y += 6
	p.spans(b, height, false)
	for _, m := range b.marks {
		p.glyph(m.kind, p.x.at(m.at.Seconds()), p.y+height/2)
	}
	label := clip(b.name+", VM "+b.vmi, plotRight-plotLeft, 12)
	width := textWidth(label, 12)
	switch {
	case to+12+width < pictureWidth:
		p.text(to+12, p.y+height-2, "start", "small", label)
	case from-12-width > 0:
		p.text(from-12, p.y+height-2, "end", "small", label)
	default:
		p.text((plotLeft+plotRight)/2, p.y+height-2, "middle", "halo", label)
	}
	p.y += height
}

func (p *picture) spans(b *bar, height float64, named bool) {
	for _, s := range b.spans {
		x, w := p.x.at(s.from.Seconds()), p.spanEnd(s)-p.x.at(s.from.Seconds())
		class := string(s.state)
		name := class
		if s.deferred {
			class, name = "deferred", ""
		}
		p.rect(x, p.y, max(w, 1.5), height, `class="`+class+`"`)
		if named && name != "" && w > textWidth(name, 11.5)+10 {
			textClass := "strong"
			if s.state == blocked {
				textClass = "bright"
			}
			p.text(x+w/2, p.y+height-5, "middle", textClass, name)
		}
	}
}

// A caption is the text of a mark and where it stands.
type caption struct {
	mark         mark
	text, anchor string
	x, from, to  float64
	line         int
}

// moments draws the marks of a bar below y, with their captions in as few lines as
// they take without touching each other, and returns where they end.
func (p *picture) moments(b *bar, y float64) float64 {
	const lineHeight = 16
	captions := p.captions(b)
	lines := 0
	for _, c := range captions {
		lines = max(lines, c.line+1)
	}
	for _, c := range captions {
		base := y + 20 + float64(c.line)*lineHeight
		p.line(c.x, y-18, c.x, base-10, "guide-"+c.mark.kind.class())
		p.glyph(c.mark.kind, c.x, base-4)
		at := c.x + 11
		if c.anchor == "end" {
			at = c.x - 11
		}
		p.text(at, base, c.anchor, "halo", c.text)
	}
	return y + 6 + float64(lines)*lineHeight
}

// captions places those of the right first: the stems of the others then pass left
// of them.
func (p *picture) captions(b *bar) []caption {
	marks := slices.Clone(b.marks)
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(b.at, a.at) })
	var placed []caption
	for _, m := range marks {
		c := caption{mark: m, text: m.text + ", " + moment(m.at), anchor: "start", x: p.x.at(m.at.Seconds())}
		width := textWidth(c.text, 12) + 20
		c.from, c.to = c.x-8, c.x+width
		if c.to > pictureWidth-8 {
			c.anchor, c.from, c.to = "end", c.x-width, c.x+8
		}
		c.settle(placed)
		placed = append(placed, c)
	}
	return placed
}

// settle chooses the first line in which c touches no other caption and no stem
// crosses another's text; or, where there is none, in which it touches no other.
func (c *caption) settle(placed []caption) {
	for _, touches := range []func(caption, caption) bool{caption.crosses, caption.overlaps} {
		for c.line = range len(placed) + 1 {
			if !slices.ContainsFunc(placed, func(o caption) bool { return touches(*c, o) }) {
				return
			}
		}
	}
}

func (c caption) overlaps(o caption) bool {
	return c.line == o.line && c.from < o.to && o.from < c.to
}

// crosses tells whether c and o overlap, or the stem of one crosses the other.
func (c caption) crosses(o caption) bool {
	switch {
	case c.line == o.line:
		return c.overlaps(o)
	case c.line > o.line:
		return c.x > o.from && c.x < o.to
	default:
		return o.x > c.from && o.x < c.to
	}
}

func (k markKind) class() string {
	switch k {
	case refusedMark:
		return "refused"
	case admittedMark:
		return "admitted"
	case endedMark:
		return "ended"
	default:
		return "released"
	}
}

// glyph draws the sign of a mark around x, y; the shapes differ, not only the colours.
func (p *picture) glyph(kind markKind, x, y float64) {
	var d string
	switch kind {
	case refusedMark: // a cross
		d = fmt.Sprintf("M%s %sl5 5l-2 2l-5 -5l-5 5l-2 -2l5 -5l-5 -5l2 -2l5 5l5 -5l2 2z", num(x+2), num(y))
	case admittedMark: // a triangle
		d = fmt.Sprintf("M%s %sl6 11h-12z", num(x), num(y-6))
	case endedMark: // a circle
		d = fmt.Sprintf("M%s %sa4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z", num(x-4.5), num(y))
	case releasedMark: // a square
		d = fmt.Sprintf("M%s %sh8v8h-8z", num(x-4), num(y-4))
	}
	p.path(d, "mark-"+kind.class())
}

// verticals draws the grid of the time and the moments through the charts.
func (p *picture) verticals(part *part, top float64, bottoms []float64) {
	for _, t := range timeTicks(p.end.Seconds()) {
		p.line(p.x.at(t.value), top+32, p.x.at(t.value), p.y, "grid")
	}
	if len(part.bars) > roomy {
		return
	}
	for _, b := range part.bars {
		for _, m := range b.marks {
			x := p.x.at(m.at.Seconds())
			if m.kind == refusedMark || m.kind == admittedMark {
				p.line(x, top+32, x, bottoms[len(bottoms)-1], "guide-"+m.kind.class())
			}
		}
	}
}

// timeAxis closes a part.
func (p *picture) timeAxis() {
	p.line(plotLeft, p.y, plotRight, p.y, "axis")
	for _, t := range timeTicks(p.end.Seconds()) {
		p.line(p.x.at(t.value), p.y, p.x.at(t.value), p.y+5, "axis")
		p.text(p.x.at(t.value), p.y+19, "middle", "muted", t.label)
	}
	p.y += 28
}
