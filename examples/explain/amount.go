package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// A unit is what a resource is counted in.
type unit int

const (
	objects unit = iota // pods, devices, claims
	cores
	bytesUnit
)

// unitOf goes by the name that a ResourceQuota has for the resource.
func unitOf(name corev1.ResourceName) unit {
	s := string(name)
	s = strings.TrimPrefix(strings.TrimPrefix(s, "limits."), "requests.")
	if i := strings.LastIndex(s, "/"); i >= 0 {
		s = strings.TrimPrefix(s[i+1:], "requests.") // <class>.storageclass.storage.k8s.io/requests.storage
	}
	switch {
	case s == "cpu":
		return cores
	case s == "memory", s == "storage", s == "ephemeral-storage", strings.HasPrefix(s, "hugepages-"):
		return bytesUnit
	default:
		return objects
	}
}

// plain writes q as a decimal number, without any rounding.
func plain(q resource.Quantity) string {
	q = q.DeepCopy() // AsDec changes its receiver
	s := q.AsDec().String()
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// binaryUnits are 1024 times each other.
var binaryUnits = []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}

// short writes q as people read it, with at most two decimals for bytes, and tells
// whether it is rounded.
func (u unit) short(q resource.Quantity) (text string, rounded bool) {
	if u != bytesUnit {
		return plain(q), false
	}
	value := q.AsApproximateFloat64()
	exact := plain(q)
	scale := 0
	for math.Abs(value) >= 1024 && scale < len(binaryUnits)-1 {
		value /= 1024
		scale++
	}
	if scale == 0 {
		if exact == "1" {
			return "1 byte", false
		}
		return exact + " bytes", false
	}
	digits := trimZeros(strconv.FormatFloat(value, 'f', 2, 64))
	return digits + " " + binaryUnits[scale], digits != strconv.FormatFloat(value, 'f', -1, 64)
}

func trimZeros(s string) string {
	if !strings.Contains(s, ".") {
		return s
	}
	return strings.TrimRight(strings.TrimRight(s, "0"), ".")
}

// cell is short without the word bytes at zero, for tables.
func (u unit) cell(q resource.Quantity) string {
	if q.IsZero() {
		return "0"
	}
	text, _ := u.short(q)
	return text
}

// withUnit is short with its unit, for sentences.
func (u unit) withUnit(q resource.Quantity) string {
	text, _ := u.short(q)
	if u == cores {
		if text == "1" {
			return "1 core"
		}
		return text + " cores"
	}
	return text
}

// change writes "from a to b", exactly where rounding would hide the difference.
func (u unit) change(a, b resource.Quantity) string {
	from, to := u.withUnit(a), u.withUnit(b)
	if from == to {
		return fmt.Sprintf("from %s to %s bytes", plain(a), plain(b))
	}
	if number, name, ok := strings.Cut(from, " "); ok && strings.HasSuffix(to, " "+name) {
		from = number
	}
	return "from " + from + " to " + to
}

// enumerate joins parts with commas and a last "and".
func enumerate(parts []string) string {
	if len(parts) < 2 {
		return strings.Join(parts, "")
	}
	last := len(parts) - 1
	return strings.Join(parts[:last], ", ") + " and " + parts[last]
}

// sortedNames are those of list, in the order in which they are shown.
func sortedNames(list corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
