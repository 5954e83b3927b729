package fake

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A quotaCache is what an admission plugin of the API server sees of the quotas: a little
// older than the store, and never older than before.
type quotaCache struct {
	*Cluster
	lag      Span
	versions map[string]map[string][]cachedQuota // by namespace and name, oldest first
}

// A cachedQuota is a version of a quota, with the time from when the cache has it. Nil
// is its deletion.
type cachedQuota struct {
	from  time.Time
	quota *corev1.ResourceQuota
}

func newQuotaCache(c *Cluster, lag Span) quotaCache {
	return quotaCache{Cluster: c, lag: lag, versions: map[string]map[string][]cachedQuota{}}
}

// observe is told of every change.
func (q quotaCache) observe(c change) {
	if c.kind != ResourceQuotas {
		return
	}
	o := c.object()
	if q.versions[o.GetNamespace()] == nil {
		q.versions[o.GetNamespace()] = map[string][]cachedQuota{}
	}
	versions := q.versions[o.GetNamespace()][o.GetName()]
	next := cachedQuota{from: q.clock.now.Add(q.draw(q.lag))}
	next.quota, _ = c.after.(*corev1.ResourceQuota)
	if n := len(versions); n > 0 && next.from.Before(versions[n-1].from) {
		next.from = versions[n-1].from
	}
	for len(versions) > 1 && !versions[1].from.After(q.clock.now) {
		versions = versions[1:]
	}
	q.versions[o.GetNamespace()][o.GetName()] = append(slices.Clip(versions), next)
}

// list returns the quotas of namespace as they are in the cache at that time, by name.
func (q quotaCache) list(namespace string, at time.Time) []*corev1.ResourceQuota {
	var seen []*corev1.ResourceQuota
	for _, name := range slices.Sorted(maps.Keys(q.versions[namespace])) {
		var rq *corev1.ResourceQuota
		for _, version := range q.versions[namespace][name] {
			if !version.from.After(at) {
				rq = version.quota
			}
		}
		if rq != nil {
			seen = append(seen, rq)
		}
	}
	return seen
}
