package quota_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
	quantities "github.com/vmquota/headroom/quota/amounts"
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

var none quota.Policy

func budget(pairs ...any) quota.Policy { return quota.Policy{Budget: listOf(pairs...)} }

// A queue in front of a budget.
func TestBudgetQueue(t *testing.T) {
	at := func(m quota.Migration, priority int32, created time.Time) quota.Migration {
		m.Priority, m.Created = priority, metav1.NewTime(created)
		return m
	}
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	east := time.FixedZone("east", 3600)
	for _, row := range []struct {
		name                    string
		policy                  quota.Policy
		used                    string
		migrations              []quota.Migration
		hard, granted, deferred string
	}{
		{"no budget is no cap", none, "", []quota.Migration{blocked("b", cpu, "6"), blocked("a", cpu, "7")}, "limits.cpu=23 limits.memory=10Gi", "a b", ""},
		{"an empty budget is no cap either", quota.Policy{Budget: corev1.ResourceList{}}, "", []quota.Migration{blocked("b", cpu, "6")}, "limits.cpu=16 limits.memory=10Gi", "b", ""},
		{"a budget on one resource caps no other", budget(memory, "1Gi"), "", []quota.Migration{blocked("a", cpu, "6"), blocked("b", cpu, "6", memory, "1Gi")}, "limits.cpu=22 limits.memory=11Gi", "a b", ""},
		{"a budget on what static does not limit is no cap", budget(corev1.ResourcePods, "0"), "", []quota.Migration{blocked("a", cpu, "6", corev1.ResourcePods, "1")}, "limits.cpu=16 limits.memory=10Gi", "a", ""},
		{"just enough", budget(cpu, "6"), "", []quota.Migration{blocked("a", cpu, "2"), blocked("b", cpu, "4")}, "limits.cpu=16 limits.memory=10Gi", "a b", ""},
		{"a nanocore too little", budget(cpu, "5999999999n"), "", []quota.Migration{blocked("a", cpu, "2"), blocked("b", cpu, "4")}, "limits.cpu=12 limits.memory=10Gi", "a", "b BudgetUsed limits.cpu=1n"},
		{"higher priority first", budget(cpu, "6"), "", []quota.Migration{at(blocked("a", cpu, "4"), math.MinInt32, noon), at(blocked("b", cpu, "4"), math.MaxInt32, noon.Add(time.Hour))}, "limits.cpu=14 limits.memory=10Gi", "b", "a BudgetUsed limits.cpu=2"},
		{"then the older", budget(cpu, "6"), "", []quota.Migration{at(blocked("a", cpu, "4"), 1, noon.Add(time.Second)), at(blocked("b", cpu, "4"), 1, noon)}, "limits.cpu=14 limits.memory=10Gi", "b", "a BudgetUsed limits.cpu=2"},
		{"without a time is older than all", budget(cpu, "6"), "", []quota.Migration{at(blocked("a", cpu, "4"), 1, time.Unix(-1<<35, 0)), at(blocked("b", cpu, "4"), 1, time.Time{})}, "limits.cpu=14 limits.memory=10Gi", "b", "a BudgetUsed limits.cpu=2"},
		{"then by UID, and time zones do not matter", budget(cpu, "6"), "", []quota.Migration{at(blocked("b", cpu, "4"), 1, noon.In(east)), at(blocked("a", cpu, "4"), 1, noon)}, "limits.cpu=14 limits.memory=10Gi", "a", "b BudgetUsed limits.cpu=2"},
		{
			"nobody overtakes one that fits an empty budget", budget(cpu, "6"), "",
			[]quota.Migration{blocked("a", cpu, "2"), blocked("b", cpu, "5"), blocked("c", cpu, "1"), blocked("d", memory, "1Gi"), blocked("e")},
			"limits.cpu=12 limits.memory=10Gi", "a", "b BudgetUsed limits.cpu=1; c BudgetUsed limits.cpu=2; d BudgetUsed limits.cpu=2; e BudgetUsed limits.cpu=2",
		},
		{
			"one that could never fit holds nobody back", budget(cpu, "6", memory, "1Gi"), "",
			[]quota.Migration{blocked("a", cpu, "7", memory, "1Gi"), blocked("b", cpu, "6", memory, "1Gi")},
			"limits.cpu=16 limits.memory=11Gi", "b", "a BudgetExceeded limits.cpu=1",
		},
		{
			"one that could never fit is told so behind others that wait", budget(cpu, "6"), "limits.cpu=3",
			[]quota.Migration{charged("x", cpu, "3"), blocked("a", cpu, "4"), blocked("b", cpu, "7"), blocked("c", cpu, "1")},
			"limits.cpu=13 limits.memory=10Gi", "x", "a BudgetUsed limits.cpu=1; b BudgetExceeded limits.cpu=1; c BudgetUsed limits.cpu=2",
		},
		{
			"a zero budget grants nothing new, and the charged stay", budget(cpu, "0"), "limits.cpu=3",
			[]quota.Migration{charged("x", cpu, "3"), blocked("a", cpu, "1"), blocked("b", memory, "1Gi"), blocked("c", cpu, "0")},
			"limits.cpu=13 limits.memory=11Gi", "b c x", "a BudgetExceeded limits.cpu=1",
		},
		{"a negative budget is a zero one", budget(cpu, "-5"), "", []quota.Migration{blocked("a", cpu, "1")}, "limits.cpu=10 limits.memory=10Gi", "", "a BudgetExceeded limits.cpu=1"},
		{
			"the charged may be over the budget, which concerns only who needs it", budget(cpu, "2", memory, "2Gi"), "limits.cpu=3 limits.memory=1Gi",
			[]quota.Migration{charged("x", cpu, "3", memory, "1Gi"), blocked("a", memory, "1Gi"), blocked("b", cpu, "1")},
			"limits.cpu=13 limits.memory=12Gi", "a x", "b BudgetUsed limits.cpu=2",
		},
		{
			"what a charged one does not hold yet is used up too", budget(cpu, "4"), "limits.cpu=1",
			[]quota.Migration{{UID: "x", State: quota.Charged, Surge: listOf(cpu, "3"), Held: listOf(cpu, "1")}, blocked("a", cpu, "2")},
			"limits.cpu=13 limits.memory=10Gi", "x", "a BudgetUsed limits.cpu=1",
		},
		{"queued ones neither get nor stop anything", budget(cpu, "4"), "", []quota.Migration{queued("a", cpu, "4"), blocked("b", cpu, "4")}, "limits.cpu=14 limits.memory=10Gi", "b", ""},
		{"eager: queued ones stand in the same queue", quota.Policy{Budget: listOf(cpu, "4"), Eager: true}, "", []quota.Migration{queued("a", cpu, "4"), blocked("b", cpu, "4")}, "limits.cpu=14 limits.memory=10Gi", "a", "b BudgetUsed limits.cpu=4"},
		{
			"strict: only where regular usage is above static, and it holds nobody back",
			quota.Policy{Strict: true, Budget: listOf(memory, "2Gi")},
			"limits.cpu=13 limits.memory=9Gi",
			[]quota.Migration{blocked("a", cpu, "1", memory, "2Gi"), blocked("b", memory, "2Gi"), charged("x", cpu, "1")},
			"limits.cpu=11 limits.memory=12Gi", "b x", "a RegularAboveStatic limits.cpu=2",
		},
		{"strict: regular usage at static is not above it", quota.Policy{Strict: true}, "limits.cpu=10", []quota.Migration{blocked("a", cpu, "1")}, "limits.cpu=11 limits.memory=10Gi", "a", ""},
		{"not strict: usage above static lifts the limit", none, "limits.cpu=13", []quota.Migration{blocked("a", cpu, "1")}, "limits.cpu=14 limits.memory=10Gi", "a", ""},
		{"not strict: usage above static lifts the limit without any migration", none, "limits.cpu=13 limits.memory=11Gi", nil, "limits.cpu=13 limits.memory=11Gi", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := row.policy.Decide(listOf(cpu, "10", memory, "10Gi"), row.migrations, amounts(row.used))
			requireDecision(t, d, row.hard, row.granted, row.deferred)
		})
	}
}

// requireDecision compares the limits, who is granted, and who is deferred: "uid reason missing; ...".
func requireDecision(t *testing.T, d quota.Decision, hard, granted, deferred string) {
	t.Helper()
	requireAmounts(t, hard, d.Hard)
	require.Equal(t, "["+granted+"]", fmt.Sprint(d.Granted))
	var parts []string
	for _, one := range d.Deferred {
		parts = append(parts, fmt.Sprintf("%s %s %s", one.UID, one.Reason, quantities.Text(one.Missing, " ")))
	}
	require.Equal(t, deferred, strings.Join(parts, "; "))
}

func requireAmounts(t *testing.T, want string, got corev1.ResourceList) {
	t.Helper()
	require.Truef(t, quota.Equal(amounts(want), got), "want %s, got %s", want, listString(got))
}
