package main

import (
	"cmp"
	"slices"
	"strings"
)

// An endLabel names values that are equal at the end of a chart.
type endLabel struct {
	value float64
	names []string
	lines []string // the names, broken to the margin
	y     float64  // of its first line
}

// Heights of the lines of an end label.
const (
	valueLine = 15
	nameLine  = 14
)

func (l *endLabel) height() float64 { return valueLine + nameLine*float64(len(l.lines)) + 4 }

// endLabels writes the values at the end right of the chart.
func (p *picture) endLabels(s sample, y scale, u unit) {
	if !s.present {
		return
	}
	labels := groupEqual(s)
	for _, l := range labels {
		l.y = y.at(min(l.value, y.v1)) + 4
		l.lines = wrap(l.names, marginRight-20, 12)
	}
	spread(labels, y.p0+8)
	for _, l := range labels {
		p.text(plotRight+10, l.y, "start", "strong", amountText(u, l.value))
		for i, line := range l.lines {
			p.text(plotRight+10, l.y+valueLine+nameLine*float64(i), "start", "muted", line)
		}
	}
}

// groupEqual returns the labels of s, the highest first.
func groupEqual(s sample) []*endLabel {
	var labels []*endLabel
	for _, v := range []struct {
		name  string
		value float64
	}{{"effective", s.effective}, {"static", s.static}, {"enforced", s.enforced}, {"used", s.used}} {
		i := slices.IndexFunc(labels, func(l *endLabel) bool { return l.value == v.value })
		if i < 0 {
			i = len(labels)
			labels = append(labels, &endLabel{value: v.value})
		}
		labels[i].names = append(labels[i].names, v.name)
	}
	slices.SortFunc(labels, func(a, b *endLabel) int { return cmp.Compare(b.value, a.value) })
	return labels
}

// spread moves labels apart that would overlap, above bottom.
func spread(labels []*endLabel, bottom float64) {
	for i, l := range labels[1:] {
		above := labels[i]
		l.y = max(l.y, above.y+above.height())
	}
	for _, l := range slices.Backward(labels) {
		l.y = min(l.y, bottom-l.height()+valueLine)
		bottom = l.y - valueLine
	}
}

// wrap joins words with commas into lines that are at most so wide.
func wrap(words []string, width, size float64) []string {
	var lines []string
	line := ""
	for i, word := range words {
		if i < len(words)-1 {
			word += ","
		}
		if line != "" && textWidth(line+" "+word, size) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}
