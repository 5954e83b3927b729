package applier_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// A machine is a namespace in which anything happens: migrations come, are refused, start
// and end; regular workloads come and go; admins edit limits, another writer resets them;
// switches are thrown; updates conflict, are refused or get lost; the ledger and
// status.hard lag behind; the process restarts. It counts in small whole numbers of its
// own, so that nothing of the applier's arithmetic is in it.
type machine struct {
	*scene
	static     map[string]limits // what the tenant was given, by quota
	regular    map[string]limits // what regular workloads use
	migrations map[types.UID]*moving
	started    int
	off        map[string]bool // by quota; "" is all of them
	refusing   bool            // the API server refuses all writes
	lost       bool            // answers of updates get lost
	conflicts  int             // of the next updates
}

type limits map[corev1.ResourceName]int64

// moving is a migration as it is, which is not always how the ledger has it.
type moving struct {
	quota.State
	surge limits
}

func newMachine(t *rapid.T) *machine {
	m := &machine{
		scene:      newScene(t),
		static:     map[string]limits{"both": {"limits.cpu": 4, "pods": 4}, "pods": {"pods": 5}},
		regular:    map[string]limits{"both": {"limits.cpu": 3, "pods": 3}, "pods": {"pods": 3}},
		migrations: map[types.UID]*moving{},
		off:        map[string]bool{},
	}
	m.limit("both", "limits.cpu=4 pods=4")
	m.limit("pods", "pods=5", corev1.ResourceQuotaScopeNotBestEffort)
	m.policy = rapid.SampledFrom([]quota.Policy{{}, {}, {Budget: list("limits.cpu=3")}, {Strict: true}, {Eager: true}}).Draw(t, "policy")
	if rapid.Bool().Draw(t, "global budget") {
		m.config.Budget = list("limits.cpu=4 pods=3")
	}
	m.config.Disabled = func() bool { return m.off[""] }
	m.before, m.after = m.fail, m.lose
	m.restart()
	m.charge()
	return m
}

// fail is asked before each call.
func (m *machine) fail(verb string) error {
	if verb != "update" {
		return nil
	}
	if m.conflicts > 0 {
		m.conflicts--
		for name := range m.static {
			m.edit("tenant/"+name, func(rq *corev1.ResourceQuota) { rq.Labels = map[string]string{"n": fmt.Sprint(m.version)} })
		}
	}
	if m.refusing {
		return apierrors.NewForbidden(groupResource, "any", errors.New("no"))
	}
	return nil
}

// lose is asked after each call that was carried out.
func (m *machine) lose(verb string) error {
	if verb == "update" && m.lost {
		return context.DeadlineExceeded
	}
	return nil
}

// charge makes status.used what it is.
func (m *machine) charge() {
	for name, regular := range m.regular {
		m.edit("tenant/"+name, func(rq *corev1.ResourceQuota) {
			rq.Status.Used = corev1.ResourceList{}
			for r, n := range regular {
				for _, migration := range m.migrations {
					if migration.State == quota.Charged {
						n += migration.surge[r]
					}
				}
				rq.Status.Used[r] = *resource.NewQuantity(n, resource.DecimalSI)
			}
		})
	}
}

// observe makes the ledger say what is.
func (m *machine) observe() {
	var inFlight []quota.Migration
	for uid, migration := range m.migrations {
		surge := corev1.ResourceList{}
		for r, n := range migration.surge {
			surge[r] = *resource.NewQuantity(n, resource.DecimalSI)
		}
		inFlight = append(inFlight, quota.Migration{UID: uid, State: migration.State, Surge: surge})
	}
	m.inFlight(inFlight...)
}

func (m *machine) names() []string { return []string{"both", "pods"} }

// amountOf returns a small whole number.
func (m *machine) amountOf(l corev1.ResourceList, name corev1.ResourceName) int64 {
	q := l[name]
	n, ok := q.AsInt64()
	require.True(m.t, ok)
	return n
}

// call applies, and holds what is true after any Apply.
func (m *machine) call() {
	updates, lost := m.updates, false
	result, err := m.applier.Apply(m.ctx, "tenant")
	if err != nil {
		require.True(m.t, m.refusing && errors.Is(err, applier.ErrForbidden) || m.lost || errors.Is(err, applier.ErrForbidden), err)
		require.False(m.t, errors.Is(err, applier.ErrUnreadable), err)
	}
	unsure := false // a lost answer may stand for a write
	for _, q := range result.Quotas {
		if q.Action != applier.Unchanged {
			updates++
		}
		if q.Err != nil {
			if !m.lost {
				require.Positive(m.t, q.RetryAfter)
			}
			unsure = true
			continue
		}
		m.requireCovered(q)
	}
	if unsure {
		updates = max(updates, m.updates)
	}
	if !lost {
		require.Equal(m.t, updates, m.updates, "writes that no result has")
	}
}

// requireCovered holds that the quota has room for what it must have room for, by the
// ledger as it is.
func (m *machine) requireCovered(q applier.QuotaResult) {
	inFlight, err := m.record.Migrations(m.ctx, "tenant")
	require.NoError(m.t, err)
	rq := m.quota(q.Name)
	off := m.off[""] || m.off[q.Name]
	for r, static := range m.static[q.Name] {
		hard, used := m.amountOf(rq.Spec.Hard, r), m.amountOf(rq.Status.Used, r)
		var charged, granted, need int64
		for _, migration := range inFlight {
			surge := m.amountOf(migration.Surge, r)
			if migration.State == quota.Charged {
				charged += surge
			}
			if slices.Contains(q.Decision.Granted, migration.UID) {
				granted += surge
				if migration.State != quota.Charged {
					need += surge
				}
			}
		}
		raised := rq.Annotations[applier.StaticAnnotation] != ""
		switch {
		case off || q.Reached == applier.Pending:
		case raised:
			require.GreaterOrEqual(m.t, hard, static+charged, "%s: less than static and what is charged", r)
			require.GreaterOrEqual(m.t, hard, static+granted, "%s: less than static and what is granted", r)
			if q.RetryAfter == 0 && !m.policy.Strict {
				require.GreaterOrEqual(m.t, hard, used+need, "%s: no room for what is granted", r)
			}
		case granted > 0:
			require.GreaterOrEqual(m.t, hard, used+need, "%s: not raised, and no room", r)
		}
		if off && q.Action != applier.Lowered && q.Action != applier.Restored {
			require.Contains(m.t, []applier.Action{applier.Unchanged, applier.Recorded}, q.Action)
		}
	}
}

// Check holds what is true at any time: no limit is below static, and no other resources
// are limited than there.
func (m *machine) Check(*rapid.T) {
	for name, static := range m.static {
		rq := m.quota(name)
		require.Len(m.t, rq.Spec.Hard, len(static))
		for r, n := range static {
			require.GreaterOrEqual(m.t, m.amountOf(rq.Spec.Hard, r), n, "%s %s is below static", name, r)
		}
	}
}

func (m *machine) actions() map[string]func(*rapid.T) {
	anyQuota := rapid.SampledFrom(m.names())
	anyMigration := func(t *rapid.T) (types.UID, *moving) {
		if len(m.migrations) == 0 {
			t.Skip("none")
		}
		var uids []types.UID
		for uid := range m.migrations {
			uids = append(uids, uid)
		}
		slices.Sort(uids)
		uid := rapid.SampledFrom(uids).Draw(t, "migration")
		return uid, m.migrations[uid]
	}
	return map[string]func(*rapid.T){
		"": m.Check,
		"apply": func(*rapid.T) {
			m.call()
		},
		"observe": func(*rapid.T) { m.observe() },
		"enforce": func(*rapid.T) { m.enforce() },
		"time": func(t *rapid.T) {
			m.pass(rapid.SampledFrom([]time.Duration{time.Millisecond, 300 * time.Millisecond, time.Second, 7 * time.Second, time.Minute, time.Hour}).Draw(t, "time"))
		},
		"start": func(t *rapid.T) {
			m.started++
			m.migrations[types.UID(fmt.Sprintf("m%02d", m.started))] = &moving{State: quota.Queued, surge: limits{
				"limits.cpu": int64(rapid.IntRange(0, 4).Draw(t, "cpu")), "pods": 1,
			}}
		},
		"try": func(t *rapid.T) { // KubeVirt tries to create the target pod
			_, migration := anyMigration(t)
			migration.State = max(migration.State, quota.Blocked)
			for name, static := range m.static {
				rq := m.quota(name)
				for r := range static {
					if m.amountOf(rq.Status.Used, r)+migration.surge[r] > m.amountOf(rq.Status.Hard, r) {
						return
					}
				}
			}
			migration.State = quota.Charged
			m.charge()
		},
		"end": func(t *rapid.T) {
			uid, _ := anyMigration(t)
			delete(m.migrations, uid)
			m.charge()
		},
		"regular": func(t *rapid.T) {
			name := anyQuota.Draw(t, "quota")
			for r := range m.regular[name] {
				m.regular[name][r] = int64(rapid.IntRange(0, 9).Draw(t, "used"))
			}
			m.charge()
		},
		"edit": func(t *rapid.T) {
			name := anyQuota.Draw(t, "quota")
			r := rapid.SampledFrom([]corev1.ResourceName{"limits.cpu", "pods"}).Draw(t, "resource")
			if _, ok := m.static[name][r]; !ok {
				t.Skip("not limited")
			}
			n := int64(rapid.IntRange(0, 9).Draw(t, "limit"))
			if applied := m.applied(name); applied != nil && m.amountOf(applied, r) == n {
				t.Skip("nobody could tell it from a raise")
			}
			m.static[name][r] = n
			m.edit("tenant/"+name, func(rq *corev1.ResourceQuota) { rq.Spec.Hard[r] = *resource.NewQuantity(n, resource.DecimalSI) })
		},
		"reset": func(t *rapid.T) {
			name := anyQuota.Draw(t, "quota")
			m.edit("tenant/"+name, func(rq *corev1.ResourceQuota) {
				for r, n := range m.static[name] {
					rq.Spec.Hard[r] = *resource.NewQuantity(n, resource.DecimalSI)
				}
			})
		},
		"recreate": func(t *rapid.T) {
			name := anyQuota.Draw(t, "quota")
			rq := m.quota(name)
			delete(m.quotas, "tenant/"+name)
			rq.Annotations = nil
			for r, n := range m.static[name] {
				rq.Spec.Hard[r] = *resource.NewQuantity(n, resource.DecimalSI)
			}
			m.create(rq)
			delete(m.off, name)
		},
		"switch": func(t *rapid.T) {
			name := rapid.SampledFrom([]string{"both", "pods", ""}).Draw(t, "switch")
			m.throw(name, !m.off[name])
		},
		"conflict": func(t *rapid.T) { m.conflicts = rapid.IntRange(1, 3).Draw(t, "times") },
		"refuse":   func(*rapid.T) { m.refusing = !m.refusing },
		"lose":     func(*rapid.T) { m.lost = !m.lost },
		"restart":  func(*rapid.T) { m.restart() },
	}
}

// applied returns what the annotation has, nil if there is none.
func (m *machine) applied(name string) corev1.ResourceList {
	rq := m.quota(name)
	if rq.Annotations[applier.AppliedAnnotation] == "" {
		return nil
	}
	applied := quotaIn("", "", "").Spec.Hard
	require.NoError(m.t, jsonInto(rq.Annotations[applier.AppliedAnnotation], &applied))
	return applied
}

func (m *machine) throw(name string, off bool) {
	m.off[name] = off
	if name == "" {
		return
	}
	m.edit("tenant/"+name, func(rq *corev1.ResourceQuota) {
		if delete(rq.Annotations, applier.DisabledAnnotation); off {
			setAnnotation(rq, applier.DisabledAnnotation, "true")
		}
	})
}

// rest lets all faults and changes stop. What is granted then has room, and there is
// nothing more to write.
func (m *machine) rest() {
	m.refusing, m.lost, m.conflicts = false, false, 0
	m.observe()
	for range 3 { // a refusal that is over, a pause that is over, usage that settles
		m.pass(time.Hour)
		m.call()
		m.pass(2 * time.Second)
		m.call()
	}
	updates := m.updates
	result := m.apply()
	require.Equal(m.t, updates, m.updates, "writes without end")
	for _, q := range result.Quotas {
		require.NotEqual(m.t, applier.Pending, q.Reached)
		if q.Name == "both" && len(q.Decision.Deferred) == 0 {
			require.Zero(m.t, q.RetryAfter)
		}
	}
}

func TestMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		t.Repeat(m.actions())
		m.rest()

		for _, name := range m.names() {
			if rapid.Bool().Draw(t, "on again") {
				m.throw(name, false)
			}
		}
		m.migrations = map[types.UID]*moving{}
		m.charge()
		m.rest()
		for _, name := range m.names() {
			rq, static := m.quota(name), corev1.ResourceList{}
			for r, n := range m.static[name] {
				static[r] = *resource.NewQuantity(n, resource.DecimalSI)
			}
			require.Equal(t, jsonOf(t, static), jsonOf(t, rq.Spec.Hard))
			if delete(rq.Annotations, applier.DisabledAnnotation); len(rq.Annotations) > 0 {
				t.Fatalf("annotations are left: %v", rq.Annotations)
			}
		}
		require.Empty(t, m.apply().Quotas)
	})
}
