package proof

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// A migration that quota has refused is rescued, and both objects tell.
func TestRefusedAndRescued(t *testing.T) {
	leader, other := pair(t)
	s := newScene(t, 1)
	s.Disable(true)
	s.Migrate(1, "")
	s.AwaitPhase("m0", scenario.Refused)
	s.Disable(false)
	s.Succeeded("m0")
	s.AwaitRest()
	try.Eventually(t, func(c try.T) {
		list := try.Must(admin.CoreV1().Events(s.Namespace()).List(t.Context(), metav1.ListOptions{FieldSelector: "source=headroom"}))(c)
		var reasons []string
		for i := range list.Items {
			reasons = append(reasons, list.Items[i].InvolvedObject.Kind+" "+list.Items[i].Reason)
		}
		require.Contains(c, reasons, "ResourceQuota HeadroomRaised")
		require.Contains(c, reasons, "ResourceQuota HeadroomRestored")
		require.Contains(c, reasons, "VirtualMachineInstanceMigration HeadroomGranted")
	})
	requireAllowed(t, leader, other)
}

// The leader is killed while one migration runs, and before another one is refused.
func TestFailOver(t *testing.T) {
	leader, other := pair(t)
	s := newScene(t, 2)
	s.Migrate(1, scenario.Hang)
	s.AwaitPhase("m0", "Running")
	s.Raised()

	require.NoError(t, leader.Kill())
	killed := time.Now()
	s.CreateMigration(scenario.Migrate{Name: "m1", VM: "vm1"})
	s.AwaitPhase("m1", scenario.Refused)
	require.False(t, other.leads(t))
	try.Eventually(t, func(c try.T) { require.True(c, other.leads(c)) })
	t.Log("the other replica leads after", time.Since(killed).Round(time.Millisecond))
	s.Succeeded("m1")
	t.Log("the migration that was refused meanwhile has succeeded after", time.Since(killed).Round(time.Millisecond))

	s.Release("m0")
	s.Succeeded("m0")
	s.AwaitRest()

	// The killed one comes back, and takes over when the other one is ended.
	back := newReplica(t, leader.name)
	require.False(t, back.leads(t))
	require.NoError(t, other.Stop())
	ended := time.Now()
	try.Eventually(t, func(c try.T) { require.True(c, back.leads(c)) })
	t.Log("after an orderly end the other one leads after", time.Since(ended).Round(time.Millisecond))
	requireAllowed(t, leader, other, back)
}

// Headroom is gone for good while a quota is raised, and nothing of it is left.
func TestNothingIsLeft(t *testing.T) {
	r := newReplica(t, "replica")
	s := newScene(t, 1)
	s.Migrate(1, scenario.Hang)
	s.AwaitPhase("m0", "Running")
	s.Raised()
	require.NoError(t, r.Kill())
	s.Release("m0")
	s.Succeeded("m0")
	s.AwaitRest()
}

// What the README promises about metrics is there, and moves with a drain.
func TestMetricsOfADrain(t *testing.T) {
	leader, other := pair(t)
	const machines = 4
	s := newScene(t, machines)
	before := leader.scrape(t)
	require.Zero(t, before.family("headroom_migrations"))
	s.Disable(true) // so that they are refused: room may come before KubeVirt's first try
	migrations := s.Migrate(machines, scenario.Hang)
	s.AwaitPhase("m0", scenario.Refused)
	s.Disable(false)
	seen := map[string]bool{}
	note := func() scrape {
		now := leader.scrape(t)
		for _, name := range promised(t) {
			if now.has(name) || now.has(name+"_count") {
				seen[name] = true
			}
		}
		return now
	}
	try.Eventually(t, func(c try.T) {
		now := note()
		require.Positive(c, now[`headroom_migrations{namespace="`+s.Namespace()+`",state="charged"}`])
		quota := `{namespace="` + s.Namespace() + `",resource="limits.memory",resourcequota="q"}`
		require.Positive(c, now["headroom_resourcequota_raised"+quota])
		require.Positive(c, now["headroom_resourcequota_temporary"+quota])
		require.Equal(c, now["headroom_resourcequota_static"+quota], now["headroom_resourcequota_regular"+quota])
		require.Positive(c, now[`headroom_migrations_oldest_created{namespace="`+s.Namespace()+`"}`])
	})
	for _, name := range migrations {
		s.Release(name)
	}
	s.Succeeded(migrations...)
	s.AwaitRest()
	var after scrape
	try.Eventually(t, func(c try.T) {
		after = note()
		require.Zero(c, after.family("headroom_migrations"))
	})
	moved := func(series string) float64 { return after[series] - before[series] }
	require.Positive(t, moved(`headroom_resourcequota_writes_total{action="raised"}`))
	// A migration that has to wait for KubeVirt's parallel ones was not refused.
	require.Positive(t, moved("headroom_migration_blocked_seconds_count"))
	require.LessOrEqual(t, moved("headroom_migration_blocked_seconds_count"), float64(machines))
	require.Positive(t, after.family("rest_client_requests_total"))
	t.Logf("%d migrations: raised %v, lowered %v, restored %v", machines, moved(`headroom_resourcequota_writes_total{action="raised"}`),
		moved(`headroom_resourcequota_writes_total{action="lowered"}`), moved(`headroom_resourcequota_writes_total{action="restored"}`))

	// These are there only while something is wrong.
	absent := []string{"headroom_migrations_deferred", "headroom_resourcequota_write_failing", "headroom_resourcequota_taken"}
	for _, name := range promised(t) {
		require.True(t, seen[name] || slices.Contains(absent, name), "%s is not there", name)
	}
	for _, name := range []string{"headroom_resourcequota_writes_refused_total", "headroom_reconcile_errors_total"} {
		require.Zero(t, after[name], name)
	}
	idle := other.scrape(t)
	require.Zero(t, idle["headroom_leader"])
	require.Zero(t, idle.family("headroom_resourcequota_writes_total"))
	requireAllowed(t, leader, other)
}

// promised are the metrics of the README's table.
func promised(t *testing.T) (names []string) {
	t.Helper()
	for line := range strings.Lines(readme(t)) {
		if found := regexp.MustCompile("^\\| `(headroom_[a-z_]+)`").FindStringSubmatch(line); found != nil {
			names = append(names, found[1])
		}
	}
	require.NotEmpty(t, names)
	return names
}
