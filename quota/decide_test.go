package quota_test

import (
	"math"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

func TestDecideOnNothing(t *testing.T) {
	want := quota.Decision{
		Hard: corev1.ResourceList{}, Regular: corev1.ResourceList{},
		Temporary: corev1.ResourceList{}, Available: corev1.ResourceList{},
		Surge: corev1.ResourceList{}, Need: corev1.ResourceList{},
	}
	requireSame(t, want, quota.Policy{}.Decide(nil, nil, nil), scenario{})
	requireSame(t, want, quota.Policy{Eager: true, Strict: true}.Decide(nil, nil, listOf(cpu, "1")), scenario{})

	want.Granted = []types.UID{"a"}
	requireSame(t, want, quota.Policy{Budget: listOf(cpu, "1")}.Decide(nil, []quota.Migration{blocked("a", cpu, "9")}, nil), scenario{})

	require.Equal(t, corev1.ResourceList{}, quota.Effective(nil, nil, nil))
}

// What a migration holds, and what that leaves of used to others.
func TestHeld(t *testing.T) {
	for _, row := range []struct {
		name               string
		state              quota.State
		held               corev1.ResourceList
		temporary, regular string
		hard               string
	}{
		{"charged, nil is all of it", quota.Charged, nil, "4", "6", "14"},
		{"charged, empty is none of it", quota.Charged, corev1.ResourceList{}, "0", "10", "14"},
		{"charged, a part", quota.Charged, listOf(cpu, "3"), "3", "7", "14"},
		{"charged, of something else", quota.Charged, listOf(memory, "3"), "0", "10", "14"},
		{"charged, more than surge is surge", quota.Charged, listOf(cpu, "5"), "4", "6", "14"},
		{"charged, negative is none", quota.Charged, listOf(cpu, "-5"), "0", "10", "14"},
		{"blocked holds nothing", quota.Blocked, listOf(cpu, "3"), "0", "10", "14"},
		{"queued holds nothing", quota.Queued, listOf(cpu, "3"), "0", "10", "10"},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := quota.Migration{UID: "a", State: row.state, Surge: listOf(cpu, "4"), Held: row.held}
			d := quota.Policy{}.Decide(listOf(cpu, "10"), []quota.Migration{m}, listOf(cpu, "10"))
			require.Equal(t, row.temporary, textOf(d.Temporary[cpu]), "temporary")
			require.Equal(t, row.regular, textOf(d.Regular[cpu]), "regular")
			require.Equal(t, row.hard, textOf(d.Hard[cpu]), "hard")
		})
	}
}

func TestDuplicates(t *testing.T) {
	older, newer := blocked("a", memory, "1Gi"), blocked("a", memory, "2Gi")
	partly := charged("a", memory, "1Gi")
	partly.Held = corev1.ResourceList{}
	for _, row := range []struct {
		name       string
		migrations []quota.Migration
		want       string
	}{
		{"the same twice", []quota.Migration{older, older}, "9Gi"},
		{"the greater claim", []quota.Migration{older, newer}, "10Gi"},
		{"a more advanced state before a greater claim", []quota.Migration{newer, partly}, "9Gi"},
		{"three", []quota.Migration{queued("a", memory, "4Gi"), older, newer}, "10Gi"},
		{"none has a UID", []quota.Migration{blocked("", memory, "1Gi"), blocked("", memory, "1Gi")}, "9Gi"},
		{"another has none", []quota.Migration{blocked("", memory, "1Gi"), older}, "10Gi"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for range row.migrations {
				row.migrations = append(row.migrations[1:], row.migrations[0])
				got := quota.Effective(listOf(memory, "8Gi"), row.migrations, listOf(memory, "4Gi"))
				require.Empty(t, gocmp.Diff(listOf(memory, row.want), got, exactly))
			}
		})
	}
}

// A limit that is not raised keeps its spelling; a raised one is canonical in the
// format of static.
func TestFormats(t *testing.T) {
	noFormat := *resource.NewQuantity(2, "")
	for _, row := range []struct {
		name   string
		static resource.Quantity
		surge  string
		want   string
		format resource.Format
	}{
		{"not raised", resource.MustParse("4952Mi"), "0", "4952Mi", resource.BinarySI},
		{"not raised, not canonical", resource.MustParse("1.500"), "0", "1.500", resource.DecimalSI},
		{"not raised, exponent", resource.MustParse("1e3"), "0", "1e3", resource.DecimalExponent},
		{"not raised, negative", resource.MustParse("-5"), "0", "-5", resource.DecimalSI},
		{"not raised, no format", noFormat, "0", "2", ""},
		{"not raised, huge", resource.MustParse("12345678901234567890"), "0", "12345678901234567890", resource.DecimalSI},
		{"raised", resource.MustParse("4952Mi"), "1Mi", "4953Mi", resource.BinarySI},
		{"raised to a larger unit", resource.MustParse("1000m"), "1", "2", resource.DecimalSI},
		{"raised, the format is not that of the surge", resource.MustParse("1000"), "1Ki", "2024", resource.DecimalSI},
		{"raised, the format is not that of the surge, of zero", resource.MustParse("0"), "1Ki", "1024", resource.DecimalSI},
		{"raised, exponent", resource.MustParse("1e3"), "500", "1500", resource.DecimalExponent},
		{"raised, exponent again", resource.MustParse("1e3"), "1k", "2e3", resource.DecimalExponent},
		{"raised, no format", noFormat, "500m", "2500m", resource.DecimalSI},
		{"raised by a fraction of a byte", resource.MustParse("1Ki"), "500m", "1024500m", resource.BinarySI},
		{"raised from below zero", resource.MustParse("-5"), "3", "3", resource.DecimalSI},
		{"raised past int64", resource.MustParse("9223372036854775807"), "1", "9223372036854775808", resource.DecimalSI},
		{"raised far past int64", resource.MustParse("100E"), "1", "100000000000000000001", resource.DecimalSI},
		{"raised by more than int64", resource.MustParse("1"), "12345678901234567890", "12345678901234567891", resource.DecimalSI},
		{"raised, binary past int64", resource.MustParse("4Ei"), "4Ei", "8Ei", resource.BinarySI},
		{"raised by a nano", resource.MustParse("9223372036854775807"), "1n", "9223372036854775807000000001n", resource.DecimalSI},
	} {
		t.Run(row.name, func(t *testing.T) {
			static := corev1.ResourceList{cpu: row.static}
			got := quota.Effective(static, []quota.Migration{blocked("a", cpu, row.surge)}, nil)[cpu]
			require.Equal(t, row.want, textOf(got))
			require.Equal(t, row.format, got.Format)
		})
	}
}

// A queue in front of a budget.
func TestBudgetQueue(t *testing.T) {
	at := func(m quota.Migration, priority int32, created time.Time) quota.Migration {
		m.Priority, m.Created = priority, metav1.NewTime(created)
		return m
	}
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	east := time.FixedZone("east", 3600)
	type deferral struct {
		uid     types.UID
		reason  quota.DeferralReason
		missing corev1.ResourceList
	}
	for _, row := range []struct {
		name       string
		policy     quota.Policy
		used       corev1.ResourceList
		migrations []quota.Migration
		hard       corev1.ResourceList
		granted    []types.UID
		deferred   []deferral
	}{
		{
			name:       "no budget is no cap",
			migrations: []quota.Migration{blocked("b", cpu, "6"), blocked("a", cpu, "7")},
			hard:       listOf(cpu, "23", memory, "10Gi"),
			granted:    []types.UID{"a", "b"},
		},
		{
			name:       "an empty budget is no cap either",
			policy:     quota.Policy{Budget: corev1.ResourceList{}},
			migrations: []quota.Migration{blocked("b", cpu, "6")},
			hard:       listOf(cpu, "16", memory, "10Gi"),
			granted:    []types.UID{"b"},
		},
		{
			name:       "a budget on one resource caps no other",
			policy:     quota.Policy{Budget: listOf(memory, "1Gi")},
			migrations: []quota.Migration{blocked("a", cpu, "6"), blocked("b", cpu, "6", memory, "1Gi")},
			hard:       listOf(cpu, "22", memory, "11Gi"),
			granted:    []types.UID{"a", "b"},
		},
		{
			name:       "a budget on what static does not limit is no cap",
			policy:     quota.Policy{Budget: listOf(corev1.ResourcePods, "0")},
			migrations: []quota.Migration{blocked("a", cpu, "6", corev1.ResourcePods, "1")},
			hard:       listOf(cpu, "16", memory, "10Gi"),
			granted:    []types.UID{"a"},
		},
		{
			name:       "just enough",
			policy:     quota.Policy{Budget: listOf(cpu, "6")},
			migrations: []quota.Migration{blocked("a", cpu, "2"), blocked("b", cpu, "4")},
			hard:       listOf(cpu, "16", memory, "10Gi"),
			granted:    []types.UID{"a", "b"},
		},
		{
			name:       "a nanocore too little",
			policy:     quota.Policy{Budget: listOf(cpu, "5999999999n")},
			migrations: []quota.Migration{blocked("a", cpu, "2"), blocked("b", cpu, "4")},
			hard:       listOf(cpu, "12", memory, "10Gi"),
			granted:    []types.UID{"a"},
			deferred:   []deferral{{"b", quota.BudgetUsed, listOf(cpu, "1n")}},
		},
		{
			name:       "higher priority first",
			policy:     quota.Policy{Budget: listOf(cpu, "6")},
			migrations: []quota.Migration{at(blocked("a", cpu, "4"), math.MinInt32, noon), at(blocked("b", cpu, "4"), math.MaxInt32, noon.Add(time.Hour))},
			hard:       listOf(cpu, "14", memory, "10Gi"),
			granted:    []types.UID{"b"},
			deferred:   []deferral{{"a", quota.BudgetUsed, listOf(cpu, "2")}},
		},
		{
			name:       "then the older",
			policy:     quota.Policy{Budget: listOf(cpu, "6")},
			migrations: []quota.Migration{at(blocked("a", cpu, "4"), 1, noon.Add(time.Second)), at(blocked("b", cpu, "4"), 1, noon)},
			hard:       listOf(cpu, "14", memory, "10Gi"),
			granted:    []types.UID{"b"},
			deferred:   []deferral{{"a", quota.BudgetUsed, listOf(cpu, "2")}},
		},
		{
			name:       "without a time is older than all",
			policy:     quota.Policy{Budget: listOf(cpu, "6")},
			migrations: []quota.Migration{at(blocked("a", cpu, "4"), 1, time.Unix(-1<<35, 0)), at(blocked("b", cpu, "4"), 1, time.Time{})},
			hard:       listOf(cpu, "14", memory, "10Gi"),
			granted:    []types.UID{"b"},
			deferred:   []deferral{{"a", quota.BudgetUsed, listOf(cpu, "2")}},
		},
		{
			name:       "then by UID, and time zones do not matter",
			policy:     quota.Policy{Budget: listOf(cpu, "6")},
			migrations: []quota.Migration{at(blocked("b", cpu, "4"), 1, noon.In(east)), at(blocked("a", cpu, "4"), 1, noon)},
			hard:       listOf(cpu, "14", memory, "10Gi"),
			granted:    []types.UID{"a"},
			deferred:   []deferral{{"b", quota.BudgetUsed, listOf(cpu, "2")}},
		},
		{
			name:       "nobody overtakes one that fits an empty budget",
			policy:     quota.Policy{Budget: listOf(cpu, "6")},
			migrations: []quota.Migration{blocked("a", cpu, "2"), blocked("b", cpu, "5"), blocked("c", cpu, "1"), blocked("d", memory, "1Gi"), blocked("e")},
			hard:       listOf(cpu, "12", memory, "10Gi"),
			granted:    []types.UID{"a"},
			deferred: []deferral{
				{"b", quota.BudgetUsed, listOf(cpu, "1")},
				{"c", quota.BudgetUsed, listOf(cpu, "2")},
				{"d", quota.BudgetUsed, listOf(cpu, "2")},
				{"e", quota.BudgetUsed, listOf(cpu, "2")},
			},
		},
		{
			name:       "one that could never fit holds nobody back",
			policy:     quota.Policy{Budget: listOf(cpu, "6", memory, "1Gi")},
			migrations: []quota.Migration{blocked("a", cpu, "7", memory, "1Gi"), blocked("b", cpu, "6", memory, "1Gi")},
			hard:       listOf(cpu, "16", memory, "11Gi"),
			granted:    []types.UID{"b"},
			deferred:   []deferral{{"a", quota.BudgetExceeded, listOf(cpu, "1")}},
		},
		{
			name:       "one that could never fit is told so behind others that wait",
			policy:     quota.Policy{Budget: listOf(cpu, "6")},
			migrations: []quota.Migration{charged("x", cpu, "3"), blocked("a", cpu, "4"), blocked("b", cpu, "7"), blocked("c", cpu, "1")},
			used:       listOf(cpu, "3"),
			hard:       listOf(cpu, "13", memory, "10Gi"),
			granted:    []types.UID{"x"},
			deferred: []deferral{
				{"a", quota.BudgetUsed, listOf(cpu, "1")},
				{"b", quota.BudgetExceeded, listOf(cpu, "1")},
				{"c", quota.BudgetUsed, listOf(cpu, "2")},
			},
		},
		{
			name:       "a zero budget grants nothing new, and the charged stay",
			policy:     quota.Policy{Budget: listOf(cpu, "0")},
			migrations: []quota.Migration{charged("x", cpu, "3"), blocked("a", cpu, "1"), blocked("b", memory, "1Gi"), blocked("c", cpu, "0")},
			used:       listOf(cpu, "3"),
			hard:       listOf(cpu, "13", memory, "11Gi"),
			granted:    []types.UID{"b", "c", "x"},
			deferred:   []deferral{{"a", quota.BudgetExceeded, listOf(cpu, "1")}},
		},
		{
			name:       "a negative budget is a zero one",
			policy:     quota.Policy{Budget: listOf(cpu, "-5")},
			migrations: []quota.Migration{blocked("a", cpu, "1")},
			hard:       listOf(cpu, "10", memory, "10Gi"),
			deferred:   []deferral{{"a", quota.BudgetExceeded, listOf(cpu, "1")}},
		},
		{
			name:       "the charged may be over the budget, which concerns only who needs it",
			policy:     quota.Policy{Budget: listOf(cpu, "2", memory, "2Gi")},
			migrations: []quota.Migration{charged("x", cpu, "3", memory, "1Gi"), blocked("a", memory, "1Gi"), blocked("b", cpu, "1")},
			used:       listOf(cpu, "3", memory, "1Gi"),
			hard:       listOf(cpu, "13", memory, "12Gi"),
			granted:    []types.UID{"a", "x"},
			deferred:   []deferral{{"b", quota.BudgetUsed, listOf(cpu, "2")}},
		},
		{
			name:       "what a charged one does not hold yet is used up too",
			policy:     quota.Policy{Budget: listOf(cpu, "4")},
			migrations: []quota.Migration{{UID: "x", State: quota.Charged, Surge: listOf(cpu, "3"), Held: listOf(cpu, "1")}, blocked("a", cpu, "2")},
			used:       listOf(cpu, "1"),
			hard:       listOf(cpu, "13", memory, "10Gi"),
			granted:    []types.UID{"x"},
			deferred:   []deferral{{"a", quota.BudgetUsed, listOf(cpu, "1")}},
		},
		{
			name:       "queued ones neither get nor stop anything",
			policy:     quota.Policy{Budget: listOf(cpu, "4")},
			migrations: []quota.Migration{queued("a", cpu, "4"), blocked("b", cpu, "4")},
			hard:       listOf(cpu, "14", memory, "10Gi"),
			granted:    []types.UID{"b"},
		},
		{
			name:       "eager: queued ones stand in the same queue",
			policy:     quota.Policy{Budget: listOf(cpu, "4"), Eager: true},
			migrations: []quota.Migration{queued("a", cpu, "4"), blocked("b", cpu, "4")},
			hard:       listOf(cpu, "14", memory, "10Gi"),
			granted:    []types.UID{"a"},
			deferred:   []deferral{{"b", quota.BudgetUsed, listOf(cpu, "4")}},
		},
		{
			name:       "strict: only where regular usage is above static, and it holds nobody back",
			policy:     quota.Policy{Strict: true, Budget: listOf(memory, "2Gi")},
			migrations: []quota.Migration{blocked("a", cpu, "1", memory, "2Gi"), blocked("b", memory, "2Gi"), charged("x", cpu, "1")},
			used:       listOf(cpu, "13", memory, "9Gi"),
			hard:       listOf(cpu, "11", memory, "12Gi"),
			granted:    []types.UID{"b", "x"},
			deferred:   []deferral{{"a", quota.RegularAboveStatic, listOf(cpu, "2")}},
		},
		{
			name:       "strict: regular usage at static is not above it",
			policy:     quota.Policy{Strict: true},
			migrations: []quota.Migration{blocked("a", cpu, "1")},
			used:       listOf(cpu, "10"),
			hard:       listOf(cpu, "11", memory, "10Gi"),
			granted:    []types.UID{"a"},
		},
		{
			name:       "not strict: usage above static lifts the limit",
			migrations: []quota.Migration{blocked("a", cpu, "1")},
			used:       listOf(cpu, "13"),
			hard:       listOf(cpu, "14", memory, "10Gi"),
			granted:    []types.UID{"a"},
		},
		{
			name: "not strict: usage above static lifts the limit without any migration",
			used: listOf(cpu, "13", memory, "11Gi"),
			hard: listOf(cpu, "13", memory, "11Gi"),
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := row.policy.Decide(listOf(cpu, "10", memory, "10Gi"), row.migrations, row.used)
			require.Empty(t, gocmp.Diff(row.hard, d.Hard, exactly))
			require.Empty(t, gocmp.Diff(row.granted, d.Granted, exactly))
			var deferred []deferral
			for _, one := range d.Deferred {
				deferred = append(deferred, deferral{one.UID, one.Reason, one.Missing})
			}
			require.Empty(t, gocmp.Diff(row.deferred, deferred, exactly, gocmp.AllowUnexported(deferral{})))
		})
	}
}
