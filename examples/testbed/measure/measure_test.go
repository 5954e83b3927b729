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

	"github.com/vmquota/headroom/examples/testbed/bed"
)

var start = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

func status(at time.Duration, hard, used int64) bed.AuditEvent {
	rq := corev1.ResourceQuota{Status: corev1.ResourceQuotaStatus{
		Hard: corev1.ResourceList{corev1.ResourceLimitsMemory: *resource.NewQuantity(hard, resource.BinarySI)},
		Used: corev1.ResourceList{corev1.ResourceLimitsMemory: *resource.NewQuantity(used, resource.BinarySI)},
	}}
	content, _ := json.Marshal(rq)
	return bed.AuditEvent{Verb: "update", Resource: "resourcequotas", Subresource: "status", Code: 200, Answered: start.Add(at), ResponseObject: content}
}

// Room is exposed from the raise to the target pod, and from the end of the source to the
// restored limit.
func TestExposure(t *testing.T) {
	static := corev1.ResourceList{corev1.ResourceLimitsMemory: resource.MustParse("100")}
	got, err := exposure([]bed.AuditEvent{
		status(0, 100, 100),
		status(2*time.Second, 150, 100),
		status(3*time.Second, 150, 150),
		status(7*time.Second, 150, 100),
		status(9*time.Second, 100, 100),
		status(20*time.Second, 100, 50), // what is free below static is the tenant's own
		status(30*time.Second, 100, 100),
	}, static)
	require.NoError(t, err)
	require.InDelta(t, 50*1+50*2, got, 0.001)
}

func TestDelays(t *testing.T) {
	create := func(at time.Duration, kind, name string, code int32, object string) bed.AuditEvent {
		return bed.AuditEvent{
			Verb: "create", Resource: kind, Name: name, Code: code,
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
		{Policy: "one", Migrations: 2, Delays: []time.Duration{time.Second, 3 * time.Second}, Writes: 3, Exposure: 1 << 31},
		{Policy: "another", Migrations: 2, Stuck: 2},
	}))
	require.Equal(t, ""+
		"| policy  | migrations | VMIM to target pod, p50 | p90   | max   | stuck after 60 s | quota writes per migration | exposure, GiB·s |\n"+
		"| ---     | ---        | ---                     | ---   | ---   | ---              | ---                        | ---             |\n"+
		"| one     | 2          | 1s                      | 1s    | 3s    | 0                | 1.50                       | 2.0             |\n"+
		"| another | 2          | never                   | never | never | 2                | 0.00                       | 0.0             |\n", out.String())
}
