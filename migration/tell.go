package migration

import (
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// The reasons of the events of a Controller; package applier has more.
const (
	eventRaised   = "HeadroomRaised"
	eventRestored = "HeadroomRestored"
	eventGranted  = "HeadroomGranted"
	eventWaiting  = "HeadroomWaiting"
)

// waitTime is for how long a migration waits for the same thing before it is told.
const waitTime = 2 * time.Second

// tell records an event on a quota when its first raise comes and when its last one has
// ended, and on the migrations that have an offer. In between kube-controller-manager and
// the applier lower and raise the quota again and again, which is no event.
func (c *Controller) tell(r Report, snapshot Snapshot) {
	results := map[string]applier.QuotaResult{}
	for _, q := range r.Result.Quotas {
		results[q.Name] = q
	}
	for _, rq := range r.Quotas {
		q, concerned := results[rq.Name]
		// Without a migration, kube-controller-manager is behind an edit of the static limits.
		raised := len(q.Decision.Granted) > 0 && !quota.Equal(q.Hard, q.Static)
		first, last := c.raised.note(rq.UID, raised, concerned)
		switch {
		case first:
			c.options.Recorder.Eventf(rq, corev1.EventTypeNormal, eventRaised,
				"The enforced limits are raised for %s: %s.", count(len(q.Decision.Granted)), amounts.Text(q.Hard, ", "))
		case last:
			c.options.Recorder.Eventf(rq, corev1.EventTypeNormal, eventRestored,
				"The enforced limits are the static ones again, no live migration needs more: %s.", amounts.Text(rq.Spec.Hard, ", "))
		}
		if q.Action != applier.Raised {
			continue
		}
		for _, vmim := range snapshot.Migrations {
			if slices.Contains(q.Offered, vmim.UID) {
				c.options.Recorder.Eventf(vmim, corev1.EventTypeNormal, eventGranted, "ResourceQuota %s has room for the target pod.", rq.Name)
			}
		}
	}
}

// waits are what migrations wait for, by namespace.
type waits struct {
	mu          sync.Mutex
	byNamespace map[string]map[types.UID]toldWait
}

// A toldWait is what a migration waits for, since when, and all that was told about it.
type toldWait struct {
	reason quota.DeferralReason
	since  time.Time
	told   []quota.DeferralReason
}

// tellWaiting records an event on each migration that waits for something, once for each
// reason, so that one that changes again and again is told once. It returns when to call it
// again; zero means after the next change.
func (c *Controller) tellWaiting(r Report, snapshot Snapshot) (again time.Duration) {
	c.waits.mu.Lock()
	defer c.waits.mu.Unlock()
	before, after := c.waits.byNamespace[r.Namespace], map[types.UID]toldWait{}
	for _, vmim := range snapshot.Migrations {
		if vmim == nil || vmim.IsFinal() {
			continue
		}
		w, known := before[vmim.UID]
		at := slices.IndexFunc(r.Waiting, func(w Wait) bool { return w.UID == vmim.UID })
		switch {
		case at < 0 && !known:
			continue
		case at < 0:
			w.reason = ""
		case w.reason != r.Waiting[at].Reason:
			w.reason, w.since = r.Waiting[at].Reason, snapshot.Now
		}
		if at >= 0 && !slices.Contains(w.told, w.reason) {
			if left := w.since.Add(waitTime).Sub(snapshot.Now); left > 0 {
				if again == 0 || left < again {
					again = left
				}
			} else {
				w.told = append(slices.Clip(w.told), w.reason)
				c.options.Recorder.Eventf(vmim, corev1.EventTypeNormal, eventWaiting, "%s: %s", w.reason, r.Waiting[at].Message)
			}
		}
		after[vmim.UID] = w
	}
	if c.waits.byNamespace == nil {
		c.waits.byNamespace = map[string]map[types.UID]toldWait{}
	}
	c.waits.byNamespace[r.Namespace] = after
	if len(after) == 0 {
		delete(c.waits.byNamespace, r.Namespace)
	}
	return again
}

func count(migrations int) string {
	if migrations == 1 {
		return "1 live migration"
	}
	return fmt.Sprintf("%d live migrations", migrations)
}

// episodes are the quotas with an event HeadroomRaised and no HeadroomRestored since.
type episodes struct {
	mu   sync.Mutex
	uids map[types.UID]bool
}

// note records whether a quota is raised for migrations, and whether it is or one concerns
// it. It returns whether that is the first raise, or the end of the last one.
func (e *episodes) note(uid types.UID, raised, concerned bool) (first, last bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	known := e.uids[uid]
	switch {
	case raised && !known:
		if e.uids == nil {
			e.uids = map[types.UID]bool{}
		}
		e.uids[uid] = true
		return true, false
	case known && !concerned:
		delete(e.uids, uid)
		return false, true
	}
	return false, false
}
