package quota_test

import (
	"errors"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/quota"
)

// The properties that the rule promises, each a test of its name.

func TestNoMigrationsIsStatic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, roll := scenarios.Draw(t, "scenario"), rapidDice(t)
		s.migrations = pick(roll, [][]quota.Migration{nil, {}})
		if s.used == nil {
			s.used = corev1.ResourceList{}
		}
		for name, limit := range s.static {
			switch roll(4) {
			case 0:
				s.used[name] = limit.DeepCopy()
			case 1:
				delete(s.used, name)
			default:
				if used := s.used[name]; used.Cmp(limit) > 0 {
					s.used[name] = minusQuantity(limit, used)
				}
			}
		}
		requireSameList(t, notNil(s.static), s.decide().Hard, s)
		requireSameList(t, notNil(s.static), quota.Effective(s.static, s.migrations, s.used), s)
	})
}

func TestKeysAreStatic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scenarios.Draw(t, "scenario")
		d := s.decide()
		for _, list := range []corev1.ResourceList{
			d.Hard, d.Regular, d.Temporary, d.Available, d.Surge, d.Need, quota.Effective(s.static, s.migrations, s.used),
		} {
			if list == nil || !slices.Equal(sortedNames(s.static), sortedNames(list)) {
				t.Fatalf("the keys of %s are not those of\n%s", listString(list), s)
			}
		}
		for _, one := range d.Deferred {
			for name, missing := range one.Missing {
				if _, ok := s.static[name]; !ok || missing.Sign() <= 0 {
					t.Fatalf("%q misses %s %s in\n%s", one.UID, missing.String(), name, s)
				}
			}
		}
	})
}

func TestNeverBelowStatic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scenarios.Draw(t, "scenario")
		requireAtLeast(t, s.decide().Hard, s.static, s)
	})
}

func TestBlockedFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scenarios.Draw(t, "scenario").distinct()
		d := s.decide()
		claims := claimsOf(s, d)
		for name := range s.static {
			if s.unlifted(name, d).Sign() > 0 {
				// Strict and Lift promise this to those that are granted beyond the charged ones.
				if claims.asked.at(name).Sign() > 0 {
					t.Fatalf("granted although regular usage of %s is not lifted:\n%s", name, s)
				}
				continue
			}
			need := plus(positive(ratOf(s.used[name])), claims.open.at(name))
			if hard := ratOf(d.Hard[name]); need.Cmp(positive(hard)) > 0 {
				t.Fatalf("%s is %s, but the granted target pods need %s:\n%s", name, hard.FloatString(9), need.FloatString(9), s)
			}
		}
	})
}

func TestRegularGainsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scenarios.Draw(t, "scenario").distinct()
		claims := claimsOf(s, s.decide())
		// Used is exact: regular usage, and what the migrations hold.
		regular := s.used
		s.used = corev1.ResourceList{}
		for name := range s.static {
			s.used[name] = quantityOf(plus(positive(ratOf(regular[name])), claims.held.at(name)), resource.DecimalSI)
		}
		d := s.decide()
		claims = claimsOf(s, d)
		for name := range s.static {
			room := minus(minus(ratOf(d.Hard[name]), ratOf(s.used[name])), claims.open.at(name))
			if room.Cmp(ratOf(d.Available[name])) > 0 {
				t.Fatalf("regular workloads gain %s of %s:\n%s", room.FloatString(9), name, s)
			}
			if ratOf(d.Regular[name]).Cmp(positive(ratOf(regular[name]))) != 0 {
				t.Fatalf("regular usage of %s is not what it was:\n%s", name, s)
			}
		}
	})
}

func TestOrderFree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, roll := rapid.OneOf(scenarios, queues).Draw(t, "scenario"), rapidDice(t)
		s = s.contradicted(roll)
		want, shuffled := s.decide(), s
		shuffled.migrations = s.shuffled(roll)
		requireSame(t, want, shuffled.decide(), s)
		slices.Reverse(shuffled.migrations)
		requireSame(t, want, shuffled.decide(), s)
	})
}

func TestDuplicateOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, roll := scenarios.Draw(t, "scenario").distinct(), rapidDice(t)
		want := s.decide()

		// The same once more, and less advanced ones that say anything.
		twice := s
		var lesser []quota.Migration
		for _, m := range s.migrations[:min(8, len(s.migrations))] {
			if m.State == quota.Queued {
				continue
			}
			older := roll.migration(m.UID, s.regime, s.names)
			older.State = quota.State(roll(int(m.State)))
			lesser = append(lesser, older)
		}
		twice.migrations = slices.Concat(s.migrations, lesser, s.migrations)
		if roll.flip() {
			twice.migrations = slices.Concat(lesser, s.migrations)
		}
		requireSame(t, want, twice.decide(), twice)

		// Two that are equally advanced: one of them counts, not both, not a mix.
		if len(s.migrations) == 0 {
			return
		}
		i := roll(len(s.migrations))
		other := roll.migration(s.migrations[i].UID, s.regime, s.names)
		other.State = s.migrations[i].State
		disputed, instead := s, s
		disputed.migrations = append(slices.Clone(s.migrations), other)
		instead.migrations = slices.Clone(s.migrations)
		instead.migrations[i] = other
		if got := disputed.decide(); !sameDecision(want, got) {
			requireSame(t, instead.decide(), got, disputed)
		}
	})
}

func TestMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, roll := scenarios.Draw(t, "scenario").distinct(), rapidDice(t)
		// Without a budget: under one, a migration more may push out a greater one.
		s.policy.Budget = nil
		more := s
		more.migrations = append(slices.Clone(s.migrations), roll.migration("one more", s.regime, s.names))
		requireAtLeast(t, more.decide().Hard, s.decide().Hard, more)
	})
	rapid.Check(t, func(t *rapid.T) {
		s, roll := scenarios.Draw(t, "scenario"), rapidDice(t)
		if s.policy.Strict || s.policy.Lift != nil {
			s.policy.Budget = nil // as above: a larger static makes a migration more eligible
		}
		larger := s
		larger.static = corev1.ResourceList{}
		for name, limit := range s.static {
			increase := positive(ratOf(roll.amount(s.regime, 1)))
			larger.static[name] = quantityOf(plus(ratOf(limit), increase), pick(roll, quantityFormats))
		}
		requireAtLeast(t, larger.decide().Hard, s.decide().Hard, larger)
	})
}

func TestIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scenarios.Draw(t, "scenario")
		d := s.decide()

		// What a reconciler does next: it decides again.
		requireSame(t, d, s.decide(), s)

		// And the result stands when it is taken for static, without migrations.
		if !s.policy.Strict && s.policy.Lift == nil {
			requireSameList(t, d.Hard, quota.Effective(d.Hard, nil, s.used), s)
		}
	})
}

func TestPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		equal := triplets.Draw(t, "equal scenarios")
		s, untouched, other := equal[0], equal[1], equal[2]
		rq := scoped(corev1.ResourceQuotaScopeNotBestEffort)
		requireUntouched := func() {
			if !reflect.DeepEqual(untouched, s) { //nolint:forbidigo // this is about all of the memory, not about amounts
				t.Fatalf("an input was modified: now\n%s\nbefore\n%s", s, untouched)
			}
		}

		d := s.decide()
		err := d.Fits(s.used)
		seen := quota.Under(rq, s.migrations)
		all := quota.Under(scoped(), s.migrations)
		quota.Equal(s.static, s.used)
		effective := quota.Effective(s.static, s.migrations, s.used)

		// Whatever is done to one output shows in no input and in no other output.
		expected := other.decide()
		spoil(effective)
		spoilMigrations(seen)
		spoilMigrations(all)
		if exceeded := (*quota.ExceededError)(nil); errors.As(err, &exceeded) {
			spoilQuantity(exceeded.Requested)
			spoilQuantity(exceeded.Available)
		}
		requireSame(t, expected, d, s)
		lists := []corev1.ResourceList{d.Hard, d.Regular, d.Temporary, d.Available, d.Surge, d.Need}
		for _, one := range d.Deferred {
			lists = append(lists, one.Missing)
		}
		fresh := []corev1.ResourceList{expected.Hard, expected.Regular, expected.Temporary, expected.Available, expected.Surge, expected.Need}
		for _, one := range expected.Deferred {
			fresh = append(fresh, one.Missing)
		}
		for i := range lists {
			requireSameList(t, fresh[i], lists[i], s)
			spoil(lists[i])
		}
		clear(d.Granted)
		requireUntouched()
	})
}

// spoil does to a list and its quantities what a careless caller might.
func spoil(list corev1.ResourceList) {
	for name, q := range list {
		spoilQuantity(q)
		delete(list, name)
	}
}

// spoilQuantity overwrites the number that q points to, if it points to one.
func spoilQuantity(q resource.Quantity) {
	q.Add(resource.MustParse("12345678901234567890"))
	q.Neg()
}

func spoilMigrations(migrations []quota.Migration) {
	for i := range migrations {
		spoil(migrations[i].Surge)
		spoil(migrations[i].Held)
		spoil(migrations[i].Growth)
		for j := range migrations[i].Shares {
			spoil(migrations[i].Shares[j].Surge)
			spoil(migrations[i].Shares[j].Held)
			migrations[i].Shares[j].Traits.PriorityClass = "spoiled"
		}
		migrations[i].UID = "spoiled"
	}
}

// The race detector sees writes to shared inputs that leave them as they were.
func TestPureWhileShared(t *testing.T) {
	for seed := range uint64(20) {
		s := seededDice(seed).scenario()
		want := s.decide()
		var group sync.WaitGroup
		for range 4 {
			group.Add(1)
			go func() {
				defer group.Done()
				if !sameDecision(want, s.decide()) {
					t.Error("decided otherwise")
				}
				if err := want.Fits(s.used); err != nil {
					_ = err.Error()
				}
				quota.Effective(s.static, s.migrations, s.used)
				quota.Equal(s.static, s.used)
				quota.Under(scoped(corev1.ResourceQuotaScopeTerminating), s.migrations)
			}()
		}
		group.Wait()
	}
}

func TestNegativeIsZero(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scenarios.Draw(t, "scenario")
		zeroed := s
		zeroed.static, zeroed.used = withoutNegative(s.static), withoutNegative(s.used)
		zeroed.policy.Budget, zeroed.policy.Lift = withoutNegative(s.policy.Budget), withoutNegative(s.policy.Lift)
		zeroed.migrations = slices.Clone(s.migrations)
		for i, m := range s.migrations {
			zeroed.migrations[i].Surge, zeroed.migrations[i].Held = withoutNegative(m.Surge), withoutNegative(m.Held)
		}
		got := s.decide()
		got.Hard = withoutNegative(got.Hard) // a negative static limit that is not raised stays
		requireSame(t, zeroed.decide(), got, s)

		// So does an amount that is absent, but from static or a budget.
		absent := zeroed.distinct()
		want := absent.decide()
		absent.used = withoutZero(absent.used)
		for i, m := range absent.migrations {
			absent.migrations[i].Surge, absent.migrations[i].Held = withoutZero(m.Surge), withoutZero(m.Held)
		}
		requireSame(t, want, absent.decide(), s)

		// Total also where the state and the format are none that there are.
		for i := range s.migrations {
			s.migrations[i].State = quota.State(i*1000 - 2000)
		}
		for name, q := range s.static {
			q.Format = "none"
			s.static[name] = q
		}
		s.decide()
	})
}

func withoutNegative(list corev1.ResourceList) corev1.ResourceList {
	positive := maps.Clone(list)
	for name, q := range positive {
		if q.Sign() < 0 {
			positive[name] = resource.Quantity{Format: q.Format}
		}
	}
	return positive
}

func withoutZero(list corev1.ResourceList) corev1.ResourceList {
	positive := maps.Clone(list)
	maps.DeleteFunc(positive, func(_ corev1.ResourceName, q resource.Quantity) bool { return q.IsZero() })
	return positive
}

// unlifted is the regular usage that does not lift the limit.
func (s scenario) unlifted(name corev1.ResourceName, d quota.Decision) *big.Rat {
	regular, lifted := ratOf(d.Regular[name]), positive(ratOf(s.static[name]))
	if lift, capped := s.policy.Lift[name]; s.policy.Strict {
		return positive(minus(regular, lifted))
	} else if capped && positive(ratOf(lift)).Cmp(lifted) > 0 {
		return positive(minus(regular, positive(ratOf(lift))))
	} else if capped {
		return positive(minus(regular, lifted))
	}
	return new(big.Rat)
}

// claims are sums over the granted of a decision.
type claims struct {
	held  rats // of the charged
	open  rats // surge that is not held
	asked rats // surge of those that are not charged
	surge rats
}

// claimsOf adds up what the migrations of s that d grants charge. No UID may be
// there twice.
func claimsOf(s scenario, d quota.Decision) claims {
	sums := claims{rats{}, rats{}, rats{}, rats{}}
	for _, m := range s.migrations {
		if !slices.Contains(d.Granted, m.UID) {
			continue
		}
		claim := plainClaim{Migration: m, surge: limitedBy(s.static, m.Surge)}
		sums.surge.add(claim.surge)
		sums.open.add(claim.surge)
		if m.State != quota.Charged {
			sums.asked.add(claim.surge)
			continue
		}
		sums.held.add(claim.held(s.static))
		for name, amount := range claim.held(s.static) {
			sums.open[name] = minus(sums.open.at(name), amount)
		}
	}
	return sums
}

// requireAtLeast fails if a limit of list is lower than that of floor.
func requireAtLeast(t failer, list, floor corev1.ResourceList, s scenario) {
	t.Helper()
	for name, limit := range floor {
		if got := list[name]; got.Cmp(limit) < 0 {
			t.Fatalf("%s is %s, which is below %s:\n%s", name, textOf(got), textOf(limit), s)
		}
	}
}

func notNil(list corev1.ResourceList) corev1.ResourceList {
	if list == nil {
		return corev1.ResourceList{}
	}
	return list
}

func sortedNames(list corev1.ResourceList) []corev1.ResourceName {
	return slices.Sorted(maps.Keys(list))
}

func minusQuantity(a, b resource.Quantity) resource.Quantity {
	return quantityOf(minus(ratOf(a), ratOf(b)), a.Format)
}

// The budget's own properties.

func TestBudgetHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(queues, queues, scenarios).Draw(t, "scenario").distinct()
		d := s.decide()
		var asked []types.UID // and the charged
		for _, m := range s.migrations {
			if m.State >= quota.Blocked || s.policy.Eager {
				asked = append(asked, m.UID)
			}
		}

		// Each that asked is granted or deferred, and the charged are granted.
		outcome := slices.Clone(d.Granted)
		for _, one := range d.Deferred {
			outcome = append(outcome, one.UID)
		}
		slices.Sort(outcome)
		if !slices.IsSorted(d.Granted) || !slices.Equal(outcome, slices.Sorted(slices.Values(asked))) {
			t.Fatalf("granted %q, deferred %v of\n%s", d.Granted, d.Deferred, s)
		}

		// What is granted beyond the charged is within the budget.
		claims := claimsOf(s, d)
		for name := range over(claims.surge, s.policy.Budget) {
			if claims.asked.at(name).Sign() > 0 {
				t.Fatalf("granted more %s than the budget has:\n%s", name, s)
			}
		}
	})
}
