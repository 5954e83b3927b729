package quota_test

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/quota"
)

// A dice draws a number from 0 to n-1. All random input of these tests comes from
// one: from rapid, which shrinks what fails, or from a seed, for inputs too large to shrink.
type dice func(n int) int

var smallRolls = func() (rolls [65]*rapid.Generator[int]) {
	for n := 1; n < len(rolls); n++ {
		rolls[n] = rapid.IntRange(0, n-1)
	}
	return rolls
}()

func rapidDice(t *rapid.T) dice {
	return func(n int) int {
		if n < len(smallRolls) {
			return smallRolls[n].Draw(t, "roll")
		}
		return rapid.IntRange(0, n-1).Draw(t, "roll")
	}
}

func seededDice(seed uint64) dice {
	return rand.New(rand.NewPCG(seed, 0)).IntN
}

// A drawn scenario is one line of rapid's report, not a hundred of rolls.
var (
	scenarios = rapid.Custom(func(t *rapid.T) scenario { return rapidDice(t).scenario() })
	queues    = rapid.Custom(func(t *rapid.T) scenario { return rapidDice(t).contended() })
	triplets  = rapid.Custom(func(t *rapid.T) [3]scenario { // equal, and they share nothing
		roll, replay := recorded(rapidDice(t))
		return [3]scenario{roll.scenario(), replay().scenario(), replay().scenario()}
	})
)

// recorded returns roll, and a function that returns a dice which rolls the same
// once more: so that a test can build the same input twice, without copying it.
func recorded(roll dice) (dice, func() dice) {
	var rolls []int
	record := func(n int) int {
		rolls = append(rolls, roll(n))
		return rolls[len(rolls)-1]
	}
	replay := func() dice {
		i := -1
		return func(int) int { i++; return rolls[i] }
	}
	return record, replay
}

// flip is true in about one of two rolls, and false in the smallest input.
func (roll dice) flip() bool { return roll(2) == 1 }

// rarely is true in about one of 2^n rolls.
func (roll dice) rarely(n int) bool {
	for range n {
		if !roll.flip() {
			return false
		}
	}
	return true
}

func pick[T any](roll dice, from []T) T { return from[roll(len(from))] }

var resourceNames = []corev1.ResourceName{
	"limits.memory", "limits.cpu", "requests.memory", "requests.cpu",
	"pods", "count/pods", "requests.nvidia.com/gpu", "requests.storage",
}

var quantityFormats = []resource.Format{resource.DecimalSI, resource.BinarySI, resource.DecimalExponent, ""}

// quantitySpellings are amounts as people write them, and those that make Quantity
// change its representation: fractions, int64 limits, and what is beyond them.
var quantitySpellings = []string{
	"0", "1", "2", "1000m", "1500m", "4015m", "28405m", "1.5", "2.50", "0.1", "100m",
	"1238Mi", "4952Mi", "1024Mi", "1267028Ki", "1.5Gi", "64Gi", "17405661185", "5682461313",
	"1k", "1M", "1e3", "12e6", "1E", "8Ei", "0m", "0Ki", "0e3",
	"1n", "1u", "999999999n", "250u", "0.000000001", "999999999999999999m",
	"9223372036854775807", "9223372036854775808", "-9223372036854775808", "9223372036854775807n", "9223372036854775.807",
	"12345678901234567890", "123456789012345678.123456789", "100E", "1e30",
	"-1", "-100m", "-5Gi", "-12345678901234567890", "-100E",
}

var parsedQuantities = func() []resource.Quantity {
	parsed := make([]resource.Quantity, len(quantitySpellings))
	for i, spelling := range quantitySpellings {
		parsed[i] = resource.MustParse(spelling)
	}
	return parsed
}()

// A regime says of what kind the amounts of one scenario are. Amounts of one kind
// meet and tie; those of mixed kinds drown each other.
type regime int

const (
	smallAmounts   regime = iota // 0 to 8
	milliAmounts                 // 0m to 4000m
	byteAmounts                  // up to 16Gi
	spelledAmounts               // quantitySpellings
	extremeAmounts               // everything that a Quantity can hold
	regimes
)

// amount draws a quantity about scale times as large as a surge is.
func (roll dice) amount(of regime, scale int) resource.Quantity {
	var q *resource.Quantity
	switch of {
	case smallAmounts:
		q = resource.NewQuantity(int64(roll(8*scale+1)), pick(roll, quantityFormats))
	case milliAmounts:
		q = resource.NewMilliQuantity(int64(500*roll(8*scale+1)), pick(roll, quantityFormats))
	case byteAmounts:
		q = resource.NewQuantity(int64(roll(1<<24))*int64(1+roll(1024*scale)), resource.BinarySI)
	case spelledAmounts:
		return pick(roll, parsedQuantities).DeepCopy()
	default:
		return roll.extreme()
	}
	if roll.rarely(4) {
		q.Neg()
	}
	return *q
}

func (roll dice) extreme() resource.Quantity {
	format := pick(roll, quantityFormats)
	bits := int64(roll(1<<31))<<32 | int64(roll(1<<31))
	switch roll(6) {
	case 0:
		return *resource.NewScaledQuantity(bits, resource.Scale(roll(28)-9))
	case 1:
		return *resource.NewQuantity(bits, format)
	case 2:
		return *resource.NewQuantity(math.MaxInt64-int64(roll(3)), format)
	case 3:
		return *resource.NewQuantity(math.MinInt64+int64(roll(3)), format)
	case 4:
		product := new(big.Int).Mul(big.NewInt(bits), big.NewInt(bits-int64(roll(9))))
		return decimal(product, roll(10), format)
	default:
		return decimal(big.NewInt(int64(roll(1000))), roll(10), format)
	}
}

// decimal is unscaled / 10^scale, with an inf.Dec inside also where it is small.
func decimal(unscaled *big.Int, scale int, format resource.Format) resource.Quantity {
	q := resource.NewScaledQuantity(1, resource.Scale(-scale))
	q.AsDec().SetUnscaledBig(unscaled)
	q.Format = format
	return *q
}

// list draws amounts of some of names. One in 8 is nil.
func (roll dice) list(of regime, scale int, names []corev1.ResourceName) corev1.ResourceList {
	if roll.rarely(3) {
		return nil
	}
	list := make(corev1.ResourceList, len(names))
	for _, name := range names {
		if !roll.rarely(2) {
			list[name] = roll.amount(of, scale)
		}
	}
	return list
}

var (
	someUIDs  = []types.UID{"b", "a", "c", "e", "d", "f", "", "g"}
	someTimes = []metav1.Time{
		metav1.Unix(1700000000, 0),
		{Time: time.Unix(1700000000, 0).In(time.FixedZone("east", 3600))}, // the same
		metav1.Unix(1699999999, 0),
		metav1.Unix(1700000000, 1),
		{},
	}
	somePriorities = []int32{0, 1, -1, math.MaxInt32, math.MinInt32}
	someTraits     = []quota.Traits{{}, {Terminating: true}, {BestEffort: true}, {PriorityClass: "gold"}, {Claim: true}}
)

// migration draws one with the given UID.
func (roll dice) migration(uid types.UID, of regime, names []corev1.ResourceName) quota.Migration {
	m := quota.Migration{
		UID:      uid,
		VMI:      "vm-" + string(uid),
		State:    quota.Blocked,
		Surge:    roll.list(of, 1, names),
		Priority: pick(roll, somePriorities),
		Created:  pick(roll, someTimes),
	}
	switch roll(4) {
	case 1:
		m.State = quota.Charged
	case 2:
		m.State = quota.Queued
	case 3:
		m.State = quota.Charged
		m.Held = roll.list(of, 1, names)
	}
	if roll.rarely(3) {
		m.Held = roll.list(of, 1, names) // also what is not Charged may say so
	}
	if roll.rarely(2) { // what the rule does not read
		m.RefusedBy = pick(roll, []string{"", "q"})
		m.Node, m.Over, m.Growth = pick(roll, []string{"", "node-1", "node-2"}), roll.flip(), roll.list(of, 1, names)
	}
	for roll.rarely(4) {
		m.Shares = append(m.Shares, quota.Share{
			Traits: pick(roll, someTraits),
			Surge:  roll.list(of, 1, names),
			Held:   roll.list(of, 1, names),
		})
	}
	return m
}

// A scenario is one input of the rule.
type scenario struct {
	policy       quota.Policy
	static, used corev1.ResourceList
	migrations   []quota.Migration

	regime regime
	names  []corev1.ResourceName // that occur in any list
}

// scenario draws any input there may be. Its migrations may share UIDs, with the
// same or with different contents.
func (roll dice) scenario() scenario {
	if roll.rarely(2) {
		return roll.contended()
	}
	limited := pick(roll, []int{2, 1, 3, 0})
	s := scenario{regime: regime(roll(int(regimes))), names: resourceNames[:limited+1]}
	s.policy.Eager, s.policy.Strict = roll.flip(), roll.flip()
	if roll.rarely(3) {
		s.policy.Lift = roll.list(s.regime, 3, s.names)
	}
	if roll.flip() {
		s.policy.Budget = roll.list(s.regime, 3, s.names)
	}
	s.static = roll.list(s.regime, 4, resourceNames[:limited])
	s.used = roll.list(s.regime, 4, s.names)
	for range roll(7) {
		s.migrations = append(s.migrations, roll.migration(pick(roll, someUIDs), s.regime, s.names))
	}
	if roll.rarely(10) {
		s.migrations = append(s.migrations, crowd(1000+roll(3000), uint64(roll(1<<31)), s.regime, s.names)...)
	}
	return s
}

// contended draws one in which several migrations, each with its own UID, wait for
// a budget that lasts for some of them.
func (roll dice) contended() scenario {
	s := scenario{regime: pick(roll, []regime{smallAmounts, milliAmounts}), names: resourceNames[:2]}
	s.policy = quota.Policy{Eager: roll.flip(), Strict: roll.rarely(2), Budget: corev1.ResourceList{}}
	s.static, s.used = corev1.ResourceList{}, corev1.ResourceList{}
	for _, name := range s.names {
		s.static[name] = roll.amount(s.regime, 4)
		s.used[name] = roll.amount(s.regime, 3)
		s.policy.Budget[name] = roll.amount(s.regime, 2)
	}
	for i := range 2 + roll(len(someUIDs)-1) {
		m := roll.migration(someUIDs[i], s.regime, s.names)
		if roll.flip() {
			m.State = quota.Blocked
		}
		s.migrations = append(s.migrations, m)
	}
	return s
}

// crowd returns n migrations, a few of them with the UID of another.
func crowd(n int, seed uint64, of regime, names []corev1.ResourceName) []quota.Migration {
	roll := seededDice(seed)
	migrations := make([]quota.Migration, n)
	for i := range migrations {
		uid := types.UID(fmt.Sprintf("%08x-0000-4000-8000-000000000000", roll(1<<20)))
		migrations[i] = roll.migration(uid, of, names)
	}
	return migrations
}

// distinct leaves out the migrations whose UID another one before them has.
func (s scenario) distinct() scenario {
	seen := map[types.UID]bool{}
	s.migrations = slices.DeleteFunc(slices.Clone(s.migrations), func(m quota.Migration) bool {
		defer func() { seen[m.UID] = true }()
		return seen[m.UID]
	})
	return s
}

// contradicted returns s with some migrations twice, the second time with another value in one field.
func (s scenario) contradicted(roll dice) scenario {
	for _, m := range s.migrations[:min(8, len(s.migrations))] {
		other := roll.migration(m.UID, s.regime, s.names)
		switch roll(12) {
		case 1:
			m.VMI = "other"
		case 2:
			m.Surge = other.Surge
		case 3:
			m.Held = other.Held
		case 4:
			m.Priority = other.Priority
		case 5:
			m.Created = other.Created
		case 6:
			m.Node = other.Node
		case 7:
			m.Over = other.Over
		case 8:
			m.Growth = other.Growth
		case 9:
			m.Shares = other.Shares
		case 10:
			m.RefusedBy = "other"
		case 11:
			m.State = other.State
		}
		s.migrations = append(s.migrations, m)
	}
	return s
}

// shuffled returns the migrations of s in another order.
func (s scenario) shuffled(roll dice) []quota.Migration {
	shuffled := slices.Clone(s.migrations)
	rand.New(rand.NewPCG(uint64(roll(1<<31)), 0)).Shuffle(len(shuffled), func(i, j int) {
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	})
	return shuffled
}

// undisputed makes those with the same UID and State also the same in everything
// else, so that there is no question which one of them counts.
func (s scenario) undisputed() scenario {
	type key struct {
		uid   types.UID
		state quota.State
	}
	first := map[key]quota.Migration{}
	s.migrations = slices.Clone(s.migrations)
	for i, m := range s.migrations {
		if _, ok := first[key{m.UID, m.State}]; !ok {
			first[key{m.UID, m.State}] = m
		}
		s.migrations[i] = first[key{m.UID, m.State}]
	}
	return s
}

func (s scenario) decide() quota.Decision {
	return s.policy.Decide(s.static, s.migrations, s.used)
}

// String is what a failing test shows.
func (s scenario) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "eager %v, strict %v, budget %s, lift %s\nstatic %s\nused %s\n",
		s.policy.Eager, s.policy.Strict, listString(s.policy.Budget), listString(s.policy.Lift), listString(s.static), listString(s.used))
	for i, m := range s.migrations {
		if i == 20 {
			fmt.Fprintf(&out, "and %d more\n", len(s.migrations)-i)
			break
		}
		fmt.Fprintf(&out, "%q %v priority %d created %v surge %s held %s\n",
			m.UID, m.State, m.Priority, m.Created.UTC(), listString(m.Surge), listString(m.Held))
	}
	return out.String()
}

// GoString is what rapid shows.
func (s scenario) GoString() string { return "\n" + s.String() }

func listString(list corev1.ResourceList) string {
	if list == nil {
		return "nil"
	}
	var parts []string
	for name, q := range list {
		q = q.DeepCopy()
		parts = append(parts, fmt.Sprintf("%s=%s(%s)", name, q.String(), q.Format))
	}
	slices.Sort(parts)
	return "{" + strings.Join(parts, " ") + "}"
}
