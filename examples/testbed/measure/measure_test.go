package measure

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
)

var start = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// history makes audit events of what a status was, from when.
func history(status ...[3]int64) []bed.AuditEvent {
	var events []bed.AuditEvent
	for i, s := range status {
		rq := corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{ResourceVersion: fmt.Sprint(i + 1)},
			Status: corev1.ResourceQuotaStatus{
				Hard: corev1.ResourceList{corev1.ResourceLimitsMemory: *resource.NewQuantity(s[1], resource.BinarySI)},
				Used: corev1.ResourceList{corev1.ResourceLimitsMemory: *resource.NewQuantity(s[2], resource.BinarySI)},
			},
		}
		content, _ := json.Marshal(rq)
		events = append(events, bed.AuditEvent{
			Verb: "update", AuditObject: bed.AuditObject{Resource: "resourcequotas", Subresource: "status"}, AuditAnswer: bed.AuditAnswer{Code: 200},
			Answered: start.Add(time.Duration(s[0]) * time.Second), ResponseObject: content,
		})
	}
	return events
}

func TestExposure(t *testing.T) {
	for _, test := range []struct {
		name            string
		static, regular int64
		status          [][3]int64 // since when, hard, used
		total, most     float64
	}{
		{"from the raise to the target pod, and from the end of the source to the reset", 100, 100, [][3]int64{
			{0, 100, 100}, {2, 150, 100}, {3, 150, 150}, {7, 150, 100}, {9, 100, 100}, {20, 100, 100},
		}, 50*1 + 50*2, 50},
		{"what is free below static is the tenant's own", 100, 100, [][3]int64{{0, 100, 0}, {10, 100, 50}, {20, 100, 100}, {30, 100, 100}}, 0, 0},
		{"a migration that fits is charged on top", 100, 50, [][3]int64{
			{0, 100, 50}, {1, 100, 100}, {2, 150, 100}, {5, 150, 50}, {6, 100, 50}, {20, 100, 50},
		}, 50 * 1, 50},
		{"more room than one migration needs", 100, 100, [][3]int64{{0, 100, 100}, {1, 300, 100}, {2, 300, 150}, {3, 150, 150}, {9, 100, 100}}, 200 + 150, 200},
	} {
		list := func(n int64) corev1.ResourceList {
			return corev1.ResourceList{corev1.ResourceLimitsMemory: *resource.NewQuantity(n, resource.BinarySI)}
		}
		events := history(test.status...)
		// As the log has them when two writes are answered at the same time.
		events[1], events[2] = events[2], events[1]
		versions, err := onbed.QuotaVersions(events)
		require.NoError(t, err, test.name)
		got := exposure(versions, list(test.static), list(test.regular))
		require.InDelta(t, test.total, got.Total, 0.001, test.name)
		require.InDelta(t, test.most, got.Most, 0.001, test.name)
	}
}

func TestDelays(t *testing.T) {
	create := func(at time.Duration, kind, name string, code int32, object string) bed.AuditEvent {
		return bed.AuditEvent{
			Verb: "create", AuditObject: bed.AuditObject{Resource: kind, Name: name}, AuditAnswer: bed.AuditAnswer{Code: code},
			Received: start.Add(at), Answered: start.Add(at + time.Millisecond), RequestObject: json.RawMessage(object),
		}
	}
	pod := func(of string) string {
		return fmt.Sprintf(`{"metadata":{"annotations":{"kubevirt.io/migrationJobName":%q}}}`, of)
	}
	got := delays([]bed.AuditEvent{
		create(0, "virtualmachineinstancemigrations", "m1", 201, "{}"),
		create(time.Second, "virtualmachineinstancemigrations", "m2", 201, "{}"),
		create(2*time.Second, "pods", "", 403, pod("m1")),
		create(3*time.Second, "pods", "", 201, "{}"),
		create(4*time.Second, "pods", "", 201, pod("m1")),
		create(4*time.Second, "pods", "", 201, pod("m2")),
	})
	require.Equal(t, []time.Duration{3*time.Second + time.Millisecond, 4*time.Second + time.Millisecond}, got)
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, Table(&out, []Result{
		{Case: "c", Policy: "one", Migrations: 2, Delays: []time.Duration{time.Second, 3 * time.Second}, Writes: 3, Exposure: Exposure{1 << 31, 2773714688 * 2.5}},
		{Case: "c", Policy: Floor, Migrations: 2, Delays: []time.Duration{500 * time.Millisecond, 2 * time.Second}},
		{Case: "c", Policy: "another", Migrations: 2, Stuck: 2},
	}))
	require.Equal(t, ""+
		"| case | policy | migrations | VMIM to target pod, p50 | p90 | max | as multiples of no limit | writes per migration | exposure per migration, GiB·s | most room at once, VMs | stuck |\n"+
		"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"+
		"| c | one | 2 | 1s | 1s | 3s | 2.00 / 2.00 / 1.50 | 1.50 | 1.000 | 2.5 | 0 |\n"+
		"| c | no limit | 2 | 500ms | 500ms | 2s | – | – | – | – | 0 |\n"+
		"| c | another | 2 | never | never | never | – | 0.00 | 0.000 | 0.0 | 2 |\n", out.String())
}
