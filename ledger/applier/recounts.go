package applier

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

// syncPeriod is how often kube-controller-manager recounts at the least, by default.
const syncPeriod = 5 * time.Minute

// recounts tell how far the usage of regular workloads can be believed to have fallen. It
// falls only when kube-controller-manager recounts. It seems to fall until the caches show that a
// pod has ended which a migration was charged for (they have putBackPause for that), and if
// kube-controller-manager recounts when a target pod is charged and not stored yet, until the
// next recount. The zero value has seen nothing.
type recounts struct {
	at        time.Time               // of the last recount
	counted   corev1.ResourceList     // usage after it
	before    corev1.ResourceList     // regular usage before it, and while fresh what has come since
	fresh     bool                    // it is not putBackPause ago
	uncounted []quota.Migration       // what usage lacks; while fresh, what it may lack
	charged   map[types.UID]time.Time // since when migrations are

	enforced, used, regular corev1.ResourceList // at the last look
}

// look records what v sees. If usage has fallen, or a limit that we did not lower,
// kube-controller-manager has recounted.
func (r *recounts) look(v *view) {
	status, regular := v.rq.Status, v.memory.baseline.before(v.rq.Spec.Hard, v.closed.Regular)
	recounted := exceeds(r.used, status.Used) || exceeds(r.enforced, status.Hard)
	switch {
	case recounted:
		r.before = r.believed(r.regular)
		r.at, r.counted, r.fresh, r.uncounted = v.now, status.Used, true, nil
	case quota.Equal(r.used, status.Used):
		regular = each(regular, r.regular, least) // a pod that has ended, or come, in the caches only
	case r.fresh:
		r.before = each(r.before, each(status.Used, r.used, minus), plus)
	}
	r.noteCharged(v, recounted)
	r.enforced, r.used, r.regular = status.Hard, status.Used, regular
	if r.fresh && !v.now.Before(r.at.Add(putBackPause)) {
		r.settle(regular)
	}
	if !v.now.Before(r.at.Add(syncPeriod)) {
		r.uncounted = nil
	}
}

// noteCharged notes which migrations are charged, and which of them the last recount may have
// missed: those that were charged at about that time, and not since.
func (r *recounts) noteCharged(v *view, recounted bool) {
	var charged map[types.UID]time.Time
	if len(v.charged) > 0 {
		charged = make(map[types.UID]time.Time, len(v.charged))
	}
	for _, m := range v.charged {
		since, known := r.charged[m.UID]
		if !known {
			since = v.now
		}
		charged[m.UID] = since
		switch {
		case !r.fresh || known && !recounted || r.at.Sub(since) >= putBackPause:
		case short(m, v.rq.Status.Used, r.counted) != nil:
			r.uncounted = append(slices.Clip(r.uncounted), m)
		default: // usage has risen by it since
			r.counted = each(r.counted, m.Surge, plus)
			r.before = each(r.before, m.Surge, minus)
		}
	}
	r.charged = charged
}

// settle keeps of the uncounted those by which regular usage has fallen.
func (r *recounts) settle(regular corev1.ResourceList) {
	r.fresh = false
	var missed []quota.Migration
	for _, m := range r.uncounted {
		if short(m, r.before, regular) == nil {
			missed = append(missed, m)
			regular = each(regular, m.Surge, plus)
		}
	}
	r.uncounted = missed
}

// believed returns how much of regular usage that seems to be regular.
func (r *recounts) believed(regular corev1.ResourceList) corev1.ResourceList {
	if r.fresh {
		return each(regular, r.before, most)
	}
	for _, m := range r.uncounted {
		regular = each(regular, m.Surge, plus)
	}
	return regular
}

// end is when what is believed is as it seems, if there is no recount before.
func (r *recounts) end() time.Time {
	if r.fresh {
		return r.at.Add(putBackPause)
	}
	return r.at.Add(syncPeriod)
}

// hold lowers d.Hard so that regular pods get no more room than regular usage that can be
// believed leaves them.
func (v *view) hold(d *quota.Decision) {
	if v.partial || !v.recounts.fresh && len(v.recounts.uncounted) == 0 {
		return
	}
	regular := v.recounts.believed(d.Regular)
	for name, hard := range d.Hard {
		static := v.rq.Spec.Hard[name]
		room := plus(minus(static, regular[name]), d.Need[name])
		if safe := most(static, plus(v.rq.Status.Used[name], room)); safe.Cmp(hard) < 0 {
			d.Hard[name] = safe
			v.held = v.recounts.end().Sub(v.now)
		}
	}
}
