package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

func mustJSON(t *testing.T, object any) string {
	t.Helper()
	data, err := json.Marshal(object)
	require.NoError(t, err)
	return string(data)
}

// foretold returns the forecast for stdin.
func foretold(t *testing.T, stdin string, args ...string) (Forecast, int) {
	t.Helper()
	got := runWith(t, stdin, append([]string{"forecast", "-f", "-", "-o", "json"}, args...)...)
	var f Forecast
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &f), got.stderr)
	return f, got.code
}

func TestForecastTable(t *testing.T) {
	got := runWith(t, "", "forecast", "-f", "testdata/drain")
	require.Equal(t, exitRefused, got.code, got.stderr)
	golden(t, "testdata/forecast.golden", got.stdout)
	got = runWith(t, "", "forecast", "-f", "testdata/drain", "--parallel", "1")
	require.Equal(t, exitRefused, got.code)
	require.NotContains(t, got.stdout, "5 AT A TIME")
	require.NotContains(t, got.stdout, "10.33 GiB")
}

// idle is list.yaml without its migration, and with limits for factor VMs.
func idle(t *testing.T, memory, cpu string) string {
	t.Helper()
	var items []map[string]any
	for _, o := range objectsOf(t, contents(t, "testdata/list.yaml")) {
		switch o["kind"] {
		case "VirtualMachineInstanceMigration":
			continue
		case "ResourceQuota":
			o["spec"] = map[string]any{"hard": map[string]any{"limits.memory": memory, "limits.cpu": cpu}}
		}
		items = append(items, o)
	}
	return mustJSON(t, map[string]any{"kind": "List", "apiVersion": "v1", "items": items})
}

// One VM of 2773714688 bytes: its limits are enough for two, or lack a byte.
func TestForecast(t *testing.T) {
	f, code := foretold(t, idle(t, "5547429376", "4"))
	require.Equal(t, exitOK, code)
	require.Zero(t, f.Refused)
	require.Equal(t, "vm1", f.Namespaces[0].VMs[0].Name)
	require.Equal(t, "queued", f.Namespaces[0].VMs[0].State)

	f, code = foretold(t, idle(t, "5547429375", "4"))
	require.Equal(t, exitRefused, code)
	require.Equal(t, 1, f.Refused)
	refusal := f.Namespaces[0].VMs[0].Refused[0]
	require.Equal(t, "q", refusal.Quota)
	require.JSONEq(t, `{"limits.memory": "1"}`, mustJSON(t, refusal.Missing))
	require.Equal(t, refusal.Missing, refusal.MissingParallel, "there is no other VM")
	enough := f.Namespaces[0].Quotas[0].Enough[corev1.ResourceLimitsMemory]
	require.Equal(t, "5547429376", enough.String())
}

// An upgrade makes the target larger: twice as much where KubeVirt sets the limit from the request.
func TestForecastOfAnUpgrade(t *testing.T) {
	f, code := foretold(t, idle(t, "5547429376", "4"), "--overhead", "20Mi")
	require.Equal(t, exitRefused, code)
	missing := f.Namespaces[0].VMs[0].Refused[0].Missing[corev1.ResourceLimitsMemory]
	require.Equal(t, "41943040", missing.String())
	_, code = foretold(t, idle(t, "5Ti", "4"), "--overhead", "20Mi")
	require.Equal(t, exitOK, code)
}

// KubeVirt says which VM cannot live-migrate.
func TestForecastOfAFixedVM(t *testing.T) {
	const condition = `"conditions":[{"type":"LiveMigratable","status":"False","reason":"DisksNotLiveMigratable","message":"PVC disk is not shared"},`
	input := strings.Replace(idle(t, "1", "1"), `"conditions":[`, condition, 1)
	require.Contains(t, input, condition)
	f, code := foretold(t, input)
	require.Equal(t, exitOK, code)
	require.Equal(t, fixed, f.Namespaces[0].VMs[0].State)
	require.Equal(t, "It cannot live-migrate (DisksNotLiveMigratable): PVC disk is not shared.", f.Namespaces[0].VMs[0].Why)
}
