package main

import (
	"reflect"
	"regexp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// hugeExponent matches what would take resource.Quantity minutes to read or to calculate with.
var hugeExponent = regexp.MustCompile(`^[+-]?[0-9.]+[eE][+-]?[0-9]{3,}$`)

// checkFields returns an error that names the first field of tree that cannot be read into object; nil if there
// is none. If not all, it looks only for quantities with a huge exponent.
func checkFields(object metav1.Object, tree map[string]any, all bool) error {
	c := fieldCheck{reflect.TypeOf(object).Elem(), all}
	return c.find(tree, "", func(value any) any { return value })
}
