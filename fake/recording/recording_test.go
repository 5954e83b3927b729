package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

func TestReadRecordings(t *testing.T) {
	for name, want := range map[string]struct {
		events int
		end    time.Duration
	}{
		"abort":      {68, 5192 * time.Millisecond},
		"autolimits": {60, 3361 * time.Millisecond},
		"basic":      {49, 7482 * time.Millisecond},
		"fail":       {44, 2578 * time.Millisecond},
		"vmidelete":  {90, 5742 * time.Millisecond},
	} {
		f, err := os.Open(filepath.Join("../../migration/testdata/recordings", name+".jsonl"))
		require.NoError(t, err)
		events, err := Read(f)
		require.NoError(t, f.Close())
		require.NoError(t, err)
		require.Len(t, events, want.events)
		require.Equal(t, want.end, events[len(events)-1].At, name)
	}
}

const quotaLine = `{"t":1.001,"type":"ADDED","object":{"apiVersion":"v1","kind":"ResourceQuota",` +
	`"metadata":{"name":"q","namespace":"a"},"spec":{"hard":{"limits.cpu":2,"limits.memory":"8Gi"}}}}`

func TestReadEvent(t *testing.T) {
	events, err := Read(strings.NewReader("\n" + quotaLine + "\n\n"))
	require.NoError(t, err)
	require.Len(t, events, 1)
	require.Equal(t, 1001*time.Millisecond, events[0].At, "not a nanosecond less")
	require.Equal(t, watch.Added, events[0].Type)
	hard := events[0].Object.(*corev1.ResourceQuota).Spec.Hard
	require.Equal(t, "2", hard.Name("limits.cpu", "").String())
	require.Equal(t, "8Gi", hard.Name("limits.memory", "").String())
}

func TestReadNothing(t *testing.T) {
	events, err := Read(strings.NewReader(" \n\n"))
	require.NoError(t, err)
	require.Empty(t, events)
}

func TestReadErrors(t *testing.T) {
	for name, test := range map[string]struct{ line, want string }{
		"no JSON":        {`{`, "line 2: unexpected end of JSON input"},
		"no time":        {`{"type":"ADDED","object":{}}`, "line 2: not an event of a recording: it has no time t"},
		"negative time":  {`{"t":-0.5,"type":"ADDED","object":{}}`, "line 2: time t: -0.5 is not a number of seconds since the first event"},
		"endless time":   {`{"t":1e12,"type":"ADDED","object":{}}`, "line 2: time t: 1e+12 is not a number of seconds since the first event"},
		"no object":      {`{"t":1,"type":"ADDED"}`, "line 2: not an event of a recording: it has no object"},
		"unknown type":   {strings.Replace(quotaLine, "ADDED", "ERROR", 1), `line 2: unknown event type "ERROR"`},
		"unknown kind":   {strings.Replace(quotaLine, "ResourceQuota", "Node", 1), `line 2: unknown kind "Node" of apiVersion "v1"`},
		"unknown group":  {strings.Replace(quotaLine, `"v1"`, `"example.com/v1"`, 1), `line 2: unknown kind "ResourceQuota" of apiVersion "example.com/v1"`},
		"malformed":      {strings.Replace(quotaLine, "8Gi", "8Gx", 1), `line 2: ResourceQuota a/q: spec.hard[limits.memory]: "8Gx" is not a quantity, as 500m and 2Gi are`},
		"negative":       {strings.Replace(quotaLine, ":2,", ":-2,", 1), `line 2: ResourceQuota a/q: spec.hard[limits.cpu]: "-2" is negative`},
		"endless":        {strings.Replace(quotaLine, "8Gi", "1e99999999", 1), `line 2: ResourceQuota a/q: spec.hard[limits.memory]: "1e99999999" is out of range`},
		"boolean":        {strings.Replace(quotaLine, ":2,", ":true,", 1), `line 2: ResourceQuota a/q: spec.hard[limits.cpu]: a boolean where a quantity belongs`},
		"list":           {strings.Replace(quotaLine, `{"hard"`, `[],"x":{"hard"`, 1), `line 2: ResourceQuota a/q: spec: a list where an object belongs`},
		"object":         {strings.Replace(quotaLine, `"spec":{`, `"spec":{"scopes":{},`, 1), `line 2: ResourceQuota a/q: spec.scopes: an object where a list belongs`},
		"number":         {strings.Replace(quotaLine, `"spec":{`, `"spec":{"scopes":[7],`, 1), `line 2: ResourceQuota a/q: spec.scopes: number where a string belongs`},
		"inlined struct": {strings.Replace(quotaLine, `"namespace":"a"`, `"namespace":"a","annotations":3`, 1), `line 2: ResourceQuota a/q: metadata.annotations: a number where an object belongs`},
	} {
		t.Run(name, func(t *testing.T) {
			events, err := Read(strings.NewReader(quotaLine + "\n" + test.line + "\n" + quotaLine))
			require.EqualError(t, err, test.want)
			require.Nil(t, events)
			var bad *LineError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, 2, bad.Line)
		})
	}
}

func TestErrorsAreTyped(t *testing.T) {
	_, err := Decode([]byte(`{"apiVersion":"v1","kind":"Node"}`))
	var unknown *UnknownKindError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, UnknownKindError{APIVersion: "v1", Kind: "Node"}, *unknown)

	_, err = Decode([]byte(`{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachineInstance","metadata":{"name":"vm"},` +
		`"spec":{"domain":{"devices":{},"memory":{"guest":"much"}}}}`))
	var field *FieldError
	require.ErrorAs(t, err, &field)
	require.Equal(t, "VirtualMachineInstance vm", field.Object)
	require.Equal(t, "spec.domain.memory.guest", field.Field)

	_, err = Decode([]byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},` +
		`"spec":{"containers":[],"volumes":[{"name":"v","emptyDir":{"sizeLimit":"x"}}]}}`))
	require.ErrorAs(t, err, &field)
	require.Equal(t, "spec.volumes[0].emptyDir.sizeLimit", field.Field, "the kinds of volume are inlined")
}

func TestLineTooLong(t *testing.T) {
	_, err := Read(strings.NewReader(quotaLine + "\n" + strings.Repeat(" ", maxLine+1)))
	require.EqualError(t, err, "line 2: bufio.Scanner: token too long")
}

// FuzzDecode compares with encoding/json alone: what Decode reads is the same, and
// what it refuses is malformed, negative or out of range.
func FuzzDecode(f *testing.F) {
	recordings, err := filepath.Glob("../../migration/testdata/recordings/*.jsonl")
	require.NoError(f, err)
	for _, name := range recordings {
		data, err := os.ReadFile(name)
		require.NoError(f, err)
		var raw struct{ Object json.RawMessage }
		for line := range bytes.Lines(data) {
			require.NoError(f, json.Unmarshal(line, &raw))
			f.Add([]byte(raw.Object))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		object, err := Decode(data)
		var field *FieldError
		if errors.As(err, &field) {
			require.NotEmpty(t, field.Field)
		}
		if err != nil {
			require.Nil(t, object)
			return
		}
		var meta metav1.TypeMeta
		require.NoError(t, json.Unmarshal(data, &meta))
		plain := newObject(meta.GroupVersionKind())
		require.NoError(t, json.Unmarshal(data, plain))
		if diff := cmp.Diff(plain, object); diff != "" {
			t.Fatal(diff)
		}
	})
}

func pod(namespace, name string, uid types.UID) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid}}
}

func TestCache(t *testing.T) {
	var c Cache
	require.Empty(t, c.Namespaces())
	require.Empty(t, c.Quotas("a"))
	c.Apply(Event{Type: watch.Deleted, Object: pod("a", "never there", "0")})
	require.Empty(t, c.Namespaces())

	vmi := &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "same"}}
	vmim := &kubevirtv1.VirtualMachineInstanceMigration{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "same"}}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "same"}}
	limits := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "same"}}
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "same"}}
	for _, o := range []metav1.Object{pod("a", "same", "1"), vmi, vmim, claim, limits, rq, pod("a", "other", "2"), pod("b", "same", "3")} {
		c.Apply(Event{Type: watch.Added, Object: o})
	}
	require.Equal(t, []string{"a", "b"}, c.Namespaces())
	s := c.Snapshot("a")
	require.Equal(t, []*corev1.Pod{pod("a", "other", "2"), pod("a", "same", "1")}, s.Pods, "sorted, of a only")
	require.Equal(t, []*kubevirtv1.VirtualMachineInstance{vmi}, s.VMIs)
	require.Equal(t, []*kubevirtv1.VirtualMachineInstanceMigration{vmim}, s.Migrations)
	require.Equal(t, []*corev1.PersistentVolumeClaim{claim}, s.PVCs)
	require.Equal(t, []*corev1.LimitRange{limits}, s.LimitRanges)
	require.Equal(t, []*corev1.ResourceQuota{rq}, c.Quotas("a"))

	c.Apply(Event{Type: watch.Modified, Object: pod("b", "same", "4")})
	require.Equal(t, []*corev1.Pod{pod("b", "same", "4")}, c.Snapshot("b").Pods, "recreated, and its deletion missed")
	c.Apply(Event{Type: watch.Deleted, Object: pod("b", "same", "4")})
	require.Equal(t, []string{"a"}, c.Namespaces())
	require.Empty(t, c.Snapshot("b").Pods)
}
