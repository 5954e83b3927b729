package applier

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

const (
	// poolRetry is after what time a namespace that waits for the global budget asks
	// again.
	poolRetry = time.Second
	// poolPatience is for how long one that does not ask again keeps its turn.
	poolPatience = time.Minute
)

// A pool is the budget over all namespaces, and who has what of it.
type pool struct {
	budget corev1.ResourceList

	mu          sync.Mutex
	byNamespace map[string]share
}

// A share is what one namespace has of the pool, and what it waits for.
type share struct {
	granted, waiting []quota.Migration
	asked            time.Time
}

// ask makes wanted the migrations for which namespace wants to raise limits, and returns
// those that get nothing. What is charged, and what was granted before, stays granted.
// The others wait in the order of quota.Policy.Decide, over all namespaces.
func (p *pool) ask(namespace string, wanted []quota.Migration, now time.Time) []quota.Deferral {
	if len(p.budget) == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	mine := make([]quota.Migration, 0, len(wanted))
	for _, m := range wanted {
		mine = append(mine, p.claim(namespace, m))
	}
	decision := quota.Policy{Budget: p.budget}.Decide(p.budget, append(p.others(namespace, now), mine...), nil)
	deferred := map[types.UID]quota.Deferral{}
	for _, d := range decision.Deferred {
		deferred[d.UID] = d
	}

	var refused []quota.Deferral
	next := share{asked: now}
	for _, m := range mine {
		d, isDeferred := deferred[m.UID]
		if !isDeferred {
			m.State = quota.Charged
			next.granted = append(next.granted, m)
			continue
		}
		next.waiting = append(next.waiting, m)
		refused = append(refused, global(d))
	}
	p.keep(namespace, next)
	return refused
}

// claim is m as the pool counts it: all of its surge, whether held or not.
func (p *pool) claim(namespace string, m quota.Migration) quota.Migration {
	state := quota.Blocked
	if m.State >= quota.Charged || has(p.byNamespace[namespace].granted, m.UID) {
		state = quota.Charged
	}
	return quota.Migration{UID: m.UID, State: state, Surge: m.Surge, Priority: m.Priority, Created: m.Created}
}

// others are the claims of the other namespaces.
func (p *pool) others(namespace string, now time.Time) []quota.Migration {
	var claims []quota.Migration
	for name, s := range p.byNamespace {
		if name == namespace {
			continue
		}
		claims = append(claims, s.granted...)
		if now.Sub(s.asked) < poolPatience {
			claims = append(claims, s.waiting...)
		}
	}
	return claims
}

func (p *pool) keep(namespace string, s share) {
	if len(s.granted) == 0 && len(s.waiting) == 0 {
		delete(p.byNamespace, namespace)
		return
	}
	if p.byNamespace == nil {
		p.byNamespace = map[string]share{}
	}
	p.byNamespace[namespace] = s
}

func has(migrations []quota.Migration, uid types.UID) bool {
	for i := range migrations {
		if migrations[i].UID == uid {
			return true
		}
	}
	return false
}

// global says of a deferral that it is for the pool's budget.
func global(d quota.Deferral) quota.Deferral {
	if d.Reason == quota.BudgetExceeded {
		d.Reason = GlobalBudgetExceeded
	} else {
		d.Reason = GlobalBudgetUsed
	}
	return d
}
