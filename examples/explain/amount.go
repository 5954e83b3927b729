package main

import (
	"math"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/quota/amounts"
)

// inBytes reports whether name, as quotas call it, is counted in bytes.
func inBytes(name corev1.ResourceName) bool {
	s := strings.TrimPrefix(strings.TrimPrefix(string(name), "limits."), "requests.")
	if i := strings.LastIndex(s, "/"); i >= 0 {
		s = strings.TrimPrefix(s[i+1:], "requests.") // <class>.storageclass.storage.k8s.io/requests.storage
	}
	return s == "memory" || s == "storage" || s == "ephemeral-storage" || strings.HasPrefix(s, "hugepages-")
}

// exact writes q as a decimal number.
func exact(q resource.Quantity) string {
	q = q.DeepCopy() // AsDec changes its receiver
	return trimZeros(q.AsDec().String())
}

func trimZeros(s string) string {
	if !strings.Contains(s, ".") {
		return s
	}
	return strings.TrimRight(strings.TrimRight(s, "0"), ".")
}

// binaryUnits are 1024 times each other.
var binaryUnits = []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}

// short writes q as people read it: bytes with two decimals, all else exactly. It reports
// whether q is rounded.
func short(name corev1.ResourceName, q resource.Quantity) (text string, rounded bool) {
	value, scale := q.AsApproximateFloat64(), 0
	if !inBytes(name) || value == 0 {
		return exact(q), false
	}
	for math.Abs(value) >= 1024 && scale < len(binaryUnits)-1 {
		value /= 1024
		scale++
	}
	if scale == 0 {
		return exact(q) + " bytes", false
	}
	digits := trimZeros(strconv.FormatFloat(value, 'f', 2, 64))
	return digits + " " + binaryUnits[scale], digits != strconv.FormatFloat(value, 'f', -1, 64)
}

// texts writes list as people read it; where that is rounded, also exactly.
func texts(list corev1.ResourceList) string {
	var parts []string
	for _, name := range amounts.Names(list) {
		text, rounded := short(name, list[name])
		if rounded {
			text += " (" + exact(list[name]) + " bytes)"
		}
		parts = append(parts, string(name)+" "+text)
	}
	return strings.Join(parts, ", ")
}

// change writes "from a to b", exactly where rounding would hide the difference.
func change(name corev1.ResourceName, a, b resource.Quantity) string {
	from, _ := short(name, a)
	to, _ := short(name, b)
	if from == to {
		from, to = exact(a), exact(b)+" bytes"
	}
	return "from " + from + " to " + to
}

// enumerate joins parts with commas and a last "and".
func enumerate[S ~string](parts []S) string {
	var text string
	for i, part := range parts {
		switch {
		case i > 0 && i == len(parts)-1:
			text += " and "
		case i > 0:
			text += ", "
		}
		text += string(part)
	}
	return text
}
