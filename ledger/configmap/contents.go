package configmap

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/quota"
)

// Label is on every ConfigMap of the ledger. Its value is the tenant namespace whose
// migrations are in it.
const Label = "headroom.vmquota.io/namespace"

const prefix = "headroom-"

// Name returns the name of the ConfigMap with the migrations of a tenant namespace. No two
// namespaces have the same.
func Name(namespace string) string { return prefix + namespace }

// Select makes a list or a watch one of the ConfigMaps of the ledger. It is for the
// factory of the informer of [WithInformer], which then caches nothing else:
//
//	informers.WithTweakListOptions(configmap.Select)
func Select(options *metav1.ListOptions) { options.LabelSelector = Label }

// read returns the migrations in configMap, which is nil if there is none, sorted by UID. The
// error is a ledger.ErrPartial with an [Error] for each entry that cannot be read, sorted by key.
func (l *Ledger) read(tenant string, configMap *corev1.ConfigMap) ([]quota.Migration, error) {
	if configMap == nil {
		return nil, nil
	}
	migrations := make([]quota.Migration, 0, len(configMap.Data))
	var unread []error
	keys := slices.AppendSeq(slices.Collect(maps.Keys(configMap.Data)), maps.Keys(configMap.BinaryData))
	slices.Sort(keys)
	for _, key := range keys {
		m, err := decode(key, configMap.Data[key])
		if err != nil {
			unread = append(unread, l.errorAt(tenant, key, err))
			continue
		}
		migrations = append(migrations, m)
	}
	slices.SortFunc(migrations, func(a, b quota.Migration) int { return cmp.Compare(a.UID, b.UID) })
	if unread != nil {
		return migrations, fmt.Errorf("%w: %w", ledger.ErrPartial, errors.Join(unread...))
	}
	return migrations, nil
}

// next returns the ConfigMap that has migrations in it instead of recorded, which is what can
// be read in current. It is nil if there are none, and current itself if nothing changes.
// Migrations is canonical. The error joins what is left out of the record, which keeps
// nothing else out.
func (l *Ledger) next(tenant string, current *corev1.ConfigMap, recorded, migrations []quota.Migration) (*corev1.ConfigMap, error) {
	data := make(map[string]string, len(migrations))
	known := make(map[types.UID]quota.Migration, len(recorded))
	for _, m := range recorded {
		known[m.UID] = m
	}
	var leftOut []error
	for _, m := range migrations {
		key := keyOf(m.UID)
		old, isKnown := known[m.UID]
		if isKnown && same(old, m) {
			data[key] = current.Data[key]
			continue
		}
		value, read, err := encode(m)
		if err != nil {
			leftOut = append(leftOut, l.errorAt(tenant, key, fmt.Errorf("migration %q of VMI %q: left out: %w", m.UID, m.VMI, err)))
		}
		if value != "" && isKnown && same(old, read) {
			value = current.Data[key]
		}
		if value != "" {
			data[key] = value
		}
	}
	if n := shorten(data, migrations); n > 0 {
		leftOut = append(leftOut, l.errorAt(tenant, "", fmt.Errorf("%d migrations are left out: %w", n, ErrTooLarge)))
	}
	err := errors.Join(leftOut...)
	next := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: l.system, Name: Name(tenant)}}
	switch {
	case len(data) == 0:
		return nil, err
	case current == nil:
	case current.Labels[Label] == tenant && maps.Equal(current.Data, data) && len(current.BinaryData) == 0:
		return current, err
	default:
		next = current.DeepCopy()
	}
	next.Data, next.BinaryData = data, nil
	metav1.SetMetaDataLabel(&next.ObjectMeta, Label, tenant)
	return next, err
}

// shorten leaves so many of migrations out of the data of a ConfigMap that it is not too
// large, and returns how many: first those that have not come far, of these the last in turn.
// The API server counts the values, without their keys.
func shorten(data map[string]string, migrations []quota.Migration) (n int) {
	excess := -corev1.MaxSecretSize // which is the limit for a ConfigMap, too
	for _, value := range data {
		excess += len(value)
	}
	if excess <= 0 {
		return 0
	}
	least := slices.SortedFunc(slices.Values(migrations), func(a, b quota.Migration) int {
		return cmp.Or(cmp.Compare(a.State, b.State), quota.ByTurn(b, a))
	})
	for ; excess > 0 && n < len(least); n++ {
		key := keyOf(least[n].UID)
		excess -= len(data[key])
		delete(data, key)
	}
	return n
}

func same(a, b quota.Migration) bool {
	return ledger.Equal([]quota.Migration{a}, []quota.Migration{b})
}
