package configmap

import (
	"cmp"
	"errors"
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
		m, err := decode(key, value)
		if err != nil {
			c.unread = append(c.unread, p.keyError(key, err))
			continue
		}
		c.migrations = append(c.migrations, m)
	}
	for key := range configMap.BinaryData {
		c.unread = append(c.unread, p.keyError(key, errors.New("not an entry of the ledger: it is binary")))
	}
	slices.SortFunc(c.migrations, func(a, b quota.Migration) int { return cmp.Compare(a.UID, b.UID) })
	slices.SortFunc(c.unread, func(a, b *Error) int { return cmp.Compare(a.Key, b.Key) })
	return c
}

// next returns the ConfigMap that has migrations in it, and all that could not be read
// in current, whose contents are c. It is nil if nothing is left, and current itself if
// nothing changes. Migrations is canonical.
func (p place) next(current *corev1.ConfigMap, c contents, migrations []quota.Migration, writer string) (*corev1.ConfigMap, error) {
	unread := map[string]bool{}
	data := map[string]string{}
	for _, e := range c.unread {
		unread[e.Key] = true
		if value, ok := current.Data[e.Key]; ok {
			data[e.Key] = value
		}
	}
	recorded := make(map[types.UID]*quota.Migration, len(c.migrations))
	for i := range c.migrations {
		recorded[c.migrations[i].UID] = &c.migrations[i]
	}
	for _, m := range migrations {
		key := keyOf(m.UID)
		if unread[key] {
			continue
		}
		old, known := recorded[m.UID]
		if known && same(*old, m) {
			data[key] = current.Data[key]
			continue
		}
		key, value, read, err := encode(m, writer)
		if err != nil {
			return nil, p.keyError(key, err)
		}
		if known && same(*old, read) {
			value = current.Data[key]
		}
		data[key] = value
	}
	switch {
	case len(data) == 0 && (current == nil || len(current.BinaryData) == 0):
		return nil, nil
	case current != nil && current.Labels[Label] == p.tenant && maps.Equal(current.Data, data):
		return current, nil
	}
	next := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: p.system, Name: p.name()}}
	if current != nil {
		next = current.DeepCopy()
	}
	next.Data = data
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	next.Labels[Label] = p.tenant
	if size(next) > corev1.MaxSecretSize { // which is the limit for a ConfigMap, too
		return nil, p.errorOf(ErrTooLarge)
	}
	return next, nil
}

func same(a, b quota.Migration) bool {
	return ledger.Equal([]quota.Migration{a}, []quota.Migration{b})
}

// size is what the API server compares with the limit: the values, without their keys.
func size(configMap *corev1.ConfigMap) int {
	n := 0
	for _, value := range configMap.Data {
		n += len(value)
	}
	for _, value := range configMap.BinaryData {
		n += len(value)
	}
	return n
}
