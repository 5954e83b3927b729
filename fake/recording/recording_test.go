package recording

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

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
		data, err := os.ReadFile("../../migration/testdata/recordings/" + name + ".jsonl")
		require.NoError(t, err)
		events, err := Read(bytes.NewReader(data))
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
	events, err = Read(strings.NewReader(" \n\n"))
	require.NoError(t, err)
	require.Empty(t, events)
}

func TestReadErrors(t *testing.T) {
	for name, test := range map[string]struct{ line, want string }{
		"no JSON":       {`{`, "line 2: unexpected end of JSON input"},
		"no time":       {`{"type":"ADDED","object":{}}`, "line 2: not an event of a recording: it has no time t"},
		"negative time": {`{"t":-0.5,"type":"ADDED","object":{}}`, "line 2: time t: -0.5 is not a number of seconds since the first event"},
		"endless time":  {`{"t":1e12,"type":"ADDED","object":{}}`, "line 2: time t: 1e+12 is not a number of seconds since the first event"},
		"no object":     {`{"t":1,"type":"ADDED"}`, "line 2: not an event of a recording: it has no object"},
		"unknown type":  {strings.Replace(quotaLine, "ADDED", "ERROR", 1), `line 2: unknown event type "ERROR"`},
		"unknown kind":  {strings.Replace(quotaLine, "ResourceQuota", "Node", 1), `line 2: unknown kind "Node" of apiVersion "v1"`},
		"unknown group": {strings.Replace(quotaLine, `"v1"`, `"example.com/v1"`, 1), `line 2: unknown kind "ResourceQuota" of apiVersion "example.com/v1"`},
		"malformed":     {strings.Replace(quotaLine, "8Gi", "8Gx", 1), `line 2: ResourceQuota: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'`},
		"list":          {strings.Replace(quotaLine, `{"hard"`, `[],"x":{"hard"`, 1), `line 2: ResourceQuota: json: cannot unmarshal array into Go struct field ResourceQuota.spec of type v1.ResourceQuotaSpec`},
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

func TestLineTooLong(t *testing.T) {
	_, err := Read(strings.NewReader(quotaLine + "\n" + strings.Repeat(" ", maxLine+1)))
	require.EqualError(t, err, "line 2: bufio.Scanner: token too long")
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
