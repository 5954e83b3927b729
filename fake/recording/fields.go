package recording

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// A FieldError is a field of an object that cannot be read. No API server serves
// such an object.
type FieldError struct {
	Object string // kind, namespace and name
	Field  string // spec.hard[limits.memory]
	Err    error
}

func (e *FieldError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Object, e.Field, e.Err) }

func (e *FieldError) Unwrap() error { return e.Err }

// fault is what is wrong with a field, before the object is known.
type fault struct {
	field string
	err   error
}

func (f *fault) Error() string { return f.field + ": " + f.err.Error() }

// hugeExponent matches what would take resource.Quantity minutes to calculate with.
var hugeExponent = regexp.MustCompile(`[eE][+-]?[0-9]{3,}$`)

var quantityType = reflect.TypeFor[resource.Quantity]()

// findFault walks value, which came from JSON, beside the Go type that it will be
// read into, and returns the first thing that will not fit, or nil. It is there
// because Quantity's own error says neither which field is malformed nor what
// stands there.
func findFault(t reflect.Type, value any, path string) *fault {
	if value == nil {
		return nil
	}
	switch {
	case t.Kind() == reflect.Pointer:
		return findFault(t.Elem(), value, path)
	case t == quantityType:
		return quantityFault(value, path)
	case opaque(t):
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		fields, ok := value.(map[string]any)
		if !ok {
			return mismatch(path, "an object", value)
		}
		return structFault(t, fields, path)
	case reflect.Map:
		entries, ok := value.(map[string]any)
		if !ok {
			return mismatch(path, "an object", value)
		}
		for _, k := range slices.Sorted(maps.Keys(entries)) {
			if f := findFault(t.Elem(), entries[k], path+"["+k+"]"); f != nil {
				return f
			}
		}
	case reflect.Slice:
		return sliceFault(t, value, path)
	}
	return nil
}

func structFault(t reflect.Type, fields map[string]any, path string) *fault {
	for i := range t.NumField() {
		field := t.Field(i)
		name := jsonName(field)
		var f *fault
		switch {
		case name == "-":
		case name != "":
			f = findFault(field.Type, fields[name], join(path, name))
		case field.Anonymous:
			f = findFault(field.Type, fields, path)
		}
		if f != nil {
			return f
		}
	}
	return nil
}

func sliceFault(t reflect.Type, value any, path string) *fault {
	if t.Elem().Kind() == reflect.Uint8 {
		return nil // base64 in a string
	}
	items, ok := value.([]any)
	if !ok {
		return mismatch(path, "a list", value)
	}
	for i, item := range items {
		if f := findFault(t.Elem(), item, path+"["+strconv.Itoa(i)+"]"); f != nil {
			return f
		}
	}
	return nil
}

func quantityFault(value any, path string) *fault {
	var text string
	switch v := value.(type) {
	case string:
		text = v
	case json.Number:
		text = v.String()
	default:
		return mismatch(path, "a quantity", value)
	}
	if hugeExponent.MatchString(text) {
		return &fault{field: path, err: fmt.Errorf("%q is out of range", text)}
	}
	q, err := resource.ParseQuantity(text)
	switch {
	case err != nil:
		return &fault{field: path, err: fmt.Errorf("%q is not a quantity, as 500m and 2Gi are", text)}
	case q.Sign() < 0:
		return &fault{field: path, err: fmt.Errorf("%q is negative", text)}
	}
	return nil
}

func mismatch(path, want string, value any) *fault {
	return &fault{field: path, err: fmt.Errorf("%s where %s belongs", shape(value), want)}
}

func shape(value any) string {
	switch value.(type) {
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	default:
		return "a number"
	}
}

// opaque reports whether t has a form of its own in JSON, as metav1.Time has, and not
// only its own way to read its fields, as some of KubeVirt's types have.
func opaque(t reflect.Type) bool {
	if !reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return false
	}
	return t.Kind() != reflect.Struct || !slices.ContainsFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool {
		name := jsonName(f)
		return name != "" && name != "-"
	})
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// scalarFault turns the error of encoding/json about a number, string or boolean
// into a fault; nil for any other error.
func scalarFault(err error) *fault {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return nil
	}
	return &fault{field: wrong.Field, err: fmt.Errorf("%s where %s belongs", wrong.Value, kindName(wrong.Type.Kind()))}
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
