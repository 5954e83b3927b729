package main

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// An upgrade is a full namespace of Rancher's with VMs, and a Harvester that is replaced
// by another version.
type upgrade struct {
	*fake.Cluster
	t       *testing.T
	rancher *fake.Rancher
	process *fake.Process
	version func(*fake.Process) fake.Program
	static  corev1.ResourceList
}

func newUpgrade(t *testing.T, vms int64, version func(*fake.Process) fake.Program) *upgrade {
	t.Helper()
	return newUpgradeIn(t, nil, vms, version)
}

// newUpgradeIn is one in a project with those limits.
func newUpgradeIn(t *testing.T, project corev1.ResourceList, vms int64, version func(*fake.Process) fake.Program) *upgrade {
	t.Helper()
	u := &upgrade{Cluster: fake.New(fake.Config{Seed: 7, Slack: time.Minute}), t: t, version: version, static: times(perVM, vms)}
	u.rancher = u.StartRancher(fake.RancherConfig{Latency: fake.Span{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond}, Project: project})
	require.NoError(t, u.CreateNamespace("tenant", nil))
	require.NoError(t, u.rancher.SetLimit("tenant", u.static))
	u.Advance(time.Minute)
	for i := range vms {
		require.NoError(t, u.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
	}
	u.Advance(time.Minute)
	u.process = u.Start(user, func(p *fake.Process) fake.Program { return u.version(p) })
	u.Advance(time.Minute)
	return u
}

func times(list corev1.ResourceList, n int64) corev1.ResourceList {
	sum := corev1.ResourceList{}
	for name, q := range list {
		total := resource.Quantity{Format: q.Format}
		for range n {
			total.Add(q)
		}
		sum[name] = total
	}
	return sum
}

// to replaces the version that runs, which is down for a while.
func (u *upgrade) to(version func(*fake.Process) fake.Program, down time.Duration) {
	u.version = version
	u.process.Crash(down)
	u.Advance(down)
}

func (u *upgrade) quota() *corev1.ResourceQuota {
	u.t.Helper()
	quotas, err := u.Client("kubectl").CoreV1().ResourceQuotas("tenant").List(context.Background(), metav1.ListOptions{})
	require.NoError(u.t, err)
	require.Len(u.t, quotas.Items, 1)
	return &quotas.Items[0]
}

// hang starts a migration that runs until it is aborted, and waits for it to run.
func (u *upgrade) hang(name, vmi string) {
	u.t.Helper()
	require.NoError(u.t, u.Migrate("tenant", name, vmi, fake.Outcome{Hang: true}))
	u.reaches(name, kubevirtv1.MigrationRunning)
}

func (u *upgrade) reaches(name string, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) {
	u.t.Helper()
	require.True(u.t, u.Until(time.Hour, func() bool {
		m := u.Migration("tenant", name)
		return m != nil && m.Status.Phase == phase
	}), "%s does not reach %s", name, phase)
}

// isRaisedBy says that the limits are static and n VMs.
func (u *upgrade) isRaisedBy(n int64) {
	u.t.Helper()
	require.True(u.t, quota.Equal(times(perVM, n+2), u.quota().Spec.Hard), "%v", u.quota().Spec.Hard)
}

// ends says that whatever is in flight can be aborted, that a new migration succeeds, and
// that nothing is left then, nor was any limit ever too low.
func (u *upgrade) ends() {
	u.t.Helper()
	for _, m := range u.Snapshot("tenant").Migrations {
		if !m.IsFinal() {
			require.NoError(u.t, u.Abort("tenant", m.Name))
		}
	}
	u.Advance(time.Minute)
	require.NoError(u.t, u.Migrate("tenant", "last", "vm1", fake.Outcome{}))
	u.reaches("last", kubevirtv1.MigrationSucceeded)
	require.Empty(u.t, u.Finish())
	require.Empty(u.t, traces(u.quota()))
	require.NotContains(u.t, u.quota().Annotations, applier.StaticAnnotation)
}

var current = harvester(options{})

func TestWayOverInMidFlight(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvester(nil))
	u.hang("first", "vm0")
	u.isRaisedBy(1)
	writes := u.Writes(user, fake.ResourceQuotas)
	u.to(current, time.Second)
	u.Advance(time.Minute)
	u.isRaisedBy(1)
	require.Empty(t, traces(u.quota()))
	require.Contains(t, u.quota().Annotations, applier.StaticAnnotation)
	require.Equal(t, writes+1, u.Writes(user, fake.ResourceQuotas))
	u.ends()
}

func TestH1WayOverWithoutVMI(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvester(nil))
	u.hang("first", "vm0")
	u.process.Crash(time.Minute)
	require.NoError(t, u.DeleteVMI("tenant", "vm0"))
	u.Advance(2 * time.Minute)
	require.NotEmpty(t, traces(u.quota()), "the entry has leaked")
	writes := u.Writes(user, fake.ResourceQuotas)
	u.to(current, time.Second)
	u.Advance(time.Minute)
	u.isRaisedBy(0)
	require.Equal(t, writes+1, u.Writes(user, fake.ResourceQuotas), "one write cleans all")
	u.ends()
}

func TestH2WayOverWithAVMIMThatEndedUnseen(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvester(nil))
	u.hang("first", "vm0")
	u.version = current
	u.process.Crash(2 * time.Minute)
	require.NoError(t, u.Abort("tenant", "first"))
	u.Advance(3 * time.Minute)
	u.isRaisedBy(0)
	u.ends()
}

func TestH3WayOverWithAnOldVMIM(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvester(nil))
	require.NoError(t, u.Migrate("tenant", "old", "vm0", fake.Outcome{}))
	u.reaches("old", kubevirtv1.MigrationSucceeded)
	u.Advance(time.Minute)
	u.to(current, time.Second)
	u.hang("first", "vm0")
	u.to(current, time.Second)
	u.Advance(time.Minute)
	u.isRaisedBy(1)
	u.ends()
}

func TestH5WayOverWithARecreatedQuota(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvester(nil))
	u.hang("first", "vm0")
	u.version = current
	u.process.Crash(time.Minute)
	require.NoError(t, u.Tenant("tenant").DeleteQuota(u.quota().Name))
	u.Advance(time.Second)
	u.rancher.Touch("tenant")
	u.Advance(3 * time.Minute)
	require.NoError(t, u.Migrate("tenant", "second", "vm1", fake.Outcome{}))
	u.reaches("second", kubevirtv1.MigrationSucceeded)
	u.ends()
}

// The old version adds nothing for a VM without limits: nothing is to be adopted, and the
// migration that is blocked for ever is not any more.
func TestH7WayOverWithoutLimitsOfTheVMI(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvesterThatAdds(nil, nil))
	require.NoError(t, u.Migrate("tenant", "first", "vm0", fake.Outcome{}))
	u.Advance(time.Minute)
	require.Equal(t, kubevirtv1.MigrationPending, u.Migration("tenant", "first").Status.Phase)
	require.Empty(t, traces(u.quota()))
	u.to(current, time.Second)
	u.reaches("first", kubevirtv1.MigrationSucceeded)
	u.ends()
}

// The old version adds the VM's own limits, and not what its sidecar needs.
func TestH8WayOverWithAnEntryThatIsTooSmall(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvesterThatAdds(corev1.ResourceList{
		"limits.cpu": resource.MustParse("1"), "limits.memory": resource.MustParse("2713714688"),
	}, nil))
	require.NoError(t, u.Migrate("tenant", "first", "vm0", fake.Outcome{Hang: true}))
	u.Advance(time.Minute)
	require.Equal(t, kubevirtv1.MigrationPending, u.Migration("tenant", "first").Status.Phase)
	require.Len(t, traces(u.quota()), 1)
	u.to(current, time.Second)
	u.reaches("first", kubevirtv1.MigrationRunning)
	u.isRaisedBy(1)
	u.ends()
}

func TestH9WayOverWithCompensation(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvester(func(rq *corev1.ResourceQuota) {
		if len(traces(rq)) > 0 {
			metav1.SetMetaDataAnnotation(&rq.ObjectMeta, rancher.HarvesterCompensation, `{"limits.memory":"128Mi"}`)
			memory := rq.Spec.Hard["limits.memory"].DeepCopy()
			if memory.Cmp(times(perVM, 3)["limits.memory"]) == 0 {
				memory.Add(resource.MustParse("128Mi"))
				rq.Spec.Hard["limits.memory"] = memory
			}
		}
	}))
	u.hang("first", "vm0")
	u.to(current, time.Second)
	u.Advance(time.Minute)
	u.isRaisedBy(1)
	u.ends()
}

func TestH10WayOverWhileTheSourceLingers(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvester(nil))
	require.NoError(t, u.Migrate("tenant", "first", "vm0", fake.Outcome{Linger: 10 * time.Minute}))
	u.reaches("first", kubevirtv1.MigrationSucceeded)
	u.Advance(time.Second)
	u.isRaisedBy(0)
	u.to(current, time.Second)
	require.NoError(t, u.Migrate("tenant", "second", "vm1", fake.Outcome{}))
	u.reaches("second", kubevirtv1.MigrationSucceeded)
	u.ends()
}

func TestH11WayOverInADrain(t *testing.T) {
	u := newUpgrade(t, 12, oldHarvester(nil))
	for i := range 12 {
		require.NoError(t, u.Migrate("tenant", fmt.Sprint("move", i), fmt.Sprint("vm", i), fake.Outcome{}))
	}
	u.Advance(time.Second)
	before := u.quota().Spec.Hard
	u.to(current, time.Second)
	u.Advance(2 * time.Second)
	now := u.quota().Spec.Hard
	require.Negative(t, now.Cpu().Cmp(*before.Cpu())+cmpLimit(now, before), "the room of those that wait is closed")
	for i := range 12 {
		u.reaches(fmt.Sprint("move", i), kubevirtv1.MigrationSucceeded)
	}
	u.ends()
}

func cmpLimit(a, b corev1.ResourceList) int {
	q := a["limits.memory"]
	return q.Cmp(b["limits.memory"])
}

func TestH12WayOverWithSkip(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvester(nil))
	u.hang("first", "vm0")
	skip := func(value string) {
		rq := u.quota()
		metav1.SetMetaDataAnnotation(&rq.ObjectMeta, rancher.HarvesterSkip, value)
		_, err := u.Client("kubectl").CoreV1().ResourceQuotas("tenant").Update(context.Background(), rq, metav1.UpdateOptions{})
		require.NoError(t, err)
	}
	skip("true")
	u.Advance(time.Second)
	u.to(current, time.Second)
	require.NoError(t, u.Migrate("tenant", "second", "vm1", fake.Outcome{}))
	u.Advance(time.Minute)
	u.isRaisedBy(1) // for the one that runs, and nobody else
	require.NoError(t, u.Abort("tenant", "first"))
	u.Advance(time.Minute)
	u.isRaisedBy(0)
	skip("false")
	u.ends()
}

func TestH16WayOverAfterAReset(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvester(nil))
	u.hang("first", "vm0")
	u.version = current
	u.process.Crash(time.Minute)
	u.rancher.Restart()
	u.Advance(time.Second)
	u.isRaisedBy(0)
	u.Advance(2 * time.Minute)
	u.isRaisedBy(1)
	u.ends()
}

func TestH18WayOverWithAMalformedEntry(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvester(func(rq *corev1.ResourceQuota) {
		if len(traces(rq)) > 0 && quota.Equal(rq.Spec.Hard, times(perVM, 3)) {
			rq.Annotations[rancher.HarvesterNamePrefix+"gone"] = `{"limits.cpu":"one"}`
		}
	}))
	u.hang("first", "vm0")
	require.Len(t, traces(u.quota()), 2)
	u.to(current, time.Second)
	u.Advance(time.Minute)
	u.isRaisedBy(1)
	u.ends()
}

// Without the limits of the namespace, the annotations say what was raised.
func TestH17WayOverWithoutLimits(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvester(func(rq *corev1.ResourceQuota) {
		metav1.SetMetaDataAnnotation(&rq.ObjectMeta, rancher.HarvesterResync, "false")
	}))
	u.hang("first", "vm0")
	u.isRaisedBy(1)
	u.version = current
	u.process.Crash(time.Minute)
	namespaces := u.Client("kubectl").CoreV1().Namespaces()
	ns, err := namespaces.Get(context.Background(), "tenant", metav1.GetOptions{})
	require.NoError(t, err)
	ns.Annotations[rancher.LimitsAnnotation] = "{"
	_, err = namespaces.Update(context.Background(), ns, metav1.UpdateOptions{})
	require.NoError(t, err)
	u.Advance(2 * time.Minute)
	u.isRaisedBy(1)
	require.NoError(t, u.Abort("tenant", "first"))
	u.Advance(time.Minute)
	u.isRaisedBy(0)
	require.NoError(t, u.rancher.SetLimit("tenant", u.static))
	u.ends()
}

// What Rancher has refused to the namespace does not become its limit.
func TestH15WayOverWithLimitsThatRancherRefused(t *testing.T) {
	u := newUpgradeIn(t, times(perVM, 2), 2, oldHarvester(func(rq *corev1.ResourceQuota) {
		rq.Spec.Hard = times(perVM, 2) // it has not followed the entry yet
	}))
	require.NoError(t, u.rancher.SetLimit("tenant", times(perVM, 5)))
	require.NoError(t, u.Migrate("tenant", "first", "vm0", fake.Outcome{Hang: true}))
	u.Advance(time.Minute)
	require.Len(t, traces(u.quota()), 1)
	u.isRaisedBy(0)
	u.to(current, time.Second)
	u.reaches("first", kubevirtv1.MigrationRunning)
	u.isRaisedBy(1)
	u.ends()
	u.isRaisedBy(0)
}

// The old version lets a growing guest in, above what was bought. What it has let in stays,
// the limits are Rancher's again, and the next one does not grow.
func TestH19WayOverWhileAGuestGrows(t *testing.T) {
	u := newUpgrade(t, 2, oldHarvesterThatAdds(corev1.ResourceList{
		"limits.cpu": resource.MustParse("1015m"), "limits.memory": resource.MustParse("4921198336"),
	}, nil))
	require.NoError(t, u.HotPlug("tenant", "vm0", 1, resource.MustParse("2Gi")))
	require.True(t, u.Until(time.Minute, func() bool {
		return u.Snapshot("tenant").Migrations[0].Status.Phase == kubevirtv1.MigrationRunning
	}))
	u.to(current, time.Second)
	u.reaches(u.Snapshot("tenant").Migrations[0].Name, kubevirtv1.MigrationSucceeded)
	u.Advance(time.Minute)
	u.isRaisedBy(0)
	require.Empty(t, traces(u.quota()))
	grown := u.quota().Status.Used
	require.Positive(t, cmpLimit(grown, u.static))
	require.NoError(t, u.HotPlug("tenant", "vm1", 1, resource.MustParse("2Gi")))
	u.Advance(10 * time.Minute)
	require.True(t, quota.Equal(grown, u.quota().Status.Used))
	for _, m := range u.Snapshot("tenant").Migrations {
		if !m.IsFinal() {
			require.Equal(t, kubevirtv1.MigrationPending, m.Status.Phase)
			require.NoError(t, u.Abort("tenant", m.Name))
		}
	}
	require.Empty(t, u.Finish())
	u.isRaisedBy(0)
}

// newLocked is a namespace that an old Harvester has raised for two VMs, of which one is
// gone, before Rancher's write lock came. Only Rancher can take over.
func newLocked(t *testing.T) *upgrade {
	t.Helper()
	u := &upgrade{Cluster: fullNamespace(t, fake.Config{Seed: 7, Lock: fake.RancherUser, Slack: time.Minute}, 2), t: t, static: times(perVM, 2)}
	ctx, namespaces := context.Background(), u.Client("kubectl").CoreV1().Namespaces()
	ns, err := namespaces.Get(ctx, "tenant", metav1.GetOptions{})
	require.NoError(t, err)
	metav1.SetMetaDataAnnotation(&ns.ObjectMeta, rancher.LimitsAnnotation, `{"limit":{"limitsCpu":"2030m","limitsMemory":"5547429376"}}`)
	_, err = namespaces.Update(ctx, ns, metav1.UpdateOptions{})
	require.NoError(t, err)

	entry, err := json.Marshal(perVM)
	require.NoError(t, err)
	rq := u.quota()
	rq.Spec.Hard = times(perVM, 4)
	rq.Annotations = map[string]string{
		rancher.HarvesterUIDPrefix + string(u.Snapshot("tenant").VMIs[0].UID): string(entry),
		rancher.HarvesterNamePrefix + "gone":                                  string(entry),
	}
	_, err = u.Client(fake.RancherUser).CoreV1().ResourceQuotas("tenant").Update(ctx, rq, metav1.UpdateOptions{})
	require.NoError(t, err)
	return u
}

// Whichever of the two new versions comes first, what runs keeps its room, and what had
// leaked is gone once both are there.
func TestWayOverWithTheWriteLock(t *testing.T) {
	type start struct {
		user    string
		program func(*fake.Process) fake.Program
	}
	first, second := start{fake.RancherUser, adoptingRancher}, start{user, harvester(options{ledgerOnly: true})}
	for name, starts := range map[string][]start{"Rancher first": {first, second}, "Harvester first": {second, first}} {
		t.Run(name, func(t *testing.T) {
			u := newLocked(t)
			u.hang("move", u.Snapshot("tenant").VMIs[0].Name)
			u.Start(starts[0].user, starts[0].program)
			u.Advance(10 * time.Second)
			u.isRaisedBy(2)
			u.Start(starts[1].user, starts[1].program)
			u.Advance(10 * time.Second)
			u.isRaisedBy(1)
			u.ends()
		})
	}
}

// With nothing in flight, Rancher's seed is taken out again.
func TestLeakWithTheWriteLock(t *testing.T) {
	u := newLocked(t)
	u.Start(user, harvester(options{ledgerOnly: true}))
	u.Advance(10 * time.Second)
	u.Start(fake.RancherUser, adoptingRancher)
	u.Advance(10 * time.Second)
	u.isRaisedBy(0)
	u.ends()
}

// Back and forth: the old version finds what it expects in the middle of a migration, ends
// at static when that is over, and so does the new one after it.
func TestRollBackAndForth(t *testing.T) {
	mirroring := harvester(options{rollback: true})
	for name, last := range map[string]func(*fake.Process) fake.Program{"old": oldHarvester(nil), "new": mirroring} {
		t.Run(name, func(t *testing.T) {
			u := newUpgrade(t, 2, mirroring)
			u.hang("first", "vm0")
			u.isRaisedBy(1)
			u.to(oldHarvester(nil), time.Second)
			u.Advance(time.Minute)
			u.isRaisedBy(1)
			u.to(mirroring, time.Second)
			u.Advance(time.Minute)
			u.isRaisedBy(1)
			u.to(last, time.Second)
			u.Advance(time.Minute)
			u.isRaisedBy(1)
			require.NoError(t, u.Abort("tenant", "first"))
			u.Advance(time.Minute)
			u.isRaisedBy(0)
			u.to(current, time.Second)
			u.ends()
		})
	}
}

// Limits may be edited while the old annotations are there: the new ones hold at once, for
// this version and for the old one.
func TestLimitsAreEditedBesideTheMirror(t *testing.T) {
	mirroring := harvester(options{rollback: true})
	u := newUpgrade(t, 2, mirroring)
	u.hang("first", "vm0")
	for _, n := range []int64{4, 3} {
		require.NoError(t, u.rancher.SetLimit("tenant", times(perVM, n)))
		u.Advance(time.Minute)
		require.Len(t, traces(u.quota()), 1)
		require.True(t, quota.Equal(times(perVM, n+1), u.quota().Spec.Hard))
	}
	u.to(oldHarvester(nil), time.Second)
	u.Advance(time.Minute)
	require.True(t, quota.Equal(times(perVM, 4), u.quota().Spec.Hard))
	require.NoError(t, u.Abort("tenant", "first"))
	u.Advance(time.Minute)
	require.True(t, quota.Equal(times(perVM, 3), u.quota().Spec.Hard))
	u.to(current, time.Second)
	u.ends()
}

// Without the mirror, the old version lowers the limits under the migration. It is what
// the mirror is for.
func TestRollBackWithoutMirror(t *testing.T) {
	u := newUpgrade(t, 2, current)
	u.hang("first", "vm0")
	u.isRaisedBy(1)
	u.to(oldHarvester(nil), time.Second)
	u.Advance(time.Minute)
	u.isRaisedBy(0)
	u.to(current, time.Second)
	u.Advance(time.Minute)
	u.isRaisedBy(1)
	u.ends()
}
