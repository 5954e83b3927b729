package applier

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

// A memory is what an Applier remembers about one ResourceQuota. It is lost with a
// restart. Then the same limits are enforced, a little sooner or later.
type memory struct {
	latest   *corev1.ResourceQuota // the answer to our last write
	history  history
	baseline baseline
	refusals refusals

	// What has been told in events already.
	deferred string
	taken    corev1.ResourceList
	takenAt  time.Time // since when something is taken, or less than before
}

// remember keeps h for the next plan.
func (m *memory) remember(h history) {
	if len(m.history.offered) > 0 && len(h.offered) == 0 {
		m.baseline.take()
	}
	m.history = h
}

// newest returns the later of rq, which may come from a cache, and the answer to our
// last write.
func (m *memory) newest(rq *corev1.ResourceQuota) *corev1.ResourceQuota {
	if m.latest == nil {
		return rq
	}
	theirs, err := strconv.ParseUint(rq.ResourceVersion, 10, 64)
	ours, oursErr := strconv.ParseUint(m.latest.ResourceVersion, 10, 64)
	if err == nil && oursErr == nil && theirs < ours {
		return m.latest
	}
	m.latest = nil
	return rq
}

// Memories are those of one namespace by UID, so that a quota that is recreated is another
// one. They are for one call of Apply at a time.
type memories map[types.UID]*memory

// of returns the memory of rq; a new one if there is none.
func (m memories) of(rq *corev1.ResourceQuota) *memory {
	if m[rq.UID] == nil {
		m[rq.UID] = &memory{}
	}
	return m[rq.UID]
}

// forget drops what is about quotas that are gone, and about those that are not in use
// (migrations concern them, or they are raised) and have nothing to remember.
func (m memories) forget(quotas []*corev1.ResourceQuota, inUse []*view) {
	maps.DeleteFunc(m, func(uid types.UID, known *memory) bool {
		if slices.ContainsFunc(inUse, func(v *view) bool { return v.memory == known }) {
			return false
		}
		exists := slices.ContainsFunc(quotas, func(rq *corev1.ResourceQuota) bool { return rq.UID == uid })
		return !exists || known.latest == nil && known.refusals.count == 0
	})
}

// A write that is refused is tried again, because RBAC and webhooks are repaired without
// a change of the quota. An API server that has just started refuses for a moment, until it
// has read the roles.
const (
	firstRefusalPause = 500 * time.Millisecond
	maxRefusalPause   = 5 * time.Minute
)

// refusals are those of our writes by the API server. The zero value has none.
type refusals struct {
	count         int       // in a row
	until         time.Time // no attempt before
	err           error     // of the last one
	circumstances string    // in which it was refused
}

func (r *refusals) add(rq *corev1.ResourceQuota, policy quota.Policy, err error, now time.Time) {
	pause := doubling(r.count, firstRefusalPause, maxRefusalPause)
	*r = refusals{count: r.count + 1, until: now.Add(pause), err: err, circumstances: circumstances(rq, policy)}
}

// hold returns for how long not to try, zero if now. Other circumstances are worth a try.
func (r *refusals) hold(rq *corev1.ResourceQuota, policy quota.Policy, now time.Time) time.Duration {
	if r.count == 0 || !now.Before(r.until) || r.circumstances != circumstances(rq, policy) {
		return 0
	}
	return r.until.Sub(now)
}

// circumstances are what a refusal may depend on, as far as it can be seen: the quota
// but for its status, and the policy.
func circumstances(rq *corev1.ResourceQuota, policy quota.Policy) string {
	value, err := json.Marshal([]any{rq.Labels, rq.Annotations, rq.Spec, policy})
	if err != nil {
		return err.Error()
	}
	return string(value)
}
