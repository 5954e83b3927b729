package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/harvester/old"
	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// A beside is a tenant with a Harvester that still scales quotas by itself.
type beside struct {
	*tenant
	headroom bool                // is there, too
	adds     corev1.ResourceList // what it thinks that a target pod needs
	refused  int                 // of its writes
	hard     []corev1.ResourceList
}

// pass lets time pass, in which the old Harvester works.
func (b *beside) pass(d time.Duration) {
	b.t.Helper()
	begin := b.Now()
	for b.Now().Before(begin.Add(d)) {
		if b.Now().Before(begin.Add(2 * time.Second)) {
			b.Advance(5 * time.Millisecond) // it hears of events, and misses no phase
		} else {
			b.Advance(100 * time.Millisecond)
		}
		s := b.Snapshot("tenant")
		err := old.Sync(context.Background(), b.Client("old-harvester"), "tenant", s.VMIs, s.Migrations, b.adds)
		if apierrors.IsForbidden(err) {
			b.refused++
		} else {
			require.NoError(b.t, err)
		}
		hard := b.quota().Spec.Hard
		if !quota.Equal(b.hard[len(b.hard)-1], hard) {
			b.hard = append(b.hard, hard)
		}
	}
}

// A story is what happens while it works.
type story func(b *beside)

// inTheMiddle is the story in which something happens in the middle of a migration.
func inTheMiddle(happens story) story {
	return func(b *beside) {
		require.NoError(b.t, b.Migrate("tenant", "move", "vm0", fake.Outcome{Hang: true}))
		b.pass(10 * time.Second)
		happens(b)
		b.pass(time.Minute)
	}
}

var stories = map[string]story{
	"three migrations": func(b *beside) {
		for i := range 3 {
			require.NoError(b.t, b.Migrate("tenant", fmt.Sprint("move", i), fmt.Sprint("vm", i), fake.Outcome{}))
		}
		b.pass(2 * time.Minute)
	},
	"Rancher restarts in the middle": inTheMiddle(func(b *beside) {
		b.rancher.Restart()
		b.pass(10 * time.Second)
		require.NoError(b.t, b.Abort("tenant", "move"))
	}),
	"H1: the VMI is deleted": inTheMiddle(func(b *beside) {
		require.NoError(b.t, b.DeleteVMI("tenant", "vm0"))
	}),
	"H2: the migration is deleted unseen": inTheMiddle(func(b *beside) {
		require.NoError(b.t, b.Abort("tenant", "move"))
		b.Advance(2 * time.Minute) // the old Harvester is down
	}),
	"H8: its entries are too small": func(b *beside) {
		// Alone the migration would be refused for ever. So alone its entries are right.
		if b.headroom {
			b.adds = corev1.ResourceList{"limits.cpu": resource.MustParse("1")}
		}
		require.NoError(b.t, b.Migrate("tenant", "move", "vm0", fake.Outcome{}))
		b.pass(2 * time.Minute)
	},
	"H10: the source lingers": func(b *beside) {
		require.NoError(b.t, b.Migrate("tenant", "move", "vm0", fake.Outcome{Linger: 5 * time.Minute}))
		b.pass(time.Minute)
		require.NoError(b.t, b.Migrate("tenant", "next", "vm1", fake.Outcome{}))
		b.pass(10 * time.Minute)
	},
}

// Beside a Harvester that scales by itself, with the write lock or without, migrations
// succeed, nothing oscillates, and what is left in the end is what that Harvester alone
// would have left.
func TestBesideAHarvesterThatScales(t *testing.T) {
	for name, play := range stories {
		for locked, lock := range locks {
			t.Run(name+" "+locked, func(t *testing.T) {
				run := func(headroom bool) *beside {
					b := &beside{tenant: newTenant(t, fake.Config{Seed: 3, Lock: lock}, 3), headroom: headroom, adds: perVM}
					b.hard = append(b.hard, b.quota().Spec.Hard)
					if headroom {
						b.Start(user, current)
					}
					play(b)
					return b
				}
				alone, both := run(false), run(true)
				for _, m := range both.Snapshot("tenant").Migrations {
					if strings.Contains(name, "three") || strings.HasPrefix(name, "H8") || strings.HasPrefix(name, "H10") {
						require.Equal(t, kubevirtv1.MigrationSucceeded, m.Status.Phase, m.Name)
					}
				}
				require.Equal(t, lock == "", len(alone.hard) > 1, "without the lock it scales")
				require.Equal(t, lock == "", both.refused == 0)
				require.Empty(t, both.Finish())
				alone.Finish()
				want, got := alone.quota(), both.quota()
				require.True(t, quota.Equal(want.Spec.Hard, got.Spec.Hard), "%v, not %v", got.Spec.Hard, want.Spec.Hard)
				require.Equal(t, keys(want.Annotations), keys(got.Annotations))
				t.Logf("spec.hard had %d states, alone %d; %d writes of status.hard", len(both.hard), len(alone.hard), both.StatusWrites(user, fake.ResourceQuotas))
				require.LessOrEqual(t, len(both.hard), len(alone.hard)+2, "spec.hard does not oscillate")
				require.LessOrEqual(t, both.StatusWrites(user, fake.ResourceQuotas), 40, "nor does status.hard")
			})
		}
	}
}

// keys are the names of Harvester's annotations, without the UIDs, which differ.
func keys(annotations map[string]string) (names []string) {
	for _, prefix := range []string{old.Entry, old.Resync} {
		for name := range annotations {
			if strings.HasPrefix(name, prefix) {
				names = append(names, prefix)
			}
		}
	}
	return names
}

// What a Harvester that scaled by itself has left on a quota does not matter: migrations
// succeed on top of it. And it can be cleaned in the middle of one.
func TestWhatAnOldHarvesterLeft(t *testing.T) {
	entry := `{"limits.cpu":"1015m","limits.memory":"2773714688"}`
	for name, state := range map[string]struct {
		annotations map[string]string
		raised      int64 // by how many VMs
	}{
		"H1, H2: a leaked entry, still raised":       {map[string]string{old.Entry + "gone": entry, old.Resync: "false"}, 1},
		"H3, H10: the entry of a running VM is gone": {map[string]string{old.Resync: "false"}, 0},
		"H4, H16: an entry, and the raise is reset":  {map[string]string{old.Entry + "gone": entry, old.Resync: "false"}, 0},
		"H7: an entry without amounts":               {map[string]string{old.Entry + "gone": "{}"}, 0},
		"H9: compensation":                           {map[string]string{"harvesterhci.io/migratingCompensation": `{"limits.memory":"128Mi"}`, old.Entry + "gone": entry}, 1},
		"H11: fifty entries":                         {fifty(entry), 50},
		"H17, H18: entries that are malformed":       {map[string]string{old.Entry + "gone": "null", old.Entry + "other": "{", old.Resync: "true"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			u := newTenant(t, fake.Config{Seed: 7}, 2)
			u.edit("old-harvester", state.annotations, times(2+state.raised))
			u.Advance(time.Minute)
			u.hang()
			u.Advance(10 * time.Second)
			u.enforces(3 + state.raised)

			require.NoError(t, rancher.CleanNamespace(context.Background(), u.Client("kubectl").CoreV1(), "tenant"))
			u.Advance(10 * time.Second)
			u.enforces(3)
			require.NoError(t, u.Migrate("tenant", "second", "vm1", fake.Outcome{}))
			require.True(t, u.Until(time.Minute, func() bool { return u.phase("second") == kubevirtv1.MigrationSucceeded }))
			require.NoError(t, u.Abort("tenant", "first"))
			require.Empty(t, u.Finish())
			require.True(t, quota.Equal(times(2), u.quota().Spec.Hard))
			require.Empty(t, u.quota().Annotations)
		})
	}
}

func fifty(entry string) map[string]string {
	entries := map[string]string{}
	for i := range 50 {
		entries[fmt.Sprint(old.Entry, i)] = entry
	}
	return entries
}

// With the write lock only Rancher can clean. Its next sync sets spec.hard, and the
// annotations stay, without an effect.
func TestWhatAnOldHarvesterLeftUnderTheLock(t *testing.T) {
	u := newTenant(t, fake.Config{Seed: 7, Lock: fake.RancherUser}, 2)
	u.edit(fake.RancherUser, map[string]string{old.Entry + "gone": `{"limits.cpu":"1015m","limits.memory":"2773714688"}`}, times(3))
	u.Advance(time.Minute)
	err := rancher.CleanNamespace(context.Background(), u.Client("kubectl").CoreV1(), "tenant")
	require.ErrorIs(t, err, rancher.ErrLocked)
	require.True(t, quota.Equal(times(3), u.quota().Spec.Hard))

	u.hang()
	u.rancher.Restart()
	u.Advance(10 * time.Second)
	require.True(t, quota.Equal(times(2), u.quota().Spec.Hard))
	u.enforces(3)
	require.NoError(t, u.Abort("tenant", "first"))
	require.Empty(t, u.Finish())
	require.Len(t, u.quota().Annotations, 1)
	u.enforces(2)
}

// A person has told Harvester to leave the quota alone, in the middle of a migration.
func TestH12Skipped(t *testing.T) {
	u := newTenant(t, fake.Config{Seed: 7}, 2)
	u.hang()
	u.edit("kubectl", map[string]string{rancher.HarvesterSkip: "true"}, u.quota().Spec.Hard)
	u.Advance(time.Second)
	writes := u.Writes(user, fake.ResourceQuotas)
	require.NoError(t, u.Migrate("tenant", "second", "vm1", fake.Outcome{}))
	u.Advance(time.Minute)
	require.Equal(t, kubevirtv1.MigrationPending, u.phase("second"))
	require.NoError(t, u.Abort("tenant", "first"))
	require.NoError(t, u.Abort("tenant", "second"))
	u.Advance(10 * time.Minute)
	require.Equal(t, writes, u.Writes(user, fake.ResourceQuotas), "hands off")
	u.enforces(2)
}
