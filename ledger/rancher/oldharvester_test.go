package rancher_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/applier"
)

// raiseAsHarvester makes the quota what a Harvester from before this library has left,
// which raised it for one VM before the write lock came.
func (c *cluster) raiseAsHarvester() {
	c.t.Helper()
	rq := c.quota().DeepCopy()
	rq.Annotations = map[string]string{entryKey: `{"limits.cpu":"1015m","limits.memory":"2773714688"}`}
	rq.Spec.Hard = room(3)
	_, err := c.Client(fake.RancherUser).CoreV1().ResourceQuotas("tenant").Update(ctx, rq, metav1.UpdateOptions{})
	require.NoError(c.t, err)
}

// Behind the lock nobody takes Harvester's entries away, and some have leaked. So what they
// say counts for nothing, and the next sync brings the limits back to static.
func TestRaiseOfAnOldHarvesterIsReset(t *testing.T) {
	c := newCluster(t, fake.Config{Seed: 11}, near, 2)
	c.raiseAsHarvester()
	c.Advance(time.Minute)
	require.Equal(t, "3045m", c.limit("limits.cpu"), "nobody has looked")
	c.rancher.Restart()
	c.Advance(time.Minute)
	require.Equal(t, amounts(c.limits), amounts(c.quota().Spec.Hard))
	require.False(t, c.isRaised())
	require.Equal(t, 1, c.updates)
}

// Where somebody writes the ledger already, the same sync keeps what is charged, and
// records what is static.
func TestRaiseOfAnOldHarvesterInMidFlight(t *testing.T) {
	c := newCluster(t, fake.Config{Seed: 12}, near, 2)
	require.NoError(t, c.Migrate("tenant", "move", "vm0", fake.Outcome{Hang: true}))
	c.until(c.isRaised)
	c.Advance(10 * time.Second)
	c.raiseAsHarvester()
	c.Advance(10 * time.Second)
	require.False(t, c.isRaised())
	c.rancher.Restart()
	c.Advance(10 * time.Second)
	require.Equal(t, "3045m", c.limit("limits.cpu"))
	static, err := applier.Static(c.quota())
	require.NoError(t, err)
	require.Equal(t, amounts(c.limits), amounts(static))
	require.Equal(t, 1, c.updates)
	require.NoError(t, c.Abort("tenant", "move"))
	c.Advance(time.Minute)
	require.Equal(t, amounts(c.limits), amounts(c.quota().Spec.Hard))
	require.False(t, c.isRaised())
}

// Where every Harvester has the library, nothing is lost between the old one and the new:
// not by Rancher's controller, which comes first here, nor by its applier, nor when what
// they took over turns out to be over.
func TestRaiseOfAnOldHarvesterIsTakenOver(t *testing.T) {
	c := newClusterThat(t, true, fake.Config{Seed: 13, Slack: time.Hour}, near, 2)
	c.observing.Crash(10 * time.Minute)
	c.applying.Crash(5 * time.Minute)
	c.raiseAsHarvester()
	require.NoError(t, c.Migrate("tenant", "move", "vm0", fake.Outcome{Hang: true}))
	c.Advance(10 * time.Second)
	c.rancher.Restart()
	for range 15 {
		c.Advance(time.Minute)
		require.Equal(t, "3045m", c.limit("limits.cpu"))
		require.True(t, c.isRaised())
		static, err := applier.Static(c.quota())
		require.NoError(t, err)
		require.Equal(t, amounts(c.limits), amounts(static))
	}
	require.NotContains(t, c.quota().Annotations, entryKey)
	require.Equal(t, 1, c.updates)
	require.NoError(t, c.Abort("tenant", "move"))
	c.Advance(time.Minute)
	c.finish()
}
