package fake

import (
	"errors"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

var errGuarded = errors.New("ValidatingAdmissionPolicy 'headroom' denied request: " +
	"a virtual machine of this namespace is about to migrate, try again in a moment")

// checkGuard is a ValidatingAdmissionPolicy with the quotas of the namespace as parameters, which it sees
// through a cache of its own. While one of them has the annotation Config.Guard, and enforces more than its
// spec.hard, it refuses whatever is not for a migration.
func (c *Cluster) checkGuard(user string, o object) error {
	if c.config.Guard == "" || forMigration(user, o) {
		return nil
	}
	for _, rq := range c.guard.list(o.GetNamespace(), c.clock.now) {
		_, offered := rq.Annotations[c.config.Guard]
		for name, limit := range rq.Spec.Hard {
			if enforced := rq.Status.Hard[name]; offered && enforced.Cmp(limit) > 0 {
				return apierrors.NewForbidden(kindOf(o).groupResource(), o.GetName(), errGuarded)
			}
		}
	}
	return nil
}

// forMigration reports whether o is what KubeVirt creates for a migration, or what a pod that was admitted
// needs.
func forMigration(user string, o object) bool {
	labels := o.GetLabels()
	return user == claimControllerUser ||
		user == virtControllerUser && (labels[kubevirtv1.MigrationJobLabel] != "" || labels[kubevirtv1.MigrationNameLabel] != "")
}

// A quotaCache is what an admission plugin of the API server sees of the quotas: a little older than the store,
// and never older than before.
type quotaCache struct {
	*Cluster
	lag      Span
	versions map[string]map[string][]cachedQuota // by namespace and name, oldest first
}

// A cachedQuota is a version of a quota, with the time from when the cache has it. Nil is its deletion.
type cachedQuota struct {
	from  time.Time
	quota *corev1.ResourceQuota
}

func newQuotaCache(c *Cluster, lag Span) quotaCache {
	return quotaCache{Cluster: c, lag: lag, versions: map[string]map[string][]cachedQuota{}}
}

func (q quotaCache) observe(c change) {
	if c.kind != ResourceQuotas {
		return
	}
	o := c.object()
	quotas := q.versions[o.GetNamespace()]
	if quotas == nil {
		quotas = map[string][]cachedQuota{}
		q.versions[o.GetNamespace()] = quotas
	}
	versions := quotas[o.GetName()]
	next := cachedQuota{from: q.clock.now.Add(q.draw(q.lag))}
	next.quota, _ = c.after.(*corev1.ResourceQuota)
	if n := len(versions); n > 0 {
		next.from = later(next.from, versions[n-1].from)
	}
	for len(versions) > 1 && !versions[1].from.After(q.clock.now) {
		versions = versions[1:]
	}
	quotas[o.GetName()] = append(slices.Clip(versions), next)
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
