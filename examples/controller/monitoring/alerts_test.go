package monitoring

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
)

// Each alert fires on what it is for, and no other one does.
func TestAlerts(t *testing.T) {
	const leader = "\n headroom_leader 1x900"
	for alert, series := range map[string]string{
		"HeadroomNobodyWorks":        `headroom_leader 0x900`,
		"HeadroomWriteFailing":       `headroom_resourcequota_write_failing{namespace="n",resourcequota="q",reason="forbidden"} 1x900` + leader,
		"HeadroomTaken":              `headroom_taken_total{resource="limits.memory"} 0x835 1x65` + leader,
		"HeadroomMigrationsBlocked":  `headroom_migrations{namespace="n",state="blocked"} 1x900` + leader,
		"HeadroomMigrationsDeferred": `headroom_migrations_deferred{namespace="n",resourcequota="q",reason="BudgetUsed"} 1x900` + leader,
		"HeadroomMigrationHangs":     `headroom_migrations_oldest_created{namespace="n"} 0x900` + leader,
		"HeadroomRaisedForNothing":   `headroom_resourcequota_raised{namespace="n",resourcequota="q",resource="limits.memory"} 1x900` + leader,
		"HeadroomErrors":             `headroom_reconcile_errors_total 0+1x900` + leader,
		"":                           leader[1:],
	} {
		t.Run(alert, func(t *testing.T) {
			p := newProm(t, promqltest.LoadedStorage(t, "load 30s\n "+series))
			found := map[string]bool{}
			for at := time.Duration(0); at <= 7*time.Hour; at += interval {
				found = map[string]bool{}
				for name := range p.firing(time.Unix(0, 0).Add(at)) {
					found[name[0]] = true
				}
			}
			want := map[string]bool{}
			if alert != "" {
				want[alert] = true
			}
			require.Equal(t, want, found)
		})
	}
}
