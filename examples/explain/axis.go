package main

import (
	"math"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// A scale maps values to pixels.
type scale struct{ v0, v1, p0, p1 float64 }

func (s scale) at(v float64) float64 { return s.p0 + (v-s.v0)/(s.v1-s.v0)*(s.p1-s.p0) }

// A tick is a value with its label.
type tick struct {
	value float64
	label string
}

// timeSteps are distances between ticks that people count in, in seconds.
var timeSteps = []float64{
	0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30,
	60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400,
}

// timeTicks are about ten round moments from 0 to end, in seconds.
func timeTicks(end float64) []tick {
	step := math.Ceil(end/10/86400) * 86400
	for _, s := range timeSteps {
		if end/s <= 10 {
			step = s
			break
		}
	}
	unitName, size := "s", 1.0
	switch {
	case step >= 3600:
		unitName, size = "h", 3600
	case step >= 60:
		unitName, size = "min", 60
	}
	var ticks []tick
	for i := 0; float64(i)*step <= end; i++ {
		v := float64(i) * step
		ticks = append(ticks, tick{v, tidy(v/size) + " " + unitName})
	}
	return ticks
}

// valueTicks are at most six round amounts from 0 to top.
func valueTicks(u unit, top float64) []tick {
	size, name := 1.0, ""
	switch u {
	case bytesUnit:
		i := 0
		for top/size >= 1024 && i < len(binaryUnits)-1 {
			size *= 1024
			i++
		}
		name = " " + binaryUnits[i]
	case cores:
		name = " cores"
	case objects:
	}
	step := roundStep(top / size / 5.6)
	if u == objects || size == 1 && u == bytesUnit {
		step = max(step, 1) // nothing is in between
	}
	var ticks []tick
	for i := 0; float64(i)*step*size <= top; i++ {
		label := tidy(float64(i) * step)
		if i > 0 {
			label += name
		}
		if label == "1 cores" {
			label = "1 core"
		}
		ticks = append(ticks, tick{float64(i) * step * size, label})
	}
	return ticks
}

// roundStep is the smallest of 1, 2 and 5 times a power of ten that is not below
// least.
func roundStep(least float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, factor := range []float64{1, 2, 5} {
		if factor*power >= least*0.999 {
			return factor * power
		}
	}
	return 10 * power
}

// tidy writes v without the noise of binary fractions.
func tidy(v float64) string {
	return strconv.FormatFloat(math.Round(v*1e9)/1e9, 'f', -1, 64)
}

// amountText writes a value of a chart as it stands in sentences.
func amountText(u unit, v float64) string {
	if u != bytesUnit {
		v = math.Round(v * 1000)
		return u.withUnit(*resource.NewMilliQuantity(int64(v), resource.DecimalSI))
	}
	return u.withUnit(*resource.NewQuantity(int64(min(v, math.MaxInt64/2)), resource.BinarySI))
}

// moment writes a time as a label.
func moment(d time.Duration) string {
	switch {
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 2, 64) + " s"
	default:
		return d.Round(time.Second).String()
	}
}
