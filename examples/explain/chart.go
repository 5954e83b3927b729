package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// compareAll compares pairs, the first that differs decides.
func compareAll(quotaA, quotaB string, rankA, rankB int, nameA, nameB string) int {
	return cmp.Or(cmp.Compare(quotaA, quotaB), cmp.Compare(rankA, rankB), cmp.Compare(nameA, nameB))
}

// chart draws one chart below p.y.
func (p *picture) chart(part *part, c *chart) {
	u := unitOf(c.resource)
	head := string(c.resource)
	if len(part.charts) > 0 && slices.ContainsFunc(part.charts, func(o *chart) bool { return o.quota != c.quota }) {
		head = c.quota + ": " + head
	}
	p.y += 20
	p.text(plotLeft, p.y, "start", "head", clip(head, plotRight-plotLeft, 14))
	top := p.y + 12
	bottom := top + chartHeight
	samples := p.settled(c.samples)
	y := scale{0, part.top(samples), bottom, top}
	for _, t := range valueTicks(u, y.v1) {
		p.line(plotLeft, y.at(t.value), plotRight, y.at(t.value), "grid")
		p.text(plotLeft-8, y.at(t.value)+4, "end", "muted", t.label)
	}
	p.layers(samples, y)
	p.line(plotLeft, bottom, plotRight, bottom, "axis")
	p.clipped(samples, y, u)
	p.plateau(samples, y, u, p.gaps(samples, y))
	p.endLabels(samples[len(samples)-1], y, u)
	p.y = bottom + 8
}

// top is the highest value that the chart shows. A limit that is much higher
// before or after the migrations would flatten what happens during them, so it
// leaves the chart at the top.
func (p *part) top(samples []sample) float64 {
	from, to := p.busy()
	top := 0.0
	for i, s := range samples {
		top = max(top, s.used)
		next := time.Duration(1<<63 - 1)
		if i+1 < len(samples) {
			next = samples[i+1].at
		}
		if len(p.bars) == 0 || next > from && s.at <= to {
			top = max(top, s.static, s.enforced, s.effective)
		}
	}
	if top == 0 {
		return 1
	}
	return top * 1.22
}

// busy is the time from the first migration to the end of the last.
func (p *part) busy() (from, to time.Duration) {
	for i, b := range p.bars {
		first, last := b.spans[0].from, b.spans[len(b.spans)-1].to
		if i == 0 || first < from {
			from = first
		}
		to = max(to, last)
	}
	return from, to
}

// settled leaves out the states that last for less than a pixel.
func (p *picture) settled(samples []sample) []sample {
	pixel := time.Duration(float64(time.Second) / (p.x.at(1) - p.x.at(0)))
	var kept []sample
	for i, s := range samples {
		if i+1 < len(samples) && samples[i+1].at-s.at < pixel && i > 0 {
			continue
		}
		if n := len(kept); n == 0 || kept[n-1].levels != s.levels {
			kept = append(kept, s)
		}
	}
	return kept
}

// layers draws the areas and the lines, cut off at the edges of the chart.
func (p *picture) layers(samples []sample, y scale) {
	id := fmt.Sprintf("clip%s", strings.ReplaceAll(num(y.p1), ".", "_"))
	fmt.Fprintf(p, `<clipPath id="%s"><rect x="%s" y="%s" width="%s" height="%s"/></clipPath>`+"\n",
		id, num(plotLeft), num(y.p1), num(plotRight-plotLeft), num(y.p0-y.p1+2))
	fmt.Fprintf(p, `<g clip-path="url(#%s)">`+"\n", id)
	zero := func(sample) float64 { return 0 }
	regular := func(s sample) float64 { return max(0, s.used-s.temporary) }
	p.path(p.area(samples, y, zero, regular), "regular")
	p.path(p.area(samples, y, regular, func(s sample) float64 { return s.used }), "temporary")
	p.path(p.steps(samples, y, func(s sample) float64 { return s.effective }), "effective")
	p.path(p.steps(samples, y, func(s sample) float64 { return s.enforced }), "enforced")
	p.path(p.steps(samples, y, func(s sample) float64 { return s.static }), "static")
	p.WriteString("</g>\n")
}

// until is where the state of samples[i] ends.
func (p *picture) until(samples []sample, i int) float64 {
	if i+1 < len(samples) {
		return p.x.at(samples[i+1].at.Seconds())
	}
	return plotRight
}

// steps is the path of a line that is level between the samples.
func (p *picture) steps(samples []sample, y scale, of func(sample) float64) string {
	var d strings.Builder
	pen := false
	for i, s := range samples {
		if !s.present {
			pen = false
			continue
		}
		verb := "L"
		if !pen {
			verb = "M"
		}
		fmt.Fprintf(&d, "%s%s %sH%s", verb, num(p.x.at(s.at.Seconds())), num(y.at(of(s))), num(p.until(samples, i)))
		pen = true
	}
	return d.String()
}

// area is the path of what lies between two lines.
func (p *picture) area(samples []sample, y scale, low, high func(sample) float64) string {
	var d strings.Builder
	for i, s := range samples {
		if s.present && high(s) > low(s) {
			fmt.Fprintf(&d, "M%s %sV%sH%sV%sZ", num(p.x.at(s.at.Seconds())), num(y.at(low(s))),
				num(y.at(high(s))), num(p.until(samples, i)), num(y.at(low(s))))
		}
	}
	return d.String()
}

// clipped says how high the limits are where they leave the chart.
func (p *picture) clipped(samples []sample, y scale, u unit) {
	free := plotLeft
	for i, s := range samples {
		limit := max(s.static, s.enforced, s.effective)
		again := i > 0 && max(samples[i-1].static, samples[i-1].enforced, samples[i-1].effective) > y.v1
		label := "↑ " + amountText(u, limit)
		width := textWidth(label, 12)
		x := min(p.x.at(s.at.Seconds())+6, plotRight-width)
		if s.present && limit > y.v1 && !again && x >= free {
			p.text(x, y.p1+14, "start", "halo", label)
			free = x + width
		}
	}
}

// A reach is from where to where a text goes.
type reach struct{ from, to float64 }

// gaps says where there is no quota, and returns where that stands.
func (p *picture) gaps(samples []sample, y scale) []reach {
	half := textWidth("no quota", 12) / 2
	var taken []reach
	for i, s := range samples {
		from, to := p.x.at(s.at.Seconds()), p.until(samples, i)
		if !s.present && to-from > 2*half {
			middle := (from + to) / 2
			p.text(middle, (y.p0+y.p1)/2, "middle", "muted", "no quota")
			taken = append(taken, reach{middle - half, middle + half})
		}
	}
	return taken
}

// plateau writes the highest effective limit above its line, unless that would run
// into what is taken.
func (p *picture) plateau(samples []sample, y scale, u unit, taken []reach) {
	best := -1
	for i, s := range samples {
		inside := s.present && s.effective > s.static && s.effective <= y.v1*0.83 // below what clipped writes
		if inside && (best < 0 || s.effective > samples[best].effective) {
			best = i
		}
	}
	if best < 0 {
		return
	}
	last := best
	for last+1 < len(samples) && samples[last+1].effective == samples[best].effective {
		last++
	}
	from, to := p.x.at(samples[best].at.Seconds()), p.until(samples, last)
	label := "effective " + amountText(u, samples[best].effective)
	half := textWidth(label, 12) / 2
	x := min(max((from+to)/2, plotLeft+half), plotRight-half)
	if !slices.ContainsFunc(taken, func(r reach) bool { return x-half < r.to && r.from < x+half }) {
		p.text(x, y.at(samples[best].effective)-8, "middle", "halo", label)
	}
}
