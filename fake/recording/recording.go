// Package recording reads recorded watch streams of a real API server and plays them back, so that tests and
// tools see what informers would have held at any moment.
//
// A recording has one JSON object a line, in order of arrival:
//
//	{"t": seconds since the first, "type": "ADDED|MODIFIED|DELETED", "object": {...}}
//
// The objects are ResourceQuotas, LimitRanges, Pods, PersistentVolumeClaims, Events, Namespaces,
// ResourceClaims, DeviceClasses, VirtualMachineInstances and VirtualMachineInstanceMigrations.
package recording

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// An Event is one line of a recording.
type Event struct {
	At     time.Duration // since the first event
	Type   watch.EventType
	Object metav1.Object // one of the kinds that the package comment lists
}

// A LineError is a line that could not be read. Read returns nothing beside it.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

func (e *LineError) Unwrap() error { return e.Err }

// maxLine bounds one line; an object of the API server has at most 1.5 MiB in etcd.
const maxLine = 8 << 20

// Read reads all events of r, in their order. Blank lines are skipped; an empty recording has no events and is
// no error. Any line that is not an event, and any kind or field that cannot be read, is a *LineError.
func Read(r io.Reader) ([]Event, error) {
	var events []Event
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	n := 0
	for lines.Scan() {
		n++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		event, err := decode(lines.Bytes())
		if err != nil {
			return nil, &LineError{Line: n, Err: err}
		}
		events = append(events, event)
	}
	if err := lines.Err(); err != nil {
		return nil, &LineError{Line: n + 1, Err: err}
	}
	return events, nil
}

func decode(line []byte) (Event, error) {
	var raw struct {
		T      *float64
		Type   watch.EventType
		Object json.RawMessage
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return Event{}, err
	}
	switch {
	case raw.T == nil:
		return Event{}, errors.New("not an event of a recording: it has no time t")
	case *raw.T < 0 || *raw.T > maxSeconds:
		return Event{}, fmt.Errorf("time t: %v is not a number of seconds since the first event", *raw.T)
	case len(raw.Object) == 0:
		return Event{}, errors.New("not an event of a recording: it has no object")
	}
	switch raw.Type {
	case watch.Added, watch.Modified, watch.Deleted:
	default:
		return Event{}, fmt.Errorf("unknown event type %q", raw.Type)
	}
	object, err := decodeObject(raw.Object)
	if err != nil {
		return Event{}, err
	}
	return Event{At: seconds(*raw.T), Type: raw.Type, Object: object}, nil
}

// maxSeconds is what a time.Duration can hold.
const maxSeconds = float64(math.MaxInt64 / int64(time.Second))

// seconds rounds to microseconds, so that 3.37 is 3.37 s and not 1 ns less.
func seconds(t float64) time.Duration {
	return time.Duration(math.Round(t*1e6)) * time.Microsecond
}

// kinds has an empty object of each kind.
var kinds = map[schema.GroupKind]any{
	{Kind: "ResourceQuota"}:         corev1.ResourceQuota{},
	{Kind: "LimitRange"}:            corev1.LimitRange{},
	{Kind: "Pod"}:                   corev1.Pod{},
	{Kind: "PersistentVolumeClaim"}: corev1.PersistentVolumeClaim{},
	{Kind: "Event"}:                 corev1.Event{},
	{Kind: "Namespace"}:             corev1.Namespace{},
	{Group: resourcev1.GroupName, Kind: "ResourceClaim"}:                            resourcev1.ResourceClaim{},
	{Group: resourcev1.GroupName, Kind: "DeviceClass"}:                              resourcev1.DeviceClass{},
	{Group: kubevirtv1.GroupVersion.Group, Kind: "VirtualMachineInstance"}:          kubevirtv1.VirtualMachineInstance{},
	{Group: kubevirtv1.GroupVersion.Group, Kind: "VirtualMachineInstanceMigration"}: kubevirtv1.VirtualMachineInstanceMigration{},
}

// decodeObject reads an object of one of the kinds, whatever its version.
func decodeObject(data []byte) (metav1.Object, error) {
	var meta metav1.TypeMeta
	if err := json.Unmarshal(data, &meta); err != nil {
		return nil, err
	}
	kind, ok := kinds[meta.GroupVersionKind().GroupKind()]
	if !ok {
		return nil, fmt.Errorf("unknown kind %q of apiVersion %q", meta.Kind, meta.APIVersion)
	}
	object, _ := reflect.New(reflect.TypeOf(kind)).Interface().(metav1.Object)
	if err := json.Unmarshal(data, object); err != nil {
		return nil, fmt.Errorf("%s: %w", meta.Kind, err)
	}
	return object, nil
}
