package configmap

import (
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
	Writer    string      `json:"writer,omitzero"`
}

type share struct {
	Traits traits  `json:"traits,omitzero"`
	Surge  amounts `json:"surge,omitzero"`
	Held   amounts `json:"held,omitzero"`
}

// traits are quota.Traits, field by field: the compiler says if there are others.
type traits struct {
	Terminating                  bool   `json:"terminating,omitzero"`
	BestEffort                   bool   `json:"bestEffort,omitzero"`
	PriorityClass                string `json:"priorityClass,omitzero"`
	CrossNamespacePodAffinity    bool   `json:"crossNamespacePodAffinity,omitzero"`
	Claim                        bool   `json:"claim,omitzero"`
	VolumeAttributesClass        string `json:"volumeAttributesClass,omitzero"`
	CurrentVolumeAttributesClass string `json:"currentVolumeAttributesClass,omitzero"`
	TargetVolumeAttributesClass  string `json:"targetVolumeAttributesClass,omitzero"`
	ResourceClaim                bool   `json:"resourceClaim,omitzero"`
}

// encode returns the key and the value of the entry for m, and the migration that is
// read from it: m, up to what an entry cannot express. The error says what of m is left
// out: amounts that nobody can read again, or all of it, with no value, if it has a UID or a
// time that JSON does not have. Nothing of that kind comes from InFlight.
func encode(m quota.Migration, writer string) (key, value string, read quota.Migration, err error) {
	var lost lost
	e := entry{
		Version:   version,
		UID:       m.UID,
		VMI:       m.VMI,
		State:     m.State.String(),
		Since:     m.Created,
		Priority:  m.Priority,
		Surge:     lost.amounts("surge", m.Surge),
		Held:      lost.amounts("held", m.Held),
		Growth:    lost.amounts("growth", m.Growth),
		Node:      m.Node,
		Over:      m.Over,
		RefusedBy: m.RefusedBy,
		Writer:    writer,
	}
	if m.Shares != nil {
		e.Shares = make([]share, len(m.Shares))
	}
	for i, s := range m.Shares {
		e.Shares[i] = share{Traits: traits(s.Traits), Surge: lost.amounts("surge of a share", s.Surge), Held: lost.amounts("held of a share", s.Held)}
	}
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return "", "", quota.Migration{}, err
	}
	key, value = keyOf(m.UID), string(text)
	if read, err = decode(key, value); err != nil {
		return "", "", quota.Migration{}, err
	}
	return key, value, read, errors.Join(lost...)
}

// decode returns the migration in an entry. It takes only what encode could have made,
// up to white space and the order of fields: one that it does not understand in full is
// one that must not be overwritten.
func decode(key, value string) (quota.Migration, error) {
	var e entry
	strict, err := kjson.UnmarshalStrict([]byte(value), &e)
	if err := errors.Join(append(strict, err)...); err != nil || e.Version != version {
		return quota.Migration{}, refuse(value, err)
	}
	if want := keyOf(e.UID); key != want {
		return quota.Migration{}, fmt.Errorf("a corrupt entry: its uid %q belongs to the key %q", e.UID, want)
	}
	m, err := e.migration()
	if err != nil {
		return quota.Migration{}, fmt.Errorf("a corrupt entry: %w", err)
	}
	return m, nil
}

// refuse says what value is, which could not be decoded, because of err if it is an
// entry of this version.
func refuse(value string, err error) error {
	var of struct {
		Version *int `json:"version"`
	}
	switch notJSON := json.Unmarshal([]byte(value), &of); {
	case notJSON != nil:
		return fmt.Errorf("not an entry of the ledger: %w", notJSON)
	case of.Version == nil:
		return errors.New("not an entry of the ledger: it has no version")
	case *of.Version != version:
		return fmt.Errorf("an entry of version %d, which is not understood; known is %d", *of.Version, version)
	default:
		return fmt.Errorf("a corrupt entry: %w", err)
	}
}

func (e entry) migration() (quota.Migration, error) {
	state, err := parseState(e.State)
	surge, surgeErr := e.Surge.list("surge")
	held, heldErr := e.Held.list("held")
	growth, growthErr := e.Growth.list("growth")
	m := quota.Migration{
		UID:       e.UID,
		VMI:       e.VMI,
		State:     state,
		Surge:     surge,
		Held:      held,
		Growth:    growth,
		Node:      e.Node,
		Over:      e.Over,
		RefusedBy: e.RefusedBy,
		Priority:  e.Priority,
		Created:   metav1.NewTime(e.Since.UTC().Truncate(time.Second)),
	}
	if year := m.Created.Year(); year < 0 || year > 9999 {
		err = errors.Join(err, errors.New("since is out of range"))
	}
	err = errors.Join(err, surgeErr, heldErr, growthErr)
	if e.Shares != nil {
		m.Shares = make([]quota.Share, len(e.Shares))
	}
	for i, s := range e.Shares {
		surge, surgeErr := s.Surge.list("surge of a share")
		held, heldErr := s.Held.list("held of a share")
		m.Shares[i] = quota.Share{Traits: quota.Traits(s.Traits), Surge: surge, Held: held}
		err = errors.Join(err, surgeErr, heldErr)
	}
	return m, err
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

// amounts is a ResourceList as it is written.
type amounts map[corev1.ResourceName]string

// lost are the reasons why amounts are left out.
type lost []error

// amounts returns list as it is written, without what nobody can read again.
func (l *lost) amounts(what string, list corev1.ResourceList) amounts {
	if list == nil {
		return nil
	}
	a := make(amounts, len(list))
	for _, name := range slices.Sorted(maps.Keys(list)) {
		exact := spelling.Exact(list[name])
		text := exact.String()
		if _, err := spelling.Parse(text); err != nil {
			*l = append(*l, fmt.Errorf("%s: %s: %w", what, name, err))
			continue
		}
		a[name] = text
	}
	return a
}

func (a amounts) list(what string) (corev1.ResourceList, error) {
	if a == nil {
		return nil, nil
	}
	l := make(corev1.ResourceList, len(a))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(a)) {
		q, err := spelling.Parse(a[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s %q: %w", what, name, a[name], err))
		}
		l[name] = q
	}
	return l, errors.Join(errs...)
}
