package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A fieldError is a field of an object that cannot be read. No API server serves such an object.
type fieldError struct {
	field string // spec.hard[limits.memory]; of what is no quantity, without keys and indexes
	err   error
}

func (e *fieldError) Error() string { return e.field + ": " + e.err.Error() }

func (e *fieldError) Unwrap() error { return e.err }

// checkFields returns what is wrong with a field of tree, which came from JSON and is to be read
// into object; nil if nothing is. Negative quantities are wrong.
func checkFields(object metav1.Object, tree map[string]any) error {
	if f := findFault(reflect.TypeOf(object), tree, ""); f != nil {
		return f
	}
	data, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	err = json.Unmarshal(data, reflect.New(reflect.TypeOf(object).Elem()).Interface())
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		value := map[string]string{"array": "a list", "object": "an object"}[wrong.Value]
		return &fieldError{wrong.Field, fmt.Errorf("%s where %s belongs", cmp.Or(value, wrong.Value), kindName(wrong.Type.Kind()))}
	}
	return err
}

// hugeExponent matches what would take resource.Quantity minutes to calculate with.
var hugeExponent = regexp.MustCompile(`[eE][+-]?[0-9]{3,}$`)

var quantityType = reflect.TypeFor[resource.Quantity]()

// findFault walks value, which came from JSON, beside the Go type that it will be read into, and
// returns the first malformed quantity; nil if there is none. It is there because Quantity's own
// error says neither which field is malformed nor what it holds.
func findFault(t reflect.Type, value any, path string) *fieldError {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == quantityType {
		if err := checkQuantity(value); err != nil {
			return &fieldError{strings.TrimPrefix(path, "."), err}
		}
		return nil
	}
	switch value := value.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			of, at := typeOfField(t, name), path+"."+name
			if t.Kind() == reflect.Map {
				of, at = t.Elem(), path+"["+name+"]"
			}
			if of == nil {
				continue
			}
			if f := findFault(of, value[name], at); f != nil {
				return f
			}
		}
	case []any:
		for i, item := range value {
			if t.Kind() != reflect.Slice {
				break
			}
			if f := findFault(t.Elem(), item, fmt.Sprintf("%s[%d]", path, i)); f != nil {
				return f
			}
		}
	}
	return nil
}

// typeOfField returns the type of the field that a struct has under a name in JSON; nil if t is no
// struct or has no such field.
func typeOfField(t reflect.Type, name string) reflect.Type {
	if t.Kind() != reflect.Struct {
		return nil
	}
	for _, field := range reflect.VisibleFields(t) {
		if tag, _, _ := strings.Cut(field.Tag.Get("json"), ","); tag == name {
			return field.Type
		}
	}
	return nil
}

func checkQuantity(value any) error {
	text := fmt.Sprint(value)
	if value == nil {
		return nil
	}
	if hugeExponent.MatchString(text) {
		return fmt.Errorf("%q is out of range", text)
	}
	q, err := resource.ParseQuantity(text)
	switch {
	case err != nil:
		return fmt.Errorf("%.64q is not a quantity, as 500m and 2Gi are", text)
	case q.Sign() < 0:
		return fmt.Errorf("%q is negative", text)
	}
	return nil
}

func kindName(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "a boolean"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Float32, reflect.Float64:
		return "a number"
	default:
		return "a whole number"
	}
}
