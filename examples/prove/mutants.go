package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// A mutant is the library with one of its mechanisms taken out. That schedules find each
// of them shows that they would find such a defect.
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
	{name: "one update", lacks: "the one update: the static limits are recorded after the raise", embedding: embedding{quotas: writing(func(ctx context.Context, client typedcorev1.ResourceQuotaInterface, rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
		first, err := client.Get(ctx, rq.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		first.Spec.Hard, first.ResourceVersion = rq.Spec.Hard, rq.ResourceVersion
		if first, err = client.Update(ctx, first, metav1.UpdateOptions{}); err != nil {
			return nil, err
		}
		rq.ResourceVersion = first.ResourceVersion
		return client.Update(ctx, rq, metav1.UpdateOptions{})
	})}},
	{name: "resourceVersion", lacks: "conflicts: an update carries no resourceVersion", embedding: embedding{quotas: writing(func(ctx context.Context, client typedcorev1.ResourceQuotaInterface, rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
		rq.ResourceVersion = ""
		return client.Update(ctx, rq, metav1.UpdateOptions{})
	})}},
	{name: "rebase", lacks: "the rebase: what others change while a quota is raised is not seen", embedding: embedding{
		list: seeing(func(quotas []*corev1.ResourceQuota) []*corev1.ResourceQuota {
			for i, rq := range quotas {
				var applied corev1.ResourceList
				if json.Unmarshal([]byte(rq.Annotations[applier.AppliedAnnotation]), &applied) == nil {
					quotas[i] = rq.DeepCopy()
					quotas[i].Spec.Hard = applied
				}
			}
			return quotas
		}),
	}},
	{name: "all quotas", lacks: "all quotas but the first", embedding: embedding{list: seeing(func(quotas []*corev1.ResourceQuota) []*corev1.ResourceQuota {
		return quotas[:min(len(quotas), 1)]
	})}},
	{name: "pauses", lacks: "the pauses after resets", embedding: embedding{forgetful: true}},
	{name: "nudge", lacks: "the nudge", embedding: embedding{noNudge: true}},
	{name: "refusals", lacks: "what refusals say of the target pod", embedding: embedding{noEvents: true}},
	{name: "budget", lacks: "the policy", policy: &quota.Policy{}},
}

// A recorder changes what is recorded.
type recorder struct {
	ledger.Ledger
	caches migration.Caches
	// change reports whether to record a migration at all. Over says that its VMIM has
	// ended.
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

// An update writes a quota in some way.
type update func(ctx context.Context, client typedcorev1.ResourceQuotaInterface, rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error)

// A writer changes how quotas are written.
type writer struct {
	typedcorev1.ResourceQuotaInterface
	update update
}

type writers struct {
	typedcorev1.ResourceQuotasGetter
	update update
}

func writing(update update) func(typedcorev1.ResourceQuotasGetter) typedcorev1.ResourceQuotasGetter {
	return func(g typedcorev1.ResourceQuotasGetter) typedcorev1.ResourceQuotasGetter { return writers{g, update} }
}

// ResourceQuotas implements typedcorev1.ResourceQuotasGetter.
func (w writers) ResourceQuotas(namespace string) typedcorev1.ResourceQuotaInterface {
	return writer{w.ResourceQuotasGetter.ResourceQuotas(namespace), w.update}
}

// Update implements typedcorev1.ResourceQuotaInterface.
func (w writer) Update(ctx context.Context, rq *corev1.ResourceQuota, _ metav1.UpdateOptions) (*corev1.ResourceQuota, error) {
	return w.update(ctx, w.ResourceQuotaInterface, rq.DeepCopy())
}

// seeing changes what is seen of the quotas.
func seeing(change func([]*corev1.ResourceQuota) []*corev1.ResourceQuota) func(migration.List[corev1.ResourceQuota]) migration.List[corev1.ResourceQuota] {
	return func(from migration.List[corev1.ResourceQuota]) migration.List[corev1.ResourceQuota] {
		return func(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
			quotas, err := from(ctx, namespace)
			if err != nil {
				return nil, err
			}
			slices.SortFunc(quotas, func(a, b *corev1.ResourceQuota) int { return strings.Compare(a.Name, b.Name) })
			return change(quotas), nil
		}
	}
}
