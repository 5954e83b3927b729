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

// contents is what the ConfigMap of a namespace says. The zero value is that of none.
type contents struct {
	migrations []quota.Migration // those that could be read, sorted by UID
	unread     []*Error          // sorted by key
	foreign    []string          // keys that are none of a UID, sorted
}

// A place is where the record of a tenant namespace is.
type place struct {
	tenant string
	system string
}

func (p place) name() string { return Name(p.tenant) }

// errorOf returns err as an *Error, and nil as nil.
func (p place) errorOf(err error) error {
	if err == nil {
		return nil
	}
	return p.keyError("", err)
}

func (p place) keyError(key string, err error) *Error {
	return &Error{Namespace: p.tenant, ConfigMap: p.system + "/" + p.name(), Key: key, Err: err}
}

// read returns what is in configMap, which is nil if there is none.
func (p place) read(configMap *corev1.ConfigMap) contents {
	if configMap == nil {
		return contents{}
	}
	c := contents{migrations: make([]quota.Migration, 0, len(configMap.Data))}
	for key, value := range configMap.Data {
		if !isKey(key) {
			c.foreign = append(c.foreign, key)
			continue
		}
		m, err := decode(key, value)
		if err != nil {
			c.unread = append(c.unread, p.keyError(key, err))
			continue
		}
		c.migrations = append(c.migrations, m)
	}
	for key := range configMap.BinaryData {
		if !isKey(key) {
			c.foreign = append(c.foreign, key)
			continue
		}
		c.unread = append(c.unread, p.keyError(key, errors.New("not an entry of the ledger: it is binary")))
	}
	slices.SortFunc(c.migrations, func(a, b quota.Migration) int { return cmp.Compare(a.UID, b.UID) })
	slices.SortFunc(c.unread, func(a, b *Error) int { return cmp.Compare(a.Key, b.Key) })
	slices.Sort(c.foreign)
	return c
}

// next returns the ConfigMap that has migrations in it, and all that is foreign in current,
// whose contents are c. It is nil if nothing is left, and current itself if nothing changes.
// Migrations is canonical. The error joins what is left out of the record, which keeps
// nothing else out.
func (p place) next(current *corev1.ConfigMap, c contents, migrations []quota.Migration, writer string) (*corev1.ConfigMap, error) {
	data, binary := map[string]string{}, map[string][]byte{}
	for _, key := range c.foreign {
		if value, ok := current.Data[key]; ok {
			data[key] = value
		} else {
			binary[key] = current.BinaryData[key]
		}
	}
	recorded := make(map[types.UID]*quota.Migration, len(c.migrations))
	for i := range c.migrations {
		recorded[c.migrations[i].UID] = &c.migrations[i]
	}
	var leftOut []error
	for _, m := range migrations {
		old, known := recorded[m.UID]
		if known && same(*old, m) {
			data[keyOf(m.UID)] = current.Data[keyOf(m.UID)]
			continue
		}
		key, value, read, err := encode(m, writer)
		if err != nil {
			leftOut = append(leftOut, p.keyError(keyOf(m.UID), fmt.Errorf("migration %q of VMI %q: left out: %w", m.UID, m.VMI, err)))
		}
		switch {
		case value == "":
		case known && same(*old, read):
			data[key] = current.Data[key]
		default:
			data[key] = value
		}
	}
	if n := shorten(data, binary, migrations); n > 0 {
		leftOut = append(leftOut, p.errorOf(fmt.Errorf("%d migrations are left out: %w", n, ErrTooLarge)))
	}
	err := errors.Join(leftOut...)
	switch {
	case len(data)+len(binary) == 0:
		return nil, err
	case current != nil && current.Labels[Label] == p.tenant && maps.Equal(current.Data, data) && len(current.BinaryData) == len(binary):
		return current, err
	}
	next := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: p.system, Name: p.name()}}
	if current != nil {
		next = current.DeepCopy()
	}
	next.Data, next.BinaryData = data, binary
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	next.Labels[Label] = p.tenant
	return next, err
}

// shorten leaves so many of migrations out of the data of a ConfigMap that it is not too
// large, and returns how many: first those that have not come far, of these the last in turn.
// The API server counts the values, without their keys.
func shorten(data map[string]string, binary map[string][]byte, migrations []quota.Migration) int {
	excess := -corev1.MaxSecretSize // which is the limit for a ConfigMap, too
	for _, value := range data {
		excess += len(value)
	}
	for _, value := range binary {
		excess += len(value)
	}
	if excess <= 0 {
		return 0
	}
	least := slices.SortedFunc(slices.Values(migrations), func(a, b quota.Migration) int {
		return cmp.Or(cmp.Compare(a.State, b.State), quota.ByTurn(b, a))
	})
	n := 0
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
