package migration

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/klog/v2"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// behindTime is how long pods and quotas must disagree before a migration counts as ended: their
// watch events never arrive at the same moment.
const behindTime = 100 * time.Millisecond

// compare sets Report.Behind. If it has been non-empty for behindTime, compare also removes from
// Report.InFlight the migrations that are over and whose losing pods no quota counts any more:
// their surge must not raise the limits while the cache of pods is stale. Quota is charged for a
// pod before the pod is stored, so pods in the cache cannot exceed status.used unless one of the
// two is stale. Since is when Report.Behind became non-empty; zero if it was empty.
func (r *Report) compare(s Snapshot, quotas []*corev1.ResourceQuota, since time.Time) {
	r.Behind = map[string]corev1.ResourceList{}
	for _, rq := range quotas {
		shown := corev1.ResourceList{}
		for _, pod := range s.Pods {
			if pod != nil && launchedFor(pod) != "" && !quota.Ended(pod, s.Now) && quota.Selects(rq, pod) {
				add(shown, quota.FootprintAt(calculablePod(pod), s.Now))
			}
		}
		more := amounts.Each(counted(rq, shown), rq.Status.Used, amounts.Minus)
		maps.DeleteFunc(more, func(_ corev1.ResourceName, q resource.Quantity) bool { return q.Sign() <= 0 })
		if len(more) > 0 {
			r.Behind[rq.Name] = more
		}
	}
	if len(r.Behind) == 0 || since.IsZero() || s.Now.Sub(since) < behindTime {
		return
	}
	left := r.Behind
	r.InFlight = slices.DeleteFunc(slices.Clone(r.InFlight), func(m quota.Migration) bool {
		less := maps.Clone(left)
		for _, rq := range quotas {
			for _, seen := range quota.Under(rq, []quota.Migration{m}) {
				surge := counted(rq, seen.Surge)
				if amounts.Exceeds(surge, left[rq.Name]) {
					return false
				}
				less[rq.Name] = amounts.Each(left[rq.Name], surge, amounts.Minus)
			}
		}
		if m.Over {
			left = less
		}
		return m.Over
	})
}

// counted returns the resources of list that rq counts.
func counted(rq *corev1.ResourceQuota, list corev1.ResourceList) corev1.ResourceList {
	list = maps.Clone(list)
	maps.DeleteFunc(list, func(name corev1.ResourceName, _ resource.Quantity) bool {
		return missing(rq.Status.Used, name)
	})
	return list
}

// tellBehind logs once that pods and quotas have not agreed for a while. It returns when to call
// it again; zero means after the next change.
func (c *Controller) tellBehind(ctx context.Context, past *history, r Report, now time.Time) (again time.Duration) {
	if len(r.Behind) == 0 {
		past.behind, past.toldBehind = time.Time{}, false
		return 0
	}
	if past.behind.IsZero() {
		past.behind = now
	}
	if left := past.behind.Add(behindTime).Sub(now); left > 0 {
		return left
	}
	left := past.behind.Add(waitTime).Sub(now)
	if left > 0 || past.toldBehind {
		return max(left, 0)
	}
	past.toldBehind = true
	for _, name := range slices.Sorted(maps.Keys(r.Behind)) {
		klog.FromContext(ctx).Info("The cache of pods shows more than the quota counts: one of both is late",
			"resourceQuota", klog.KRef(r.Namespace, name), "amount", amounts.Text(r.Behind[name], ", "))
	}
	return 0
}
