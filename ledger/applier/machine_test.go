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
// and end; regular workloads come and go; the owner edits limits; kube-controller-manager
// recounts, or is down; switches are thrown; updates conflict, are refused or get lost; the
// ledger lags behind; the process restarts. It counts in small whole numbers of its own, so
// that nothing of the applier's arithmetic is in it.
type machine struct {
	*scene
	regular    map[string]limits // what regular workloads use, by quota
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
		regular:    map[string]limits{"both": {"limits.cpu": 3, "pods": 3}, "pods": {"pods": 3}},
		migrations: map[types.UID]*moving{},
		off:        map[string]bool{},
	}
	m.limit("both", "limits.cpu=4 pods=4", "")
	m.limit("pods", "pods=5", "", corev1.ResourceQuotaScopeNotBestEffort)
	m.policy = rapid.SampledFrom([]quota.Policy{{}, {}, {Budget: list("limits.cpu=3")}, {Strict: true}, {Eager: true}}).Draw(t, "policy")
	m.config.Guard = rapid.Bool().Draw(t, "guard")
	m.config.Disabled = func() bool { return m.off[""] }
	m.before, m.after = m.fail, m.lose
	m.restart()
	for _, name := range m.names() {
		m.countAgain(name)
	}
	return m
}

// fail is asked before each call.
func (m *machine) fail(verb string) error {
	if verb != "update" {
		return nil
	}
	if m.conflicts > 0 {
		m.conflicts--
		for _, name := range m.names() {
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

// usage is what the pods charge.
func (m *machine) usage(name string) corev1.ResourceList {
	used := corev1.ResourceList{}
	for r, n := range m.regular[name] {
		for _, migration := range m.migrations {
			if migration.State == quota.Charged {
				n += migration.surge[r]
			}
		}
		used[r] = *resource.NewQuantity(n, resource.DecimalSI)
	}
	return used
}

// countAgain is kube-controller-manager.
func (m *machine) countAgain(name string) {
	m.edit("tenant/"+name, func(rq *corev1.ResourceQuota) {
		rq.Status = corev1.ResourceQuotaStatus{Hard: rq.Spec.Hard.DeepCopy(), Used: m.usage(name)}
	})
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

// amountOf returns a small whole number; the unit of the guard is none.
func (m *machine) amountOf(l corev1.ResourceList, name corev1.ResourceName) int64 {
	q := l[name]
	return q.Value() //nolint:forbidigo // see there
}

// call applies, and holds what is true after any Apply.
func (m *machine) call() {
	updates := m.updates
	specs := map[string]string{}
	for _, name := range m.names() {
		specs[name] = jsonOf(m.t, m.quota(name).Spec)
	}
	result, err := m.applier.Apply(m.ctx, "tenant")
	if err != nil {
		require.True(m.t, m.lost || errors.Is(err, applier.ErrForbidden), err)
	}
	unsure := false // a lost answer may stand for a write
	for _, q := range result.Quotas {
		if q.Action != applier.Unchanged {
			updates++
		}
		require.NotEmpty(m.t, q.Why)
		if q.Err != nil {
			require.Equal(m.t, applier.Unchanged, q.Action)
			unsure = true
			continue
		}
		m.requireCovered(q, result.RequeueAfter)
	}
	if unsure {
		updates = max(updates, m.updates)
	}
	require.Equal(m.t, updates, m.updates, "writes that no result has")
	for _, name := range m.names() {
		require.Equal(m.t, specs[name], jsonOf(m.t, m.quota(name).Spec))
	}
}

// requireCovered holds that the quota enforces what it must, by the ledger as it is, or
// that there is a time at which it will.
func (m *machine) requireCovered(q applier.QuotaResult, again time.Duration) {
	inFlight, err := m.record.Migrations(m.ctx, "tenant")
	require.NoError(m.t, err)
	rq := m.quota(q.Name)
	if off := m.off[""] || m.off[q.Name]; off {
		require.Equal(m.t, applier.Unchanged, q.Action)
		return
	}
	_, annotated := rq.Annotations[applier.OfferAnnotation]
	require.Equal(m.t, m.config.Guard && len(q.Offered) > 0 || q.Action == applier.Announced && annotated || again > 0 && annotated, annotated)
	for r := range rq.Status.Hard {
		if _, limited := rq.Spec.Hard[r]; !limited {
			continue // kube-controller-manager will take it away
		}
		hard, static := m.amountOf(rq.Status.Hard, r), m.amountOf(rq.Spec.Hard, r)
		var charged, open int64
		for _, migration := range inFlight {
			switch surge := m.amountOf(migration.Surge, r); {
			case migration.State == quota.Charged:
				charged += surge
			case slices.Contains(q.Offered, migration.UID):
				open += surge
			}
		}
		if again == 0 {
			require.GreaterOrEqual(m.t, hard, static+charged, "%s: less than static and what is charged", r)
			require.Zero(m.t, open, "an offer without an end")
		}
		if open > 0 {
			// After a recount regular pods get no more room than before, for a moment.
			used := m.amountOf(rq.Status.Used, r)
			require.GreaterOrEqual(m.t, hard, min(static+charged, used)+open, "%s: less than static and what is granted", r)
		}
		if len(q.Decision.Granted) == 0 && again == 0 {
			require.Equal(m.t, static, hard, "%s: nothing is granted", r)
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
		"apply":   func(*rapid.T) { m.call() },
		"observe": func(*rapid.T) { m.observe() },
		"recount": func(t *rapid.T) { m.countAgain(anyQuota.Draw(t, "quota")) },
		"time": func(t *rapid.T) {
			m.pass(rapid.SampledFrom([]time.Duration{time.Millisecond, 20 * time.Millisecond, 300 * time.Millisecond, time.Second, 7 * time.Second, time.Minute, time.Hour}).Draw(t, "time"))
		},
		"start": func(t *rapid.T) {
			m.started++
			m.migrations[types.UID(fmt.Sprintf("m%02d", m.started))] = &moving{State: quota.Queued, surge: limits{
				"limits.cpu": int64(rapid.IntRange(0, 4).Draw(t, "cpu")), "pods": 1,
			}}
		},
		"try": func(t *rapid.T) { // KubeVirt tries to create the target pod
			_, migration := anyMigration(t)
			if migration.State == quota.Charged {
				t.Skip("it is there")
			}
			migration.State = quota.Blocked
			for _, name := range m.names() {
				rq := m.quota(name)
				for r := range rq.Status.Hard {
					if m.amountOf(rq.Status.Used, r)+migration.surge[r] > m.amountOf(rq.Status.Hard, r) {
						return
					}
				}
			}
			migration.State = quota.Charged
			for _, name := range m.names() {
				m.edit("tenant/"+name, func(rq *corev1.ResourceQuota) { rq.Status.Used = m.usage(name) })
			}
		},
		"end": func(t *rapid.T) {
			uid, _ := anyMigration(t)
			delete(m.migrations, uid)
		},
		"regular": func(t *rapid.T) {
			name := anyQuota.Draw(t, "quota")
			for r := range m.regular[name] {
				m.regular[name][r] = int64(rapid.IntRange(0, 9).Draw(t, "used"))
			}
			m.countAgain(name)
		},
		"take": func(t *rapid.T) { // all that there is room for
			name := anyQuota.Draw(t, "quota")
			m.edit("tenant/"+name, func(rq *corev1.ResourceQuota) {
				for r := range m.regular[name] {
					room := m.amountOf(rq.Status.Hard, r) - m.amountOf(rq.Status.Used, r)
					if _, counted := rq.Status.Used[r]; counted && room > 0 {
						m.regular[name][r] += room
						rq.Status.Used[r] = rq.Status.Hard[r].DeepCopy()
					}
				}
			})
		},
		"edit": func(t *rapid.T) {
			name := anyQuota.Draw(t, "quota")
			r := rapid.SampledFrom([]corev1.ResourceName{"limits.cpu", "pods"}).Draw(t, "resource")
			n := rapid.IntRange(-1, 9).Draw(t, "limit")
			m.edit("tenant/"+name, func(rq *corev1.ResourceQuota) {
				if n < 0 {
					delete(rq.Spec.Hard, r)
					delete(m.regular[name], r)
					return
				}
				if rq.Spec.Hard == nil {
					rq.Spec.Hard = corev1.ResourceList{}
				}
				rq.Spec.Hard[r] = *resource.NewQuantity(int64(n), resource.DecimalSI)
				m.regular[name][r] += 0 // it is counted from the next recount
			})
		},
		"recreate": func(t *rapid.T) {
			name := anyQuota.Draw(t, "quota")
			rq := m.quota(name)
			delete(m.quotas, "tenant/"+name)
			rq.Annotations, rq.Status = nil, corev1.ResourceQuotaStatus{}
			m.create(rq)
			m.countAgain(name)
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

// rest lets all faults and changes stop, and expects that the writes do, too, whenever Apply
// asks to be called.
func (m *machine) rest() {
	m.refusing, m.lost, m.conflicts = false, false, 0
	m.observe()
	for range 10 { // a refusal that is over, a pause that is over, usage that settles
		m.pass(time.Minute)
		m.call()
	}
	var result applier.Result
	for range 60 {
		result = m.apply()
		if result.RequeueAfter == 0 {
			updates := m.updates
			m.apply()
			require.Equal(m.t, updates, m.updates, "writes without end")
			break
		}
		m.pass(result.RequeueAfter)
	}
}

func TestMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		t.Repeat(m.actions())
		m.rest()

		for _, name := range []string{"", "both", "pods"} {
			m.throw(name, false)
		}
		m.migrations = map[types.UID]*moving{}
		kcm := rapid.Bool().Draw(t, "kube-controller-manager")
		if kcm {
			m.countAgain("both")
			m.countAgain("pods")
		}
		m.rest()
		for _, name := range m.names() {
			rq := m.quota(name)
			for r, q := range rq.Status.Hard {
				require.LessOrEqual(t, q.Cmp(rq.Spec.Hard[r]), 0, "%s of %s is %s", r, name, q.String())
			}
			if kcm {
				require.Equal(t, jsonOf(t, rq.Spec.Hard), jsonOf(t, rq.Status.Hard))
			}
			require.Empty(t, rq.Annotations)
		}
		for _, q := range m.apply().Quotas {
			require.NotEmpty(t, q.Taken)
		}
	})
}
