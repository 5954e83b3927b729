package configmap

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	kjson "sigs.k8s.io/json"

	"github.com/vmquota/headroom/ledger/internal/spelling"
	"github.com/vmquota/headroom/quota"
)

// version is that of the entries that this package writes, and the only one that it
// reads. What an entry says has another meaning in another version. A field that is
// added needs none: a reader that does not know the field refuses the entry anyway.
const version = 1

// An entry is the value of a data key. Nil and empty lists differ.
type entry struct {
	Version   int         `json:"version"`
	UID       types.UID   `json:"uid"`
	VMI       string      `json:"vmi,omitzero"`
	State     string      `json:"state"`
	Since     metav1.Time `json:"since,omitzero"` // Created
	Priority  int32       `json:"priority,omitzero"`
	Surge     amounts     `json:"surge,omitzero"`
	Held      amounts     `json:"held,omitzero"`
	Growth    amounts     `json:"growth,omitzero"`
	Node      string      `json:"node,omitzero"`
	Over      bool        `json:"over,omitzero"`
	RefusedBy string      `json:"refusedBy,omitzero"`
	Shares    []share     `json:"shares,omitzero"`
}

type share struct {
	Traits quota.Traits `json:"traits,omitzero"`
	Surge  amounts      `json:"surge,omitzero"`
	Held   amounts      `json:"held,omitzero"`
}

// amounts is a ResourceList of quantities that anybody may have written.
type amounts corev1.ResourceList

// UnmarshalJSON implements json.Unmarshaler.
func (a *amounts) UnmarshalJSON(value []byte) error {
	var texts map[corev1.ResourceName]string
	errs, err := kjson.UnmarshalStrict(value, &texts)
	if errs = append(errs, err); texts != nil {
		*a = make(amounts, len(texts))
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		q, err := spelling.Parse(texts[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %q: %w", name, texts[name], err))
		}
		(*a)[name] = q
	}
	return errors.Join(errs...)
}

// encode returns the value of the entry for m, and the migration that is read from it: m,
// up to what an entry cannot express. The error says what of m is left out: amounts that
// nobody can read again, or all of it, with no value, if it has a UID or a time that JSON
// does not have. Nothing of that kind comes from InFlight.
func encode(m quota.Migration) (value string, read quota.Migration, err error) {
	var lost []error
	written := func(what string, list corev1.ResourceList) amounts {
		a := amounts(maps.Clone(list))
		for _, name := range slices.Sorted(maps.Keys(a)) {
			exact := spelling.Exact(a[name])
			a[name] = exact
			if _, err := spelling.Parse(exact.String()); err != nil {
				lost = append(lost, fmt.Errorf("%s: %s: %w", what, name, err))
				delete(a, name)
			}
		}
		return a
	}
	e := entry{
		Version:   version,
		UID:       m.UID,
		VMI:       m.VMI,
		State:     m.State.String(),
		Since:     m.Created,
		Priority:  m.Priority,
		Surge:     written("surge", m.Surge),
		Held:      written("held", m.Held),
		Growth:    written("growth", m.Growth),
		Node:      m.Node,
		Over:      m.Over,
		RefusedBy: m.RefusedBy,
	}
	if m.Shares != nil {
		e.Shares = make([]share, len(m.Shares))
	}
	for i, s := range m.Shares {
		e.Shares[i] = share{Traits: s.Traits, Surge: written("surge of a share", s.Surge), Held: written("held of a share", s.Held)}
	}
	text, err := json.MarshalIndent(e, "", "  ")
	if err == nil {
		read, err = decode(keyOf(m.UID), string(text))
	}
	if err != nil {
		return "", quota.Migration{}, err
	}
	return string(text), read, errors.Join(lost...)
}

// decode returns the migration in an entry. It takes only what encode could have made,
// up to white space and the order of fields: one that it does not understand in full is
// one that must not be overwritten.
func decode(key, value string) (quota.Migration, error) {
	var header struct {
		Version *int `json:"version"`
	}
	switch err := json.Unmarshal([]byte(value), &header); {
	case err != nil:
		return quota.Migration{}, fmt.Errorf("not an entry of the ledger: %w", err)
	case header.Version == nil:
		return quota.Migration{}, errors.New("not an entry of the ledger: it has no version")
	case *header.Version != version:
		return quota.Migration{}, fmt.Errorf("an entry of version %d, which is not understood; known is %d", *header.Version, version)
	}
	var e entry
	errs, err := kjson.UnmarshalStrict([]byte(value), &e)
	state, stateErr := parseState(e.State)
	m := quota.Migration{
		UID:       e.UID,
		VMI:       e.VMI,
		State:     state,
		Surge:     corev1.ResourceList(e.Surge),
		Held:      corev1.ResourceList(e.Held),
		Growth:    corev1.ResourceList(e.Growth),
		Node:      e.Node,
		Over:      e.Over,
		RefusedBy: e.RefusedBy,
		Priority:  e.Priority,
		Created:   metav1.NewTime(e.Since.UTC().Truncate(time.Second)),
	}
	if e.Shares != nil {
		m.Shares = make([]quota.Share, len(e.Shares))
	}
	for i, s := range e.Shares {
		m.Shares[i] = quota.Share{Traits: s.Traits, Surge: corev1.ResourceList(s.Surge), Held: corev1.ResourceList(s.Held)}
	}
	if errs = append(errs, err); errors.Join(errs...) == nil { // otherwise there is no more to say
		errs = append(errs, stateErr)
		if year := m.Created.Year(); year < 0 || year > 9999 {
			errs = append(errs, errors.New("since is out of range"))
		}
		if want := keyOf(e.UID); key != want {
			errs = append(errs, fmt.Errorf("its uid %q belongs to the key %q", e.UID, want))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return quota.Migration{}, fmt.Errorf("a corrupt entry: %w", err)
	}
	return m, nil
}

// parseState is the reverse of quota.State.String.
func parseState(s string) (quota.State, error) {
	for _, state := range []quota.State{quota.Queued, quota.Blocked, quota.Charged} {
		if s == state.String() {
			return state, nil
		}
	}
	if number, ok := strings.CutPrefix(s, "State("); ok {
		n, err := strconv.Atoi(strings.TrimSuffix(number, ")"))
		if err == nil && s == quota.State(n).String() {
			return quota.State(n), nil
		}
	}
	return 0, fmt.Errorf("unknown state %q", s)
}

// keyOf returns the data key for uid. Names that the API server generates are used as they
// are. In others, what a key must not have in it is written as _ and two hexadecimal digits
// for each byte, the empty one as _, and one that gets too long for a key as its SHA-256 sum
// behind a dot, which no other key has. So no two UIDs have the same key.
func keyOf(uid types.UID) string {
	if uid == "" {
		return "_"
	}
	var key strings.Builder
	for _, c := range []byte(uid) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
			key.WriteByte(c)
		default:
			fmt.Fprintf(&key, "_%02x", c)
		}
	}
	if key.Len() <= validation.DNS1123SubdomainMaxLength { // which is the limit for a key, too
		return key.String()
	}
	sum := sha256.Sum256([]byte(uid))
	return "sha256." + hex.EncodeToString(sum[:])
}
