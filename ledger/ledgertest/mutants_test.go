package ledgertest

import (
	"cmp"
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

// each returns Canonical with f applied to each migration.
func each(f func(m *quota.Migration)) func([]quota.Migration) []quota.Migration {
	return func(migrations []quota.Migration) []quota.Migration {
		migrations = ledger.Canonical(migrations)
		for i := range migrations {
			f(&migrations[i])
		}
		return migrations
	}
}

// A pipe is what migrations go through between the caller and the store.
type pipe = func(migrations []quota.Migration) []quota.Migration

func in(f pipe) func(*plain)  { return func(l *plain) { l.in = f } }
func out(f pipe) func(*plain) { return func(l *plain) { l.out = f } }

// stored returns a mutation of what Replace stores.
func stored(f func(m *quota.Migration)) func(*plain) { return in(each(f)) }

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

// comparing returns a ledger that writes unless equal.
func comparing(equal func(a, b []quota.Migration) bool) func(*plain) {
	return func(l *plain) { l.equal = equal }
}

// blind returns a ledger that does not look at what f removes when it looks for a change.
func blind(f func(m *quota.Migration)) func(*plain) {
	return comparing(func(a, b []quota.Migration) bool { return ledger.Equal(each(f)(a), each(f)(b)) })
}

// keyed returns a ledger that names what it stores otherwise.
func keyed(f func(namespace string) string) func(*plain) { return func(l *plain) { l.key = f } }

// writing returns a ledger that writes otherwise.
func writing(f func(l *plain, key string, migrations []quota.Migration)) func(*plain) {
	return func(l *plain) { l.write = f }
}

func noEmptyHeld(m *quota.Migration) {
	if len(m.Held) == 0 {
		m.Held = nil
	}
}

func noEmptyShares(m *quota.Migration) {
	if len(m.Shares) == 0 {
		m.Shares = nil
	}
}

func copies(migrations []quota.Migration) []quota.Migration {
	c := slices.Clone(migrations)
	for i := range c {
		c[i] = c[i].DeepCopy()
	}
	return c
}

func shared(migrations []quota.Migration) []quota.Migration {
	return slices.SortedFunc(slices.Values(migrations), byUID)
}

// shallow copies slices and maps, but not what is in a Quantity.
func shallow(migrations []quota.Migration) []quota.Migration {
	migrations = shared(migrations)
	for i := range migrations {
		m := &migrations[i]
		m.Surge, m.Held, m.Growth, m.Shares = maps.Clone(m.Surge), maps.Clone(m.Held), maps.Clone(m.Growth), slices.Clone(m.Shares)
		for j := range m.Shares {
			m.Shares[j].Surge, m.Shares[j].Held = maps.Clone(m.Shares[j].Surge), maps.Clone(m.Shares[j].Held)
		}
	}
	return migrations
}

// keeping returns a ledger that keeps the first of duplicates in that order.
func keeping(order func(a, b quota.Migration) int) func(*plain) {
	return in(func(migrations []quota.Migration) []quota.Migration {
		c := copies(migrations)
		slices.SortStableFunc(c, func(a, b quota.Migration) int { return cmp.Or(byUID(a, b), order(a, b)) })
		return ledger.Canonical(slices.CompactFunc(c, func(a, b quota.Migration) bool { return a.UID == b.UID }))
	})
}

var mutants = []mutant{
	{"an error for none", []string{"ReplacesTheWhole"}, func(l *plain) {
		l.read = func(l *plain, key string) ([]quota.Migration, error) {
			if len(l.byNamespace[key]) == 0 {
				return nil, errors.New("not found")
			}
			return l.byNamespace[key], nil
		}
	}},
	{"nil writes nothing", []string{"ReplacesTheWhole", "NamespacesIsolated", "StateMachine"}, writing(func(l *plain, key string, migrations []quota.Migration) {
		if len(migrations) > 0 {
			l.byNamespace[key] = migrations
		}
	})},
	{"adds only", []string{"ReplacesTheWhole", "StateMachine"}, writing(func(l *plain, key string, migrations []quota.Migration) {
		l.byNamespace[key] = ledger.Canonical(append(migrations, l.byNamespace[key]...))
	})},
	{"reads a stale copy", []string{"ReplacesTheWhole", "ConcurrentWriters"}, func(l *plain) {
		stale := map[string][]quota.Migration{}
		l.write = func(l *plain, key string, migrations []quota.Migration) {
			stale[key], l.byNamespace[key] = l.byNamespace[key], migrations
		}
		l.read = func(_ *plain, key string) ([]quota.Migration, error) { return stale[key], nil }
	}},
	{"in reverse order", []string{"AnyUID", "ReplacesTheWhole"}, out(func(migrations []quota.Migration) []quota.Migration {
		migrations = ledger.Canonical(migrations)
		slices.Reverse(migrations)
		return migrations
	})},
	{"in the caller's order", []string{"AnyUID"}, func(l *plain) { l.in, l.out = copies, copies }},

	{"nil Held for an empty one", []string{"FieldsSurvive", "StateMachine"}, stored(noEmptyHeld)},
	{"nil Shares for empty ones", []string{"FieldsSurvive", "StateMachine"}, stored(noEmptyShares)},
	{"Created to the minute", []string{"FieldsSurvive"}, stored(func(m *quota.Migration) { m.Created = metav1.NewTime(m.Created.Truncate(time.Minute)) })},
	{"zeros are absent", []string{"FieldsSurvive", "StateMachine"}, stored(func(m *quota.Migration) {
		maps.DeleteFunc(m.Surge, func(_ corev1.ResourceName, q resource.Quantity) bool { return q.IsZero() })
	})},
	{"amounts are int64", []string{"FieldsSurvive", "StateMachine"}, amounts(func(q resource.Quantity) resource.Quantity {
		return *resource.NewQuantity(q.Value(), q.Format) //nolint:forbidigo // the fault of this mutant
	})},
	{"decimal amounts", []string{"FieldsSurvive"}, amounts(func(q resource.Quantity) resource.Quantity {
		q.Add(resource.Quantity{}) // drops the spelling
		q.Format = resource.DecimalSI
		return q
	})},

	{"lower-case UIDs", []string{"AnyUID"}, stored(func(m *quota.Migration) { m.UID = types.UID(strings.ToLower(string(m.UID))) })},
	{"trimmed UIDs", []string{"AnyUID"}, stored(func(m *quota.Migration) { m.UID = types.UID(strings.TrimSpace(string(m.UID))) })},
	{"UIDs of 253 bytes", []string{"AnyUID"}, stored(func(m *quota.Migration) { m.UID = m.UID[:min(len(m.UID), 253)] })},

	{"keeps duplicates", []string{"DuplicateOnce", "StateMachine"}, func(l *plain) { l.in, l.out = shared, copies }},
	{"the first duplicate", []string{"DuplicateOnce", "StateMachine"}, keeping(func(_, _ quota.Migration) int { return 0 })},
	{"the greater state, then the first", []string{"DuplicateOnce"}, keeping(func(a, b quota.Migration) int { return int(b.State - a.State) })},

	{"takes nil and empty Held for equal", []string{"ChangesAreSeen"}, blind(noEmptyHeld)},
	{"takes nil and empty Shares for equal", []string{"ChangesAreSeen"}, blind(noEmptyShares)},
	{"always writes", []string{"WritesNothingWhenEqual", "StateMachine"}, comparing(func(_, _ []quota.Migration) bool { return false })},
	{"writes none for none", []string{"WritesNothingWhenEqual", "StateMachine"}, comparing(func(a, b []quota.Migration) bool { return len(a) > 0 && ledger.Equal(a, b) })},
	{"compares spellings", []string{"WritesNothingWhenEqual", "StateMachine"}, comparing(func(a, b []quota.Migration) bool { return difference(a, b, bySpelling) == "" })},
	{"compares before it sorts", []string{"WritesNothingWhenEqual"}, func(l *plain) {
		l.in, l.equal = copies, func(a, b []quota.Migration) bool { return difference(a, b, byAmount) == "" }
	}},
	{"compares fractions of seconds", []string{"WritesNothingWhenEqual"}, func(l *plain) {
		l.in, l.equal = shared, func(a, b []quota.Migration) bool {
			return ledger.Equal(a, b) && slices.EqualFunc(a, b, func(a, b quota.Migration) bool { return a.Created.Equal(&b.Created) })
		}
	}},

	{"keeps its input", []string{"SharesNothing"}, in(shared)},
	{"keeps its input's quantities", []string{"SharesNothing"}, in(shallow)},
	{"sorts its input", []string{"SharesNothing"}, in(func(migrations []quota.Migration) []quota.Migration {
		slices.SortFunc(migrations, byUID)
		return ledger.Canonical(migrations)
	})},
	{"returns its own", []string{"SharesNothing"}, out(func(migrations []quota.Migration) []quota.Migration { return migrations })},
	{"returns its own maps", []string{"SharesNothing"}, out(shared)},
	{"returns its own quantities", []string{"SharesNothing"}, out(shallow)},
	{"returns the same copy to all", []string{"SharesNothing"}, func(l *plain) {
		l.in, l.out = func(migrations []quota.Migration) []quota.Migration {
			same := ledger.Canonical(migrations)
			l.out = func([]quota.Migration) []quota.Migration { return same }
			return migrations
		}, nil
	}},

	{"one namespace", []string{"NamespacesIsolated", "StateMachine"}, keyed(func(string) string { return "" })},
	{"62 characters of a namespace", []string{"NamespacesIsolated"}, keyed(func(namespace string) string { return namespace[:min(len(namespace), 62)] })},
	{"namespaces without dashes", []string{"NamespacesIsolated"}, keyed(func(namespace string) string { return strings.ReplaceAll(namespace, "--", "-") })},

	{"the empty namespace", []string{"RefusesCalls"}, func(l *plain) { l.check = func(ctx context.Context, _ string) error { return ctx.Err() } }},
	{"no look at the context", []string{"RefusesCalls"}, func(l *plain) {
		check := l.check
		l.check = func(_ context.Context, namespace string) error { return check(context.Background(), namespace) }
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

	{"writes a half, then the other", []string{"ConcurrentWriters"}, writing(func(l *plain, key string, migrations []quota.Migration) {
		l.byNamespace[key] = migrations[:len(migrations)/2]
		pause(l)
		l.byNamespace[key] = migrations
	})},
	{"loses the write of another namespace", []string{"ConcurrentWriters"}, writing(func(l *plain, key string, migrations []quota.Migration) {
		next := maps.Clone(l.byNamespace)
		pause(l)
		next[key] = migrations
		l.byNamespace = next
	})},
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
	for _, lacks := range zeroed {
		mutants = append(mutants,
			mutant{"stores " + lacks.name, []string{"FieldsSurvive"}, stored(lacks.apply)},
			mutant{"takes " + lacks.name + " for equal", []string{"ChangesAreSeen"}, blind(lacks.apply)})
	}
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
