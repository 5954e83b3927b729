package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// A mutant is the library with one of its mechanisms taken out. That schedules find each of them shows that
// they would find such a defect.
type mutant struct {
	name, lacks string
	embedding   embedding
	policy      *quota.Policy // instead of the run's
}

// whole is the library as it is.
var whole = mutant{name: "nothing"}

var mutants = []mutant{
	{name: "held", lacks: "what a migration holds of the usage", embedding: embedding{ledger: recording(func(m *quota.Migration, _ bool) bool {
		m.State, m.Held = quota.Blocked, nil
		return true
	})}},
	{name: "losing pod", lacks: "the wait for the losing pod: a migration is over when it says so", embedding: embedding{ledger: recording(func(_ *quota.Migration, over bool) bool {
		return !over
	})}},
	{name: "level", lacks: "the level: a migration is over when it was seen to end", embedding: embedding{ledger: func(l ledger.Ledger, caches migration.Caches) ledger.Ledger {
		return edges{l, caches}
	}}},
	{name: "on top", lacks: "the surge of charged migrations that fitted without room being made", embedding: embedding{ledger: func(l ledger.Ledger, caches migration.Caches) ledger.Ledger {
		waited := map[types.UID]bool{}
		return recording(func(m *quota.Migration, _ bool) bool {
			waited[m.UID] = waited[m.UID] || m.State == quota.Blocked
			return m.State != quota.Charged || waited[m.UID]
		})(l, caches)
	}}},
	{name: "lapse", lacks: "the lapse of offers", embedding: embedding{ledger: func(l ledger.Ledger, _ migration.Caches) ledger.Ledger {
		return &renaming{Ledger: l}
	}}},
	{name: "status", lacks: "the owner of spec.hard: the limits are written there", embedding: embedding{quotas: func() quotaSeam {
		return quotaSeam{write: func(rq *corev1.ResourceQuota) { rq.Spec.Hard = rq.Status.Hard }, all: true}
	}}},
	{name: "resourceVersion", lacks: "conflicts: an update carries no resourceVersion", embedding: embedding{quotas: writing(func(rq *corev1.ResourceQuota) {
		rq.ResourceVersion = ""
	})}},
	{name: "floor", lacks: "the floor: limits are lowered to what is used", embedding: embedding{quotas: writing(func(rq *corev1.ResourceQuota) {
		for name, hard := range rq.Status.Hard {
			if static, used := rq.Spec.Hard[name], rq.Status.Used[name]; hard.Cmp(static) == 0 && used.Cmp(static) < 0 {
				rq.Status.Hard[name] = used
			}
		}
	})}},
	{name: "close", lacks: "the end of the announcement of an offer", embedding: embedding{quotas: func() quotaSeam {
		announced := false
		return quotaSeam{write: func(rq *corev1.ResourceQuota) {
			_, announces := rq.Annotations[applier.OfferAnnotation]
			if announced = announced || announces; announced {
				metav1.SetMetaDataAnnotation(&rq.ObjectMeta, applier.OfferAnnotation, "open")
			}
		}}
	}}},
	{name: "put back", lacks: "what a recount resets: the limits are taken to be as they were written", embedding: embedding{quotas: func() quotaSeam {
		written := map[types.UID]corev1.ResourceList{}
		return quotaSeam{
			see: each(func(rq *corev1.ResourceQuota) {
				if hard, ok := written[rq.UID]; ok {
					rq.Status.Hard = hard.DeepCopy()
				}
			}),
			write: func(rq *corev1.ResourceQuota) {
				written[rq.UID] = rq.Status.Hard.DeepCopy()
			},
		}
	}}},
	{name: "edits", lacks: "edits of the static limits: they are what they were at first", embedding: embedding{quotas: func() quotaSeam {
		first := map[types.UID]corev1.ResourceList{}
		return quotaSeam{see: each(func(rq *corev1.ResourceQuota) {
			if _, known := first[rq.UID]; !known {
				first[rq.UID] = rq.Spec.Hard.DeepCopy()
			}
			rq.Spec.Hard = first[rq.UID].DeepCopy()
		})}
	}}},
	{name: "taken", lacks: "what was taken: each time all of the usage was there before", embedding: embedding{quotas: func() quotaSeam {
		calls := 0
		return quotaSeam{
			see: func(quotas []*corev1.ResourceQuota) []*corev1.ResourceQuota {
				calls++
				return each(func(rq *corev1.ResourceQuota) { rq.UID = types.UID(fmt.Sprintf("%s#%d", rq.UID, calls)) })(quotas)
			},
			write: func(rq *corev1.ResourceQuota) {
				uid, _, _ := strings.Cut(string(rq.UID), "#")
				rq.UID = types.UID(uid)
			},
		}
	}}},
	{name: "in the way", lacks: "which quota is in the way: all are raised", embedding: embedding{quotas: func() quotaSeam {
		used := map[string]corev1.ResourceList{}
		return quotaSeam{
			see: each(func(rq *corev1.ResourceQuota) {
				used[rq.ResourceVersion] = rq.Status.Used.DeepCopy()
				if rq.Status.Used == nil {
					return
				}
				for name, hard := range rq.Spec.Hard {
					if q := rq.Status.Used[name]; q.Cmp(hard) < 0 {
						rq.Status.Used[name] = hard
					}
				}
			}),
			write: func(rq *corev1.ResourceQuota) {
				if really, known := used[rq.ResourceVersion]; known {
					rq.Status.Used = really
				}
			},
		}
	}}},
	{name: "all quotas", lacks: "all quotas but the first", embedding: embedding{quotas: func() quotaSeam {
		return quotaSeam{see: func(quotas []*corev1.ResourceQuota) []*corev1.ResourceQuota { return quotas[:min(len(quotas), 1)] }}
	}}},
	{name: "lift", lacks: "usage above static that lifts the limit", policy: &quota.Policy{Strict: true}},
	{name: "nudge", lacks: "the nudge", embedding: embedding{noNudge: true}},
	{name: "refusals", lacks: "what refusals say of the target pod", embedding: embedding{noEvents: true}},
	{name: "budget", lacks: "the policy", policy: &quota.Policy{}},
}

// A recorder changes what is recorded.
type recorder struct {
	ledger.Ledger
	caches migration.Caches
	// change reports whether to record a migration at all. Over says that its VMIM has ended.
	change func(m *quota.Migration, over bool) bool
}

func recording(change func(m *quota.Migration, over bool) bool) func(ledger.Ledger, migration.Caches) ledger.Ledger {
	return func(l ledger.Ledger, caches migration.Caches) ledger.Ledger { return recorder{l, caches, change} }
}

// Replace implements ledger.Ledger.
func (r recorder) Replace(ctx context.Context, namespace string, migrations []quota.Migration) error {
	over, err := ended(ctx, r.caches, namespace)
	if err != nil {
		return err
	}
	var changed []quota.Migration
	for _, m := range migrations {
		if r.change(&m, over[m.UID]) {
			changed = append(changed, m)
		}
	}
	return r.Ledger.Replace(ctx, namespace, changed)
}

// ended returns which VMIMs say that they have ended.
func ended(ctx context.Context, caches migration.Caches, namespace string) (map[types.UID]bool, error) {
	over := map[types.UID]bool{}
	vmims, err := caches.Migrations(ctx, namespace)
	for _, vmim := range vmims {
		over[vmim.UID] = vmim.IsFinal()
	}
	return over, err
}

// edges keeps each migration until its end is seen.
type edges struct {
	ledger.Ledger
	caches migration.Caches
}

// Replace implements ledger.Ledger.
func (e edges) Replace(ctx context.Context, namespace string, migrations []quota.Migration) error {
	recorded, err := e.Migrations(ctx, namespace)
	if err != nil {
		return err
	}
	over, err := ended(ctx, e.caches, namespace)
	if err != nil {
		return err
	}
	next := slices.Clone(migrations)
	for _, m := range recorded {
		if !over[m.UID] && !slices.ContainsFunc(migrations, func(other quota.Migration) bool { return other.UID == m.UID }) {
			next = append(next, m)
		}
	}
	return e.Ledger.Replace(ctx, namespace, next)
}

// renaming gives migrations that wait another UID each time, so that each time there is a new offer.
type renaming struct {
	ledger.Ledger
	calls int
}

// Migrations implements ledger.Ledger.
func (r *renaming) Migrations(ctx context.Context, namespace string) ([]quota.Migration, error) {
	r.calls++
	migrations, err := r.Ledger.Migrations(ctx, namespace)
	for i, m := range migrations {
		if m.State < quota.Charged {
			migrations[i].UID = types.UID(fmt.Sprintf("%s#%d", m.UID, r.calls))
		}
	}
	return migrations, err
}

// A quotaSeam changes what is seen and what is written of the quotas; nil: nothing. Each life of a process has
// its own.
type quotaSeam struct {
	see   func([]*corev1.ResourceQuota) []*corev1.ResourceQuota // may change all that it is given
	write func(*corev1.ResourceQuota)
	all   bool // is written, not only the status
}

// writing changes how quotas are written.
func writing(write func(*corev1.ResourceQuota)) func() quotaSeam {
	return func() quotaSeam { return quotaSeam{write: write} }
}

// each changes every quota.
func each(change func(*corev1.ResourceQuota)) func([]*corev1.ResourceQuota) []*corev1.ResourceQuota {
	return func(quotas []*corev1.ResourceQuota) []*corev1.ResourceQuota {
		for _, rq := range quotas {
			change(rq)
		}
		return quotas
	}
}

// list returns the quotas of a cache as they are seen.
func (s quotaSeam) list(from migration.List[corev1.ResourceQuota]) migration.List[corev1.ResourceQuota] {
	if s.see == nil {
		return from
	}
	return func(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
		cached, err := from(ctx, namespace)
		quotas := make([]*corev1.ResourceQuota, 0, len(cached))
		for _, rq := range cached {
			quotas = append(quotas, rq.DeepCopy())
		}
		slices.SortFunc(quotas, func(a, b *corev1.ResourceQuota) int { return strings.Compare(a.Name, b.Name) })
		return s.see(quotas), err
	}
}

// client returns a client that reads and writes quotas as s says.
func (s quotaSeam) client(client kubernetes.Interface) kubernetes.Interface {
	changed := &kubefake.Clientset{}
	changed.AddReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if update, is := action.(clienttesting.UpdateActionImpl); is && s.write != nil {
			if rq, is := update.Object.(*corev1.ResourceQuota); is {
				rq = rq.DeepCopy()
				s.write(rq)
				update.Object = rq
				if s.all {
					update.Subresource = ""
				}
				action = update
			}
		}
		answer, err := client.(*kubefake.Clientset).Invokes(action, nil) //nolint:forcetypeassert // package fake has no other
		if rq, is := answer.(*corev1.ResourceQuota); is && err == nil && s.see != nil {
			s.see([]*corev1.ResourceQuota{rq})
		}
		return true, answer, err
	})
	return changed
}
