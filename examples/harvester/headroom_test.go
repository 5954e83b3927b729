package main

import (
	"bytes"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"strings"
	"testing"
	"time"

	"github.com/rancher/wrangler/v3/pkg/generic"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/harvester/old"
	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

const user = "system:serviceaccount:harvester-system:harvester"

// listed reads an indexer of the simulated cluster through a cache of wrangler.
func listed[T any, P interface {
	*T
	generic.RuntimeMetaObject
}](indexer cache.Indexer, resource string) migration.List[T] {
	objects := generic.NewCache[P](indexer, schema.GroupResource{Resource: resource})
	return cached(func(namespace string, selector labels.Selector) ([]*T, error) {
		found, err := objects.List(namespace, selector)
		plain := make([]*T, len(found))
		for i := range found {
			plain[i] = found[i]
		}
		return plain, err
	})
}

// current is what this example makes of a process of the simulated cluster.
func current(p *fake.Process) fake.Program {
	caches := migration.Caches{
		Migrations:  listed[kubevirtv1.VirtualMachineInstanceMigration](p.Caches[fake.Migrations], "virtualmachineinstancemigrations"),
		VMIs:        listed[kubevirtv1.VirtualMachineInstance](p.Caches[fake.VMIs], "virtualmachineinstances"),
		Pods:        listed[corev1.Pod](p.Caches[fake.Pods], "pods"),
		LimitRanges: listed[corev1.LimitRange](p.Caches[fake.LimitRanges], "limitranges"),
		PVCs:        listed[corev1.PersistentVolumeClaim](p.Caches[fake.Claims], "persistentvolumeclaims"),
		Events:      listed[corev1.Event](p.Caches[fake.Events], "events"),
		Namespace:   migration.FromStore(p.Caches[fake.Namespaces]),
	}
	headroom, err := newHeadroom(p.Client, migration.Options{
		Caches:   &caches,
		Quotas:   listed[corev1.ResourceQuota](p.Caches[fake.ResourceQuotas], "resourcequotas"),
		Patch:    p.PatchMigration,
		Enqueue:  p.Enqueue,
		Recorder: &record.FakeRecorder{},
		Now:      p.Now,
	})
	if err != nil {
		panic(err)
	}
	return fake.Program{Reconcile: headroom.Reconcile, Namespace: migration.NamespaceOf}
}

// perVM is what one VM of the tests is charged.
var perVM = corev1.ResourceList{"limits.cpu": resource.MustParse("1015m"), "limits.memory": resource.MustParse("2773714688")}

// times returns what n VMs are charged.
func times(n int64) corev1.ResourceList {
	return corev1.ResourceList{
		"limits.cpu":    *resource.NewMilliQuantity(1015*n, resource.DecimalSI),
		"limits.memory": *resource.NewQuantity(2773714688*n, resource.BinarySI),
	}
}

// A tenant is a cluster with one namespace, whose quota is Rancher's.
type tenant struct {
	*fake.Cluster
	t       *testing.T
	rancher *model.Simulated
}

// newTenant returns a tenant with n VMs that fill the quota exactly.
func newTenant(t *testing.T, config fake.Config, n int64) *tenant {
	t.Helper()
	u := &tenant{Cluster: fake.New(config), t: t}
	u.rancher = model.Simulate(u.Cluster, fake.Span{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond}, nil)
	require.NoError(t, u.CreateNamespace("tenant", nil))
	require.NoError(t, u.rancher.SetLimit("tenant", times(n)))
	u.Advance(time.Minute)
	for i := range n {
		require.NoError(t, u.CreateVMI(fake.NewVMI("tenant", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
	}
	u.Advance(time.Minute)
	return u
}

func (u *tenant) quota() *corev1.ResourceQuota {
	u.t.Helper()
	quotas := try.Must(u.Client("kubectl").CoreV1().ResourceQuotas("tenant").List(context.Background(), metav1.ListOptions{}))(u.t)
	require.Len(u.t, quotas.Items, 1)
	return &quotas.Items[0]
}

func (u *tenant) phase(name string) kubevirtv1.VirtualMachineInstanceMigrationPhase {
	if m := u.Migration("tenant", name); m != nil {
		return m.Status.Phase
	}
	return ""
}

// hang starts the program, and a migration that hangs.
func (u *tenant) hang() {
	u.t.Helper()
	u.Start(user, current)
	require.NoError(u.t, u.Migrate("tenant", "first", "vm0", fake.Outcome{Hang: true}))
	require.True(u.t, u.Until(time.Minute, func() bool { return u.phase("first") == kubevirtv1.MigrationRunning }))
}

// edit writes the annotations and the static limits of the quota.
func (u *tenant) edit(as string, annotations map[string]string, hard corev1.ResourceList) {
	u.t.Helper()
	rq := u.quota()
	rq.Annotations, rq.Spec.Hard = annotations, hard
	try.Must(u.Client(as).CoreV1().ResourceQuotas("tenant").Update(context.Background(), rq, metav1.UpdateOptions{}))(u.t)
}

// enforces says that the enforced limits are those of n VMs.
func (u *tenant) enforces(n int64) {
	u.t.Helper()
	require.True(u.t, quota.Equal(times(n), u.quota().Status.Hard), "%v", u.quota().Status.Hard)
}

func (u *tenant) drained(node string) func() bool {
	return func() bool {
		for _, vmi := range u.Snapshot("tenant").VMIs {
			if vmi.Status.NodeName == node {
				return false
			}
		}
		return true
	}
}

// The write lock, and no lock: it makes no difference.
var locks = map[string]string{"unlocked": "", "locked": fake.RancherUser}

func TestDrainOnFullQuota(t *testing.T) {
	for name, lock := range locks {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(5) {
				u := newTenant(t, fake.Config{Seed: seed, Lock: lock}, 12)
				u.Start(user, current)
				u.Drain("node01")
				require.True(t, u.Until(time.Hour, u.drained("node01")), "seed %d", seed)
				require.Empty(t, u.Finish(), "seed %d", seed)
			}
		})
	}
}

func TestDrainWithCrashesAndConflicts(t *testing.T) {
	for seed := range uint64(5) {
		u := newTenant(t, fake.Config{Seed: seed, Lock: fake.RancherUser}, 12)
		u.Inject(u.Chance(map[fake.Fault]float64{fake.Crash: 0.05, fake.Conflict: 0.1}))
		u.Start(user, current)
		u.Drain("node01")
		require.True(t, u.Until(3*time.Hour, u.drained("node01")), "seed %d", seed)
		require.Empty(t, u.Finish(), "seed %d", seed)
	}
}

// It writes nothing but the status of quotas.
func TestWritesNothingElse(t *testing.T) {
	u := newTenant(t, fake.Config{Seed: 1}, 2)
	u.Start(user, current)
	require.NoError(t, u.Migrate("tenant", "move", "vm0", fake.Outcome{}))
	require.True(t, u.Until(time.Hour, func() bool { return u.phase("move") == kubevirtv1.MigrationSucceeded }))
	require.Empty(t, u.Finish())
	require.NotZero(t, u.StatusWrites(user, fake.ResourceQuotas))
	require.Equal(t, u.StatusWrites(user, fake.ResourceQuotas), u.Writes(user, fake.ResourceQuotas))
	require.Zero(t, u.Writes(user, fake.ConfigMaps))
}

// A vmiStore is the API server and the cache of VMIs in one.
type vmiStore struct {
	indexer cache.Indexer
	writes  int
}

func (s *vmiStore) Update(vmi *kubevirtv1.VirtualMachineInstance) (*kubevirtv1.VirtualMachineInstance, error) {
	s.writes++
	return vmi, s.indexer.Update(vmi)
}

func newVMIStore(t *testing.T, vmis ...*kubevirtv1.VirtualMachineInstance) (*vmiStore, *vmimHandler) {
	t.Helper()
	s := &vmiStore{indexer: cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})}
	for _, vmi := range vmis {
		require.NoError(t, s.indexer.Add(vmi))
	}
	return s, &vmimHandler{
		cache: generic.NewCache[*kubevirtv1.VirtualMachineInstance](s.indexer, schema.GroupResource{Resource: "virtualmachineinstances"}),
		vmis:  s,
	}
}

func vmim(uid types.UID, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) *kubevirtv1.VirtualMachineInstanceMigration {
	return &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: string(uid), UID: uid},
		Spec:       kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: "vm"},
		Status:     kubevirtv1.VirtualMachineInstanceMigrationStatus{Phase: phase},
	}
}

func TestStateIsShown(t *testing.T) {
	store, handler := newVMIStore(t, &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "vm"}})
	shown := func() map[string]string {
		vmi := try.Must(handler.cache.Get("tenant", "vm"))(t)
		return vmi.Annotations
	}
	see := func(phase kubevirtv1.VirtualMachineInstanceMigrationPhase, deleted bool) map[string]string {
		m := vmim("first", phase)
		if deleted {
			m.DeletionTimestamp = &metav1.Time{}
		}
		try.Must(handler.onMigration("", m))(t)
		return shown()
	}
	require.Equal(t, "Pending migration", see(kubevirtv1.MigrationPhaseUnset, false)[stateAnnotation])
	require.Equal(t, "Pending migration", see(kubevirtv1.MigrationPending, false)[stateAnnotation])
	require.Equal(t, 1, store.writes, "the same state is not written twice")
	require.Equal(t, "Migrating", see(kubevirtv1.MigrationRunning, false)[stateAnnotation])
	require.Equal(t, "Aborting migration", see(kubevirtv1.MigrationRunning, true)[stateAnnotation])
	require.Empty(t, see(kubevirtv1.MigrationFailed, true))
}

// An old migration that is seen again, as after a restart, says nothing about the one that
// runs now.
func TestOldMigrationIsNotShown(t *testing.T) {
	store, handler := newVMIStore(t, &kubevirtv1.VirtualMachineInstance{ObjectMeta: metav1.ObjectMeta{
		Namespace: "tenant", Name: "vm", Annotations: map[string]string{uidAnnotation: "second", stateAnnotation: "Migrating"},
	}})
	try.Must(handler.onMigration("", vmim("first", kubevirtv1.MigrationSucceeded)))(t)
	require.Zero(t, store.writes)
}

func TestMigrationWithoutVM(t *testing.T) {
	store, handler := newVMIStore(t)
	try.Must(handler.onMigration("", vmim("first", kubevirtv1.MigrationRunning)))(t)
	try.Must(handler.onMigration("tenant/first", nil))(t)
	require.Zero(t, store.writes)
}

// What takes the place of raising, restoring and compensating quotas is at most 25 lines,
// not counting imports, comments and blank lines.
func TestTwentyFiveLines(t *testing.T) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "headroom.go", nil, parser.SkipObjectResolution) // without comments
	require.NoError(t, err)
	lines := 0
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.IMPORT {
			continue
		}
		var code bytes.Buffer
		require.NoError(t, printer.Fprint(&code, files, d))
		for line := range strings.Lines(code.String()) {
			if strings.TrimSpace(line) != "" {
				lines++
			}
		}
	}
	t.Logf("headroom.go: %d lines", lines)
	require.Greater(t, lines, 10)
	require.LessOrEqual(t, lines, 25)
}

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
