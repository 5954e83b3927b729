package quota_test

import (
	"cmp"
	"math/big"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/quota"
)

// plainDecide is Policy.Decide once more, written for the reader instead of the
// machine: on rational numbers, one step of the rule after the other.
func plainDecide(p quota.Policy, static corev1.ResourceList, migrations []quota.Migration, used corev1.ResourceList) quota.Decision {
	var charged, queue []plainClaim
	temporary := rats{}
	for _, m := range plainDistinct(migrations) {
		claim := plainClaim{Migration: m, surge: limitedBy(static, m.Surge)}
		switch {
		case m.State >= quota.Charged:
			charged = append(charged, claim)
			temporary.add(claim.held(static))
		case m.State == quota.Blocked || p.Eager:
			queue = append(queue, claim)
		}
	}

	regular, above, lifted := rats{}, rats{}, rats{}
	for name, limit := range static {
		regular[name] = positive(minus(positive(ratOf(used[name])), temporary.at(name)))
		lifted[name] = positive(ratOf(limit))
		if lift := regular[name]; !p.Strict {
			if most, capped := p.Lift[name]; capped && positive(ratOf(most)).Cmp(lift) < 0 {
				lift = positive(ratOf(most))
			}
			if lift.Cmp(lifted[name]) > 0 {
				lifted[name] = lift
			}
		}
		above[name] = positive(minus(regular[name], lifted[name]))
	}

	granted := charged
	admitted, deferred := plainQueue(p, queue, charged, above)
	granted = append(granted, admitted...)

	d := quota.Decision{
		Hard: corev1.ResourceList{}, Regular: corev1.ResourceList{},
		Temporary: corev1.ResourceList{}, Available: corev1.ResourceList{},
		Surge: corev1.ResourceList{}, Need: corev1.ResourceList{},
	}
	for name, limit := range static {
		floor := positive(ratOf(limit))
		surge := new(big.Rat)
		for _, claim := range granted {
			surge = plus(surge, claim.surge.at(name))
		}
		hard := plus(lifted[name], surge)
		d.Hard[name] = limit
		if hard.Cmp(floor) > 0 {
			d.Hard[name] = quantityOf(hard, limit.Format)
		}
		d.Regular[name] = quantityOf(regular[name], limit.Format)
		d.Temporary[name] = quantityOf(temporary.at(name), limit.Format)
		d.Surge[name] = quantityOf(surge, limit.Format)
		d.Need[name] = quantityOf(minus(surge, temporary.at(name)), limit.Format)
		d.Available[name] = quantityOf(positive(minus(floor, regular[name])), limit.Format)
	}
	for _, claim := range granted {
		d.Granted = append(d.Granted, claim.UID)
	}
	slices.Sort(d.Granted)
	for _, one := range deferred {
		missing := corev1.ResourceList{}
		for name, amount := range one.missing {
			missing[name] = quantityOf(amount, static[name].Format)
		}
		d.Deferred = append(d.Deferred, quota.Deferral{UID: one.UID, Reason: one.reason, Missing: missing})
	}
	return d
}

// A plainClaim is a migration and what it charges twice of the limited resources.
type plainClaim struct {
	quota.Migration
	surge rats // of the limited resources that it needs: never zero
}

// held is what used contains of the surge of a charged migration.
func (c plainClaim) held(static corev1.ResourceList) rats {
	if c.Held == nil {
		return c.surge
	}
	held := limitedBy(static, c.Held)
	for name := range held {
		if held[name].Cmp(c.surge.at(name)) > 0 {
			held[name] = c.surge.at(name)
		}
	}
	return held
}

type plainDeferral struct {
	plainClaim
	reason  quota.DeferralReason
	missing rats
}

// plainDistinct picks one migration of each UID: the most advanced, then the one
// with the greatest surge.
func plainDistinct(migrations []quota.Migration) []quota.Migration {
	chosen := map[types.UID]quota.Migration{}
	for _, m := range migrations {
		other, ok := chosen[m.UID]
		if !ok || m.State > other.State || m.State == other.State && sumOf(m.Surge).Cmp(sumOf(other.Surge)) > 0 {
			chosen[m.UID] = m
		}
	}
	var distinct []quota.Migration
	for _, m := range chosen {
		distinct = append(distinct, m)
	}
	return distinct
}

// plainQueue lets in those of queue for which the budget, Strict and Lift have room.
// Above is the regular usage that does not lift the limit.
func plainQueue(p quota.Policy, queue, charged []plainClaim, above rats) (admitted []plainClaim, deferred []plainDeferral) {
	slices.SortFunc(queue, func(a, b plainClaim) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), a.Created.Compare(b.Created.Time), cmp.Compare(a.UID, b.UID))
	})
	taken := rats{} // by the charged, and by all of the queue so far that could ever fit
	for _, claim := range charged {
		taken.add(claim.surge)
	}
	awaited := map[corev1.ResourceName]bool{} // what those in the queue wait for
	for _, claim := range queue {
		if excess := over(claim.surge, p.Budget); len(excess) > 0 {
			deferred = append(deferred, plainDeferral{claim, quota.BudgetExceeded, excess})
			continue
		}
		if unlifted := only(above, claim.surge); len(unlifted) > 0 {
			deferred = append(deferred, plainDeferral{claim, quota.RegularAboveStatic, unlifted})
			continue
		}
		taken.add(claim.surge)
		short := only(over(taken, p.Budget), claim.surge)
		if len(awaited) == 0 && len(short) == 0 {
			admitted = append(admitted, claim)
			continue
		}
		for name := range claim.surge {
			awaited[name] = true
		}
		missing := over(taken, p.Budget)
		for name := range missing {
			if !awaited[name] {
				delete(missing, name)
			}
		}
		deferred = append(deferred, plainDeferral{claim, quota.BudgetUsed, missing})
	}
	return admitted, deferred
}

// rats are amounts by resource; what is absent is zero.
type rats map[corev1.ResourceName]*big.Rat

func (r rats) at(name corev1.ResourceName) *big.Rat {
	if amount, ok := r[name]; ok {
		return amount
	}
	return new(big.Rat)
}

func (r rats) add(other rats) {
	for name, amount := range other {
		r[name] = plus(r.at(name), amount)
	}
}

// limitedBy returns the positive amounts of list that static limits.
func limitedBy(static, list corev1.ResourceList) rats {
	limited := rats{}
	for name, q := range list {
		if _, ok := static[name]; ok && q.Sign() > 0 {
			limited[name] = ratOf(q)
		}
	}
	return limited
}

// over returns by how much amounts are over budget, where they are.
func over(amounts rats, budget corev1.ResourceList) rats {
	excess := rats{}
	for name, amount := range amounts {
		if limit, ok := budget[name]; ok && amount.Cmp(positive(ratOf(limit))) > 0 {
			excess[name] = minus(amount, positive(ratOf(limit)))
		}
	}
	return excess
}

// only returns those amounts that are not zero and of which need has any.
func only(amounts, need rats) rats {
	both := rats{}
	for name := range need {
		if amount := amounts.at(name); amount.Sign() > 0 {
			both[name] = amount
		}
	}
	return both
}

func plus(a, b *big.Rat) *big.Rat  { return new(big.Rat).Add(a, b) }
func minus(a, b *big.Rat) *big.Rat { return new(big.Rat).Sub(a, b) }

func positive(a *big.Rat) *big.Rat {
	if a.Sign() < 0 {
		return new(big.Rat)
	}
	return a
}

func sumOf(list corev1.ResourceList) *big.Rat {
	sum := new(big.Rat)
	for _, q := range list {
		sum.Add(sum, positive(ratOf(q)))
	}
	return sum
}

func ratOf(q resource.Quantity) *big.Rat {
	q = q.DeepCopy()
	dec := q.AsDec()
	power := int64(dec.Scale())
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(max(power, -power)), nil)
	amount := new(big.Rat).SetInt(dec.UnscaledBig())
	if power < 0 {
		return amount.Mul(amount, new(big.Rat).SetInt(scale))
	}
	return amount.Quo(amount, new(big.Rat).SetInt(scale))
}

// quantityOf writes amount canonically in format, or in DecimalSI if that is empty.
func quantityOf(amount *big.Rat, format resource.Format) resource.Quantity {
	digits, ten := 0, new(big.Rat).SetInt64(10)
	for amount = new(big.Rat).Set(amount); !amount.IsInt(); digits++ {
		amount.Mul(amount, ten)
	}
	return decimal(amount.Num(), digits, cmp.Or(format, resource.DecimalSI))
}

// spelling is all that an API server sees of a Quantity, and its exact amount.
type spelling struct {
	Text, Amount string
	Format       resource.Format
}

func spellingOf(q resource.Quantity) spelling {
	amount := ratOf(q).RatString()
	return spelling{Text: q.String(), Amount: amount, Format: q.Format}
}

// exactly compares quantities by amount, text and format.
var exactly = gocmp.Options{gocmp.Transformer("spelling", spellingOf), cmpopts.EquateEmpty()}

// requireSame fails unless got is want exactly. A nil list is not an empty one.
func requireSame(t failer, want, got quota.Decision, s scenario) {
	t.Helper()
	if !sameDecision(want, got) {
		t.Fatalf("decisions differ (-want +got):\n%s\nof\n%s", gocmp.Diff(want, got, exactly), s)
	}
}

func sameDecision(a, b quota.Decision) bool {
	return sameList(a.Hard, b.Hard) && sameList(a.Regular, b.Regular) &&
		sameList(a.Temporary, b.Temporary) && sameList(a.Available, b.Available) &&
		sameList(a.Surge, b.Surge) && sameList(a.Need, b.Need) &&
		slices.Equal(a.Granted, b.Granted) &&
		slices.EqualFunc(a.Deferred, b.Deferred, func(a, b quota.Deferral) bool {
			return a.UID == b.UID && a.Reason == b.Reason && sameList(a.Missing, b.Missing)
		})
}

// requireSameList fails unless got is want exactly.
func requireSameList(t failer, want, got corev1.ResourceList, s scenario) {
	t.Helper()
	if !sameList(want, got) {
		t.Fatalf("lists differ (-want +got):\n%s\nof\n%s", gocmp.Diff(want, got, exactly), s)
	}
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// sameList is what exactly asks of two lists, without the cost of a report.
func sameList(a, b corev1.ResourceList) bool {
	if len(a) != len(b) || (a == nil) != (b == nil) {
		return false
	}
	for name, left := range a {
		right, ok := b[name]
		if !ok || left.Format != right.Format || left.Cmp(right) != 0 || textOf(left) != textOf(right) {
			return false
		}
	}
	return true
}

func textOf(q resource.Quantity) string {
	q = q.DeepCopy()
	return q.String()
}

func TestDecideIsThePlainRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		requirePlainRule(t, scenarios.Draw(t, "scenario").undisputed())
	})
	for of := range regimes {
		roll := seededDice(uint64(of))
		s := roll.contended()
		s.migrations = append(s.migrations, crowd(3000, uint64(of), of, s.names)...)
		requirePlainRule(t, s.undisputed())
	}
}

func FuzzDecide(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) { requirePlainRule(t, scenarios.Draw(t, "scenario").undisputed()) }))
}

func requirePlainRule(t failer, s scenario) {
	t.Helper()
	want := plainDecide(s.policy, s.static, s.migrations, s.used)
	requireSame(t, want, s.decide(), s)
	zero := quota.Policy{}.Decide(s.static, s.migrations, s.used)
	requireSameList(t, zero.Hard, quota.Effective(s.static, s.migrations, s.used), s)
}
