package ledgertest

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/quota"
)

// stateMachine is the state machine on schedules that are always the same, and
// without rapid's shrinking and its files.
var stateMachine = check{"StateMachine", func(open opener) error {
	for seed := range 40 {
		if err := play(open(), schedules().Example(seed)); err != nil {
			return err
		}
	}
	return nil
}}

// A plain ledger is correct; each of its parts can be replaced by a broken one.
type plain struct {
	mu          sync.Mutex
	byNamespace map[string][]quota.Migration
	written     int

	check func(ctx context.Context, namespace string) error
	key   func(namespace string) string
	in    func([]quota.Migration) []quota.Migration // from the caller to the store
	out   func([]quota.Migration) []quota.Migration // from the store to the caller
	equal func(a, b []quota.Migration) bool
	write func(l *plain, key string, migrations []quota.Migration)
	read  func(l *plain, key string) ([]quota.Migration, error)
}

func newPlain() *plain {
	return &plain{
		byNamespace: map[string][]quota.Migration{},
		check: func(ctx context.Context, namespace string) error {
			if ctx.Err() == nil && namespace == "" {
				return ledger.ErrNoNamespace
			}
			return ctx.Err()
		},
		key:   func(namespace string) string { return namespace },
		in:    ledger.Canonical,
		out:   ledger.Canonical,
		equal: ledger.Equal,
		write: func(l *plain, key string, migrations []quota.Migration) {
			l.byNamespace[key] = migrations
		},
		read: func(l *plain, key string) ([]quota.Migration, error) { return l.byNamespace[key], nil },
	}
}

func (l *plain) Migrations(ctx context.Context, namespace string) ([]quota.Migration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(ctx, namespace); err != nil {
		return nil, err
	}
	migrations, err := l.read(l, l.key(namespace))
	return l.out(migrations), err
}

func (l *plain) Replace(ctx context.Context, namespace string, migrations []quota.Migration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.check(ctx, namespace); err != nil {
		return err
	}
	migrations, key := l.in(migrations), l.key(namespace)
	if !l.equal(l.byNamespace[key], migrations) {
		l.written++
		l.write(l, key, migrations)
	}
	return nil
}

func (l *plain) Writes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written
}

// A mutant is a ledger that breaks the contract, and the checks that find it.
type mutant struct {
	name    string
	by      []string
	corrupt func(l *plain)
}

// stored returns a mutation of what Replace stores. It is applied to each migration.
func stored(f func(m *quota.Migration)) func(*plain) {
	return func(l *plain) {
		l.in = func(migrations []quota.Migration) []quota.Migration {
			migrations = ledger.Canonical(migrations)
			for i := range migrations {
				f(&migrations[i])
			}
			return migrations
		}
	}
}

// amounts returns a mutation of every amount.
func amounts(f func(q resource.Quantity) resource.Quantity) func(*plain) {
	return stored(func(m *quota.Migration) {
		for _, l := range []corev1.ResourceList{m.Surge, m.Held, m.Growth} {
			for name, q := range l {
				l[name] = f(q)
			}
		}
	})
}

// blind returns a ledger that does not look at what f removes when it looks for a change.
func blind(f func(m *quota.Migration)) func(*plain) {
	return func(l *plain) {
		without := func(migrations []quota.Migration) []quota.Migration {
			migrations = ledger.Canonical(migrations)
			for i := range migrations {
				f(&migrations[i])
			}
			return migrations
		}
		l.equal = func(a, b []quota.Migration) bool { return ledger.Equal(without(a), without(b)) }
	}
}

func shared(migrations []quota.Migration) []quota.Migration {
	return slices.SortedFunc(slices.Values(migrations), byUID)
}

// shallow copies slices and maps, but not what is in a Quantity.
func shallow(migrations []quota.Migration) []quota.Migration {
	migrations = shared(migrations)
	for i := range migrations {
		m := &migrations[i]
		m.Surge, m.Held, m.Shares = maps.Clone(m.Surge), maps.Clone(m.Held), slices.Clone(m.Shares)
		m.Growth = maps.Clone(m.Growth)
		for j := range m.Shares {
			m.Shares[j].Surge, m.Shares[j].Held = maps.Clone(m.Shares[j].Surge), maps.Clone(m.Shares[j].Held)
		}
	}
	return migrations
}

// keeping returns an in that keeps the first of duplicates in the order of less.
func keeping(order func(a, b quota.Migration) int) func(*plain) {
	return func(l *plain) {
		l.in = func(migrations []quota.Migration) []quota.Migration {
			c := copies(migrations)
			slices.SortStableFunc(c, func(a, b quota.Migration) int {
				if a.UID != b.UID {
					return byUID(a, b)
				}
				return order(a, b)
			})
			return ledger.Canonical(slices.CompactFunc(c, func(a, b quota.Migration) bool { return a.UID == b.UID }))
		}
	}
}

var errNotFound = errors.New("not found")

var mutants = []mutant{
	{"an error for none", []string{"ReplacesTheWhole"}, func(l *plain) {
		l.read = func(l *plain, key string) ([]quota.Migration, error) {
			if len(l.byNamespace[key]) == 0 {
				return nil, errNotFound
			}
			return l.byNamespace[key], nil
		}
	}},
	{"nil writes nothing", []string{"ReplacesTheWhole", "NamespacesIsolated", "StateMachine"}, func(l *plain) {
		l.write = func(l *plain, key string, migrations []quota.Migration) {
			if len(migrations) > 0 {
				l.byNamespace[key] = migrations
			}
		}
	}},
	{"adds only", []string{"ReplacesTheWhole", "StateMachine"}, func(l *plain) {
		l.write = func(l *plain, key string, migrations []quota.Migration) {
			l.byNamespace[key] = ledger.Canonical(append(migrations, l.byNamespace[key]...))
		}
	}},
	{"replaces only once", []string{"ReplacesTheWhole", "ChangesAreSeen"}, func(l *plain) {
		l.write = func(l *plain, key string, migrations []quota.Migration) {
			if _, ok := l.byNamespace[key]; !ok {
				l.byNamespace[key] = migrations
			}
		}
	}},
	{"reads a stale copy", []string{"ReplacesTheWhole", "ConcurrentWriters"}, func(l *plain) {
		stale := map[string][]quota.Migration{}
		l.write = func(l *plain, key string, migrations []quota.Migration) {
			stale[key] = l.byNamespace[key]
			l.byNamespace[key] = migrations
		}
		l.read = func(_ *plain, key string) ([]quota.Migration, error) { return stale[key], nil }
	}},
	{"in reverse order", []string{"AnyUID", "ReplacesTheWhole"}, func(l *plain) {
		l.out = func(migrations []quota.Migration) []quota.Migration {
			migrations = ledger.Canonical(migrations)
			slices.Reverse(migrations)
			return migrations
		}
	}},
	{"in the caller's order", []string{"AnyUID"}, func(l *plain) { l.in, l.out = copies, copies }},
	{"sorted without case", []string{"AnyUID"}, func(l *plain) {
		l.out = func(migrations []quota.Migration) []quota.Migration {
			return slices.SortedFunc(slices.Values(copies(migrations)), func(a, b quota.Migration) int {
				return strings.Compare(strings.ToLower(string(a.UID)), strings.ToLower(string(b.UID)))
			})
		}
	}},

	{"empty Held for nil", []string{"FieldsSurvive", "StateMachine"}, stored(func(m *quota.Migration) {
		if m.Held == nil {
			m.Held = list()
		}
	})},
	{"nil Held for an empty one", []string{"FieldsSurvive", "StateMachine"}, stored(func(m *quota.Migration) {
		if len(m.Held) == 0 {
			m.Held = nil
		}
	})},
	{"Created to the minute", []string{"FieldsSurvive"}, stored(func(m *quota.Migration) {
		m.Created = metav1.NewTime(m.Created.Truncate(time.Minute))
	})},
	{"1970 for no Created", []string{"FieldsSurvive"}, stored(func(m *quota.Migration) {
		if m.Created.IsZero() {
			m.Created = metav1.Unix(0, 0)
		}
	})},
	{"nil Shares for empty ones", []string{"FieldsSurvive", "StateMachine"}, stored(func(m *quota.Migration) {
		if len(m.Shares) == 0 {
			m.Shares = nil
		}
	})},
	{"zeros are absent", []string{"FieldsSurvive", "StateMachine"}, stored(func(m *quota.Migration) {
		maps.DeleteFunc(m.Surge, func(_ corev1.ResourceName, q resource.Quantity) bool { return q.IsZero() })
	})},
	{"amounts are int64", []string{"FieldsSurvive", "StateMachine"}, amounts(func(q resource.Quantity) resource.Quantity {
		return *resource.NewQuantity(q.Value(), q.Format) //nolint:forbidigo // the fault of this mutant
	})},
	{"amounts are thousandths", []string{"FieldsSurvive", "StateMachine"}, amounts(func(q resource.Quantity) resource.Quantity {
		return *resource.NewMilliQuantity(q.MilliValue(), q.Format) //nolint:forbidigo // the fault of this mutant
	})},
	{"amounts are floats", []string{"FieldsSurvive", "StateMachine"}, amounts(func(q resource.Quantity) resource.Quantity {
		return *resource.NewQuantity(int64(q.AsApproximateFloat64()), q.Format)
	})},
	{"decimal amounts", []string{"FieldsSurvive"}, amounts(func(q resource.Quantity) resource.Quantity {
		q.Add(resource.Quantity{}) // drops the spelling
		q.Format = resource.DecimalSI
		return q
	})},

	{"lower-case UIDs", []string{"AnyUID"}, stored(func(m *quota.Migration) { m.UID = types.UID(strings.ToLower(string(m.UID))) })},
	{"trimmed UIDs", []string{"AnyUID"}, stored(func(m *quota.Migration) { m.UID = types.UID(strings.TrimSpace(string(m.UID))) })},
	{"UIDs of 253 bytes", []string{"AnyUID"}, stored(func(m *quota.Migration) { m.UID = m.UID[:min(len(m.UID), 253)] })},
	{"no empty UID", []string{"AnyUID", "StateMachine"}, func(l *plain) {
		l.in = func(migrations []quota.Migration) []quota.Migration {
			return slices.DeleteFunc(ledger.Canonical(migrations), func(m quota.Migration) bool { return m.UID == "" })
		}
	}},

	{"keeps duplicates", []string{"DuplicateOnce", "StateMachine"}, func(l *plain) { l.in, l.out = shared, copies }},
	{"the first duplicate", []string{"DuplicateOnce", "StateMachine"}, keeping(func(_, _ quota.Migration) int { return 0 })},
	{"the duplicate of the greater state, then the first", []string{"DuplicateOnce"}, keeping(func(a, b quota.Migration) int {
		return int(b.State - a.State)
	})},
	{"the duplicate of the lesser state", []string{"DuplicateOnce", "StateMachine"}, keeping(func(a, b quota.Migration) int {
		return int(a.State - b.State)
	})},

	{"takes nil and empty Held for equal", []string{"ChangesAreSeen", "StateMachine"}, blind(func(m *quota.Migration) {
		if len(m.Held) == 0 {
			m.Held = nil
		}
	})},
	{"takes nil and empty Shares for equal", []string{"ChangesAreSeen"}, blind(func(m *quota.Migration) {
		if len(m.Shares) == 0 {
			m.Shares = nil
		}
	})},
	{"takes records of the same length for equal", []string{"ReplacesTheWhole", "ChangesAreSeen"}, func(l *plain) {
		l.equal = func(a, b []quota.Migration) bool { return len(a) == len(b) }
	}},

	{"always writes", []string{"WritesNothingWhenEqual", "StateMachine"}, func(l *plain) {
		l.equal = func(_, _ []quota.Migration) bool { return false }
	}},
	{"writes none for none", []string{"WritesNothingWhenEqual", "StateMachine"}, func(l *plain) {
		l.equal = func(a, b []quota.Migration) bool { return len(a) > 0 && ledger.Equal(a, b) }
	}},
	{"compares spellings", []string{"WritesNothingWhenEqual", "StateMachine"}, func(l *plain) {
		l.equal = func(a, b []quota.Migration) bool { return difference(a, b, bySpelling) == "" }
	}},
	{"compares memory", []string{"WritesNothingWhenEqual"}, func(l *plain) {
		l.equal = func(a, b []quota.Migration) bool { return reflect.DeepEqual(a, b) } //nolint:forbidigo // the fault of this mutant
	}},
	{"compares before it sorts", []string{"WritesNothingWhenEqual"}, func(l *plain) {
		l.in = copies
		l.equal = func(a, b []quota.Migration) bool { return difference(a, b, byAmount) == "" }
	}},
	{"compares fractions of seconds", []string{"WritesNothingWhenEqual", "StateMachine"}, func(l *plain) {
		l.in = shared
		l.equal = func(a, b []quota.Migration) bool {
			return ledger.Equal(a, b) && slices.EqualFunc(a, b, func(a, b quota.Migration) bool { return a.Created.Equal(&b.Created) })
		}
	}},
	{"never counts", []string{"WritesNothingWhenEqual", "StateMachine"}, func(l *plain) {
		l.write = func(l *plain, key string, migrations []quota.Migration) {
			l.byNamespace[key], l.written = migrations, 0
		}
	}},

	{"keeps its input", []string{"SharesNothing"}, func(l *plain) { l.in = shared }},
	{"keeps its input's quantities", []string{"SharesNothing"}, func(l *plain) { l.in = shallow }},
	{"sorts its input", []string{"SharesNothing"}, func(l *plain) {
		l.in = func(migrations []quota.Migration) []quota.Migration {
			slices.SortFunc(migrations, byUID)
			return ledger.Canonical(migrations)
		}
	}},
	{"keeps its input's shares", []string{"SharesNothing"}, func(l *plain) {
		l.in = func(migrations []quota.Migration) []quota.Migration {
			c := ledger.Canonical(migrations)
			for i, m := range shared(migrations) {
				if len(c) == len(migrations) {
					c[i].Shares = m.Shares
				}
			}
			return c
		}
	}},
	{"returns its own", []string{"SharesNothing"}, func(l *plain) {
		l.out = func(migrations []quota.Migration) []quota.Migration { return migrations }
	}},
	{"returns its own maps", []string{"SharesNothing"}, func(l *plain) { l.out = shared }},
	{"returns its own quantities", []string{"SharesNothing"}, func(l *plain) { l.out = shallow }},
	{"returns the same copy to all", []string{"SharesNothing"}, func(l *plain) {
		results := map[*quota.Migration][]quota.Migration{}
		l.out = func(migrations []quota.Migration) []quota.Migration {
			if len(migrations) == 0 {
				return nil
			}
			if results[&migrations[0]] == nil {
				results[&migrations[0]] = ledger.Canonical(migrations)
			}
			return results[&migrations[0]]
		}
	}},

	{"one namespace", []string{"NamespacesIsolated", "StateMachine"}, func(l *plain) {
		l.key = func(string) string { return "" }
	}},
	{"62 characters of a namespace", []string{"NamespacesIsolated"}, func(l *plain) {
		l.key = func(namespace string) string { return namespace[:min(len(namespace), 62)] }
	}},
	{"namespaces without dashes", []string{"NamespacesIsolated"}, func(l *plain) {
		l.key = func(namespace string) string { return strings.ReplaceAll(namespace, "--", "-") }
	}},
	{"the empty namespace", []string{"RefusesCalls"}, func(l *plain) {
		l.check = func(ctx context.Context, _ string) error { return ctx.Err() }
	}},
	{"another error for the empty namespace", []string{"RefusesCalls"}, func(l *plain) {
		l.check = func(ctx context.Context, namespace string) error {
			if namespace == "" {
				return errNotFound
			}
			return ctx.Err()
		}
	}},

	{"no look at the context", []string{"RefusesCalls"}, func(l *plain) {
		l.check = func(_ context.Context, namespace string) error {
			if namespace == "" {
				return ledger.ErrNoNamespace
			}
			return nil
		}
	}},
	{"another error for the context", []string{"RefusesCalls"}, func(l *plain) {
		check := l.check
		l.check = func(ctx context.Context, namespace string) error {
			if ctx.Err() != nil {
				return errNotFound
			}
			return check(ctx, namespace)
		}
	}},
	{"a write in spite of the context", []string{"RefusesCalls"}, func(l *plain) {
		check := l.check
		l.check = func(ctx context.Context, namespace string) error {
			if ctx.Err() != nil {
				l.written++
			}
			return check(ctx, namespace)
		}
	}},

	{"writes a half, then the other", []string{"ConcurrentWriters"}, func(l *plain) {
		l.write = func(l *plain, key string, migrations []quota.Migration) {
			l.byNamespace[key] = migrations[:len(migrations)/2]
			pause(l)
			l.byNamespace[key] = migrations
		}
	}},
	{"loses the write of another namespace", []string{"ConcurrentWriters"}, func(l *plain) {
		l.write = func(l *plain, key string, migrations []quota.Migration) {
			next := maps.Clone(l.byNamespace)
			pause(l)
			next[key] = migrations
			l.byNamespace = next
		}
	}},
}

// pause lets other writers in.
func pause(l *plain) {
	l.mu.Unlock()
	time.Sleep(time.Millisecond)
	l.mu.Lock()
}

func TestPlainPasses(t *testing.T) {
	for _, c := range append(slices.Clone(checks), stateMachine) {
		require.NoError(t, c.run(func() ledger.Ledger { return newPlain() }), c.name)
		require.NoError(t, c.run(func() ledger.Ledger { return struct{ ledger.Ledger }{newPlain()} }), "%s without a Counter", c.name)
	}
	Run(t, func(*testing.T) ledger.Ledger { return newPlain() })
}

// fieldMutants are ledgers that lose a field, or do not see that it changes.
func fieldMutants() (mutants []mutant) {
	sample := full("")
	eachField("", reflect.ValueOf(&sample).Elem(), func(field string, v reflect.Value) {
		if strings.Contains(field, ".Traits.") && v.Kind() == reflect.Bool { // one like the other
			return
		}
		lose := func(m *quota.Migration) {
			eachField("", reflect.ValueOf(m).Elem(), func(name string, v reflect.Value) {
				if name == field {
					v.SetZero()
				}
			})
		}
		mutants = append(mutants,
			mutant{"loses " + field, []string{"FieldsSurvive"}, stored(lose)},
			mutant{"takes " + field + " for equal", []string{"ChangesAreSeen"}, blind(lose)})
	})
	return mutants
}

// TestMutantsFail holds that the suite finds each mutant by the checks that are made
// for it, and that each check finds some.
func TestMutantsFail(t *testing.T) {
	found := map[string]bool{}
	for _, m := range append(fieldMutants(), mutants...) {
		t.Run(m.name, func(t *testing.T) {
			for _, c := range append(slices.Clone(checks), stateMachine) {
				if !slices.Contains(m.by, c.name) {
					continue
				}
				found[c.name] = true
				require.Error(t, c.run(func() ledger.Ledger {
					l := newPlain()
					m.corrupt(l)
					return l
				}), c.name)
			}
		})
	}
	for _, c := range append(slices.Clone(checks), stateMachine) {
		require.True(t, found[c.name], "no mutant fails %s", c.name)
	}
}

// TestSampleIsFull holds that a field which is added to quota.Migration is added to
// the sample, too.
func TestSampleIsFull(t *testing.T) {
	requireFull := func(v any) {
		for i, value := 0, reflect.ValueOf(v); i < value.NumField(); i++ {
			require.False(t, value.Field(i).IsZero(), "%s.%s is zero in the sample", value.Type(), value.Type().Field(i).Name)
		}
	}
	m := full(first)
	requireFull(m)
	requireFull(m.Shares[0])
	requireFull(m.Shares[0].Traits)
	for _, v := range different {
		require.NotEmpty(t, difference([]quota.Migration{m}, []quota.Migration{v.of(m)}, byAmount), v.name)
	}
	for _, v := range same {
		require.Empty(t, difference([]quota.Migration{m}, []quota.Migration{v.of(m)}, byAmount), v.name)
	}
}
