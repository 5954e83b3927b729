package rancher

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// MirrorHarvester returns a copy of rq that has, beside the annotations of this library,
// those that Harvester (v1.4.2 and newer) needs to come to the same limits.cpu and
// limits.memory: so that a version of it from before this library, to which somebody
// rolls back in the middle of migrations, neither lowers the limits under them nor
// leaves them raised. A quota that is not raised has none of these annotations.
//
// InFlight are the migrations of the namespace, and uid tells the UID of a VMI; empty if
// the VMI is gone. There is one entry for each VMI with migrations that are charged, then
// blocked, as far as the raise goes. What the entries do not explain is compensation, as
// far as it is memory; of limits.cpu there is none, in Harvester, and none at all before
// v1.9.0.
//
// What Harvester would never remove is not written: the entry of a VMI that is gone, since
// its handler of migrations does nothing without the VMI, and compensation without an
// entry, since the one goes with the other. Such a raise ends with the rollback. Nor is
// what the API server would refuse, beyond 256 KiB in all. HarvesterSkip stays as it is.
// If the annotations of this library cannot be read, nothing changes.
func MirrorHarvester(rq *corev1.ResourceQuota, inFlight []quota.Migration, uid func(vmi string) types.UID) *corev1.ResourceQuota {
	static, err := applier.Static(rq)
	if rq == nil || err != nil {
		return rq.DeepCopy()
	}
	rq = rq.DeepCopy()
	maps.DeleteFunc(rq.Annotations, func(key, _ string) bool { return ofHarvester(key) })
	m := mirror{left: corev1.ResourceList{}, entries: map[string]corev1.ResourceList{}}
	for _, name := range scaled {
		if raise := less(rq.Spec.Hard[name], static[name]); raise.Sign() > 0 {
			m.left[name] = raise
		}
	}
	for _, one := range byTurn(quota.Under(rq, inFlight)) {
		m.take(entryKey(one.VMI, uid), one.Surge)
	}
	m.write(rq)
	if len(rq.Annotations) == 0 {
		rq.Annotations = nil
	}
	return rq
}

// byTurn returns those of migrations that may be granted, in the order in which they are.
func byTurn(migrations []quota.Migration) []quota.Migration {
	migrations = slices.DeleteFunc(quota.Sorted(migrations), func(m quota.Migration) bool { return m.State < quota.Blocked })
	slices.SortStableFunc(migrations, func(a, b quota.Migration) int {
		return cmp.Or(cmp.Compare(b.State, a.State), cmp.Compare(b.Priority, a.Priority), a.Created.Compare(b.Created.Time))
	})
	return migrations
}

// entryKey returns the annotation for a VMI; empty if it is gone, or the key not valid.
func entryKey(vmi string, uid func(vmi string) types.UID) string {
	id := uid(vmi)
	key := HarvesterUIDPrefix + string(id)
	if id == "" || len(utilvalidation.IsQualifiedName(key)) > 0 {
		return ""
	}
	return key
}

// A mirror divides a raise among entries.
type mirror struct {
	left    corev1.ResourceList // of the raise
	entries map[string]corev1.ResourceList
}

// take gives of what is left to the entry key, no more than surge. With the empty key it
// goes to no entry.
func (m mirror) take(key string, surge corev1.ResourceList) {
	for _, name := range scaled {
		part := less(surge[name], less(surge[name], m.left[name]))
		if part.Sign() <= 0 {
			continue
		}
		m.left[name] = less(m.left[name], part)
		if key == "" {
			continue
		}
		if m.entries[key] == nil {
			m.entries[key] = corev1.ResourceList{}
		}
		m.entries[key][name] = plus(m.entries[key][name], part)
	}
}

// write writes the entries to the annotations of rq, as far as they fit, and what is left
// as compensation, if there are entries.
func (m mirror) write(rq *corev1.ResourceQuota) {
	const compensation = 128 // is more than it takes
	size, entries := compensation, 0
	for key, value := range rq.Annotations {
		size += len(key) + len(value)
	}
	for _, key := range slices.Sorted(maps.Keys(m.entries)) {
		value := jsonList(m.entries[key])
		if size += len(key) + len(value); size > validation.TotalAnnotationSizeLimitB {
			m.left[corev1.ResourceLimitsMemory] = plus(m.left[corev1.ResourceLimitsMemory], m.entries[key][corev1.ResourceLimitsMemory])
			continue
		}
		metav1.SetMetaDataAnnotation(&rq.ObjectMeta, key, value)
		entries++
	}
	if memory := m.left[corev1.ResourceLimitsMemory]; memory.Sign() > 0 && entries > 0 {
		metav1.SetMetaDataAnnotation(&rq.ObjectMeta, HarvesterCompensation, jsonList(corev1.ResourceList{corev1.ResourceLimitsMemory: memory}))
	}
}

// jsonList writes a list as Harvester does. Names and quantities are always valid in JSON.
func jsonList(list corev1.ResourceList) string {
	amounts := make(map[corev1.ResourceName]*resource.Quantity, len(list))
	for name, q := range list {
		q := q.DeepCopy()
		amounts[name] = &q
	}
	value, err := json.Marshal(amounts)
	if err != nil {
		return "{}"
	}
	return string(value)
}

// Mirrored returns quotas, with Harvester's annotations (MirrorHarvester) in every update
// of spec.hard or of the annotations: for the applier, for as long as a rollback to a
// Harvester without this library is possible. It costs no writes of its own. Migrations
// are read from record, and uid tells the UID of a VMI.
//
// All other methods are those of quotas.
func Mirrored(quotas typedcorev1.ResourceQuotasGetter, record ledger.Ledger, uid func(namespace, vmi string) types.UID) typedcorev1.ResourceQuotasGetter {
	return &mirrored{ResourceQuotasGetter: quotas, record: record, uid: uid}
}

type mirrored struct {
	typedcorev1.ResourceQuotasGetter
	record ledger.Ledger
	uid    func(namespace, vmi string) types.UID
}

func (m *mirrored) ResourceQuotas(namespace string) typedcorev1.ResourceQuotaInterface {
	return &mirroredQuotas{ResourceQuotaInterface: m.ResourceQuotasGetter.ResourceQuotas(namespace), mirrored: m, namespace: namespace}
}

type mirroredQuotas struct {
	typedcorev1.ResourceQuotaInterface
	*mirrored
	namespace string
}

// Update writes what MirrorHarvester makes of rq.
func (m *mirroredQuotas) Update(ctx context.Context, rq *corev1.ResourceQuota, opts metav1.UpdateOptions) (*corev1.ResourceQuota, error) {
	mirror, err := m.of(ctx, m.namespace, rq)
	if err != nil {
		return nil, err
	}
	return m.ResourceQuotaInterface.Update(ctx, mirror, opts)
}

// of returns the mirror of rq, with what can be read of the ledger.
func (m *mirrored) of(ctx context.Context, namespace string, rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	inFlight, err := m.record.Migrations(ctx, namespace)
	if err != nil && !errors.Is(err, ledger.ErrPartial) {
		return nil, err
	}
	return MirrorHarvester(rq, inFlight, func(vmi string) types.UID { return m.uid(namespace, vmi) }), nil
}
