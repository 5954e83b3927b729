package fake

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// A guard is a ValidatingAdmissionPolicy with the quotas of the namespace as parameters.
// While one of them has the annotation Config.Guard, and enforces more than its spec.hard,
// it refuses whatever is not for a migration. It sees quotas through a cache of its own.
type guard struct {
	*Cluster
	cache quotaCache
}

func newGuard(c *Cluster) *guard {
	return &guard{Cluster: c, cache: newQuotaCache(c, c.config.Timing.Guard)}
}

var errGuarded = errors.New("ValidatingAdmissionPolicy 'headroom' denied request: " +
	"a virtual machine of this namespace is about to migrate, try again in a moment")

// observe is told of every change.
func (g *guard) observe(c change) {
	if g.config.Guard != "" {
		g.cache.observe(c)
	}
}

// check refuses o while an offer is open.
func (g *guard) check(user string, o object) error {
	if g.config.Guard == "" || forMigration(user, o) {
		return nil
	}
	for _, rq := range g.cache.list(o.GetNamespace(), g.clock.now) {
		if _, offered := rq.Annotations[g.config.Guard]; offered && raisedAbove(rq.Spec.Hard, rq.Status.Hard) {
			return apierrors.NewForbidden(kindOf(o).groupResource(), o.GetName(), errGuarded)
		}
	}
	return nil
}

func raisedAbove(static, enforced corev1.ResourceList) bool {
	for name, limit := range enforced {
		if q, limited := static[name]; limited && limit.Cmp(q) > 0 {
			return true
		}
	}
	return false
}

// forMigration reports whether o is what KubeVirt creates for a migration, or what a pod that
// was let in needs.
func forMigration(user string, o object) bool {
	if user == claimControllerUser {
		return true
	}
	labels := o.GetLabels()
	return user == virtControllerUser && (labels[kubevirtv1.MigrationJobLabel] != "" || labels[kubevirtv1.MigrationNameLabel] != "")
}
