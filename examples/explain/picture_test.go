package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

// A box is where a text of a picture stands.
type box struct {
	text                string
	x0, x1, top, bottom float64
}

// texts parses an SVG file and returns its texts. A file that is no XML is an error.
func texts(svg []byte) ([]box, error) {
	decoder := xml.NewDecoder(bytes.NewReader(svg))
	var boxes []box
	var current *box
	var anchor, class string
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return boxes, nil
		}
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			if token.Name.Local != "text" {
				continue
			}
			boxes = append(boxes, box{})
			current = &boxes[len(boxes)-1]
			for _, a := range token.Attr {
				switch a.Name.Local {
				case "x":
					current.x0, _ = strconv.ParseFloat(a.Value, 64)
				case "y":
					current.bottom, _ = strconv.ParseFloat(a.Value, 64)
				case "text-anchor":
					anchor = a.Value
				case "class":
					class = a.Value
				}
			}
		case xml.CharData:
			if current == nil {
				continue
			}
			size := map[string]float64{"title": 20, "subtitle": 13.5, "head": 14}[class]
			if size == 0 {
				size = 12
			}
			current.text = string(token)
			width := textWidth(current.text, size)
			switch anchor {
			case "end":
				current.x0 -= width
			case "middle":
				current.x0 -= width / 2
			}
			current.x1, current.top = current.x0+width, current.bottom-0.72*size
		case xml.EndElement:
			current = nil
		}
	}
}

// readable tells what is wrong with the texts of a picture.
func readable(svg []byte) error {
	boxes, err := texts(svg)
	if err != nil {
		return err
	}
	for i, a := range boxes {
		if a.x0 < 0 || a.x1 > pictureWidth {
			return fmt.Errorf("%q leaves the picture: %v to %v", a.text, a.x0, a.x1)
		}
		for _, b := range boxes[:i] {
			if a.x0 < b.x1 && b.x0 < a.x1 && a.top < b.bottom && b.top < a.bottom {
				return fmt.Errorf("%q and %q overlap: %+v %+v", a.text, b.text, a, b)
			}
		}
	}
	return nil
}

func TestPicturesAreReadable(t *testing.T) {
	for _, name := range []string{"basic", "abort", "fail", "vmidelete", "autolimits"} {
		got := explainWith(t, "", "-f", recordings+name+".jsonl", "-o", "svg")
		require.Equal(t, exitOK, got.code, got.stderr)
		require.NoError(t, readable([]byte(got.stdout)), name)
		for _, want := range []string{"limits.memory", "limits.cpu", "effective: what status.hard must be", "GiB", "cores", name + ".jsonl"} {
			require.Contains(t, got.stdout, want)
		}
	}
}

// TestMarksOfBasic are the moments of the refused and rescued migration.
func TestMarksOfBasic(t *testing.T) {
	got := explainWith(t, "", "-f", recordings+"basic.jsonl", "-o", "svg").stdout
	for _, want := range []string{
		"refused by quota, 1.36 s", "target pod let in, 3.39 s", "Succeeded, 4.44 s", "losing pod gone, 7.48 s",
		"1 migration, refused by quota and let in 2.03 s later",
	} {
		require.Contains(t, got, want)
	}
}

// drawTimeline draws any course of events.
func drawTimeline(t *rapid.T) *timeline {
	end := time.Duration(rapid.Int64Range(1, int64(48*time.Hour)).Draw(t, "end"))
	moment := rapid.Custom(func(t *rapid.T) time.Duration { return time.Duration(rapid.Int64Range(0, int64(end)).Draw(t, "at")) })
	p := &part{namespace: "tenant"}
	for i := range rapid.IntRange(1, 3).Draw(t, "charts") {
		c := &chart{quota: "q", resource: []corev1.ResourceName{"limits.memory", "limits.cpu", "pods"}[i]}
		amount := rapid.Custom(func(t *rapid.T) float64 {
			switch c.resource {
			case corev1.ResourceLimitsMemory:
				return float64(rapid.OneOf(rapid.Just(int64(2773714688)), rapid.Int64Range(0, 1e13)).Draw(t, "bytes"))
			case corev1.ResourceLimitsCPU:
				return float64(rapid.Int64Range(0, 1e8).Draw(t, "millicores")) / 1000
			default:
				return float64(rapid.Int64Range(0, 1e5).Draw(t, "count"))
			}
		})
		at := time.Duration(0)
		for range rapid.IntRange(1, 12).Draw(t, "samples") {
			l := levels{present: rapid.IntRange(0, 5).Draw(t, "present") > 0}
			if l.present {
				l.static, l.enforced, l.used = amount.Draw(t, "static"), amount.Draw(t, "enforced"), amount.Draw(t, "used")
				l.temporary, l.effective = min(l.used, amount.Draw(t, "temporary")), l.static+amount.Draw(t, "surge")
			}
			c.add(at, l)
			at = max(at, moment.Draw(t, "next"))
		}
		p.charts = append(p.charts, c)
	}
	for i := range rapid.IntRange(0, 12).Draw(t, "bars") {
		b := &bar{uid: types.UID(strconv.Itoa(i)), name: rapid.StringMatching(`[a-z][a-z0-9-]{0,252}`).Draw(t, "name"), vmi: "vm<&>"}
		at := moment.Draw(t, "from")
		for range rapid.IntRange(1, 4).Draw(t, "spans") {
			b.enter(at, rapid.SampledFrom([]state{queued, blocked, charged, decentralized}).Draw(t, "state"), rapid.Bool().Draw(t, "deferred"))
			at = max(at, moment.Draw(t, "to"))
		}
		if rapid.Bool().Draw(t, "ends") {
			b.leave(at)
			b.marks = append(b.marks, mark{at: at, kind: endedMark, text: "Succeeded"})
		} else {
			b.spans[len(b.spans)-1].to = end
		}
		p.bars = append(p.bars, b)
	}
	return &timeline{name: "any.jsonl", end: end, parts: []*part{p}}
}

func TestAnyPictureIsReadable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		svg := newPicture(drawTimeline(t)).draw()
		if err := readable(svg); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(svg), "NaN") || strings.Contains(string(svg), "Inf") {
			t.Fatal("a coordinate is no number")
		}
	})
}

// TestCrowdedTop has labels at the top of a chart that would touch each other:
// limits that leave it twice, and a plateau close to it.
func TestCrowdedTop(t *testing.T) {
	const s = time.Second
	level := func(limit, effective float64) levels {
		return levels{present: true, static: limit, enforced: limit, effective: effective}
	}
	c := &chart{quota: "q", resource: "pods", samples: []sample{
		{at: 0, levels: level(100, 100)},
		{at: s / 10, levels: level(1, 1)},
		{at: s / 5, levels: level(90, 90)},
		{at: s / 2, levels: level(1, 8.8)},
		{at: s, levels: level(1, 1)},
		{at: 5 * s, levels: level(1, 8)},
	}}
	b := &bar{uid: "u", name: "m", vmi: "vm", spans: []span{{from: 5 * s, to: 6 * s, state: charged}}}
	drawn := newPicture(&timeline{name: "x.jsonl", end: 10 * s, parts: []*part{{charts: []*chart{c}, bars: []*bar{b}}}}).draw()
	require.Contains(t, string(drawn), "↑ 100")
	require.NoError(t, readable(drawn))
}
