package migration

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// waitTime is for how long a migration waits for the same thing before it is told.
const waitTime = 2 * time.Second

// tell records an event on a quota when its first raise comes and when its last one has
// ended, and on the migrations that have an offer. In between kube-controller-manager and
// the applier lower and raise the quota again and again, which is no event. If complete is false,
// r.Result may lack quotas that a migration concerns, so no raise is taken to have ended.
func (c *Controller) tell(past *history, r Report, snapshot Snapshot, complete bool) {
	results := map[string]applier.QuotaResult{}
	for _, q := range r.Result.Quotas {
		results[q.Name] = q
	}
	for _, rq := range r.Quotas {
		q, concerned := results[rq.Name]
		// Without a migration, kube-controller-manager is behind an edit of the static limits.
		raised := len(q.Decision.Granted) > 0 && !quota.Equal(q.Hard, q.Static)
		switch known := past.raised[rq.UID]; {
		case raised && !known:
			if past.raised == nil {
				past.raised = map[types.UID]bool{}
			}
			past.raised[rq.UID] = true
			c.options.Recorder.Eventf(rq, corev1.EventTypeNormal, "HeadroomRaised",
				"The enforced limits are raised for %s: %s.", count(len(q.Decision.Granted)), amounts.Text(q.Hard, ", "))
		case known && !concerned && complete:
			delete(past.raised, rq.UID)
			c.options.Recorder.Eventf(rq, corev1.EventTypeNormal, "HeadroomRestored",
				"The enforced limits are the static ones again, no live migration needs more: %s.",
				amounts.Text(rq.Spec.Hard, ", "))
		}
		for _, vmim := range snapshot.Migrations {
			if vmim != nil && q.Action == applier.Raised && slices.Contains(q.Offered, vmim.UID) {
				c.options.Recorder.Eventf(vmim, corev1.EventTypeNormal, "HeadroomGranted",
					"ResourceQuota %s has room for the target pod.", rq.Name)
			}
		}
	}
}

// A toldWait is what a migration waits for, since when, and all that was told about it.
type toldWait struct {
	reason quota.DeferralReason
	since  time.Time
	told   []quota.DeferralReason
}

// tellWaiting records an event on each migration that waits for something, once for each
// reason, so that one that changes again and again is told once. It returns when to call it
// again, because something is to be told or KubeVirt goes on; zero means after the next change.
func (c *Controller) tellWaiting(past *history, r Report, snapshot Snapshot) (again time.Duration) {
	waits := map[types.UID]toldWait{}
	for _, vmim := range snapshot.Migrations {
		if vmim == nil || vmim.IsFinal() {
			continue
		}
		w, known := past.waits[vmim.UID]
		at := slices.IndexFunc(r.Waiting, func(w Wait) bool { return w.UID == vmim.UID })
		if at < 0 {
			if known {
				w.reason = ""
				waits[vmim.UID] = w
			}
			continue
		}
		if w.reason != r.Waiting[at].Reason {
			w.reason, w.since = r.Waiting[at].Reason, snapshot.Now
		}
		if until := r.Waiting[at].Until; !until.IsZero() {
			again = sooner(again, until.Sub(snapshot.Now))
		}
		left := w.since.Add(waitTime).Sub(snapshot.Now)
		switch {
		case slices.Contains(w.told, w.reason):
		case left > 0:
			again = sooner(again, left)
		default:
			w.told = append(slices.Clip(w.told), w.reason)
			c.options.Recorder.Eventf(vmim, corev1.EventTypeNormal, "HeadroomWaiting", "%s: %s", w.reason, r.Waiting[at].Message)
		}
		waits[vmim.UID] = w
	}
	past.waits = waits
	return again
}

func count(migrations int) string {
	if migrations == 1 {
		return "1 live migration"
	}
	return fmt.Sprintf("%d live migrations", migrations)
}
