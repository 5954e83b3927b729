package migration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// The reasons of the events of a Controller; package applier has more.
const (
	eventRaised   = "HeadroomRaised"
	eventRestored = "HeadroomRestored"
	eventGranted  = "HeadroomGranted"
)

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
				"The enforced limits are raised for %s: %s.", count(len(q.Decision.Granted)), text(q.Hard))
		case last:
			c.options.Recorder.Eventf(rq, corev1.EventTypeNormal, eventRestored,
				"The enforced limits are the static ones again, no live migration needs more: %s.", text(rq.Spec.Hard))
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

func count(migrations int) string {
	if migrations == 1 {
		return "1 live migration"
	}
	return fmt.Sprintf("%d live migrations", migrations)
}

// text returns list for people.
func text(list corev1.ResourceList) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(list)) {
		q := list[name].DeepCopy()
		parts = append(parts, fmt.Sprintf("%s=%s", name, q.String()))
	}
	return strings.Join(parts, ", ")
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
