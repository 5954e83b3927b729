package applier

import (
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// A write that is refused is tried again, because RBAC and webhooks are repaired without
// a change of the quota. An API server that has just started refuses for a moment, until it
// has read the roles.
const (
	firstRefusalPause = 500 * time.Millisecond
	maxRefusalPause   = 5 * time.Minute
)

// refusals are those of our writes by the API server. The zero value has none.
type refusals struct {
	count         int
	until         time.Time // no attempt before
	err           error     // of the last one
	circumstances string    // in which it was refused
}

// add records a refusal, and reports whether it is the first of an episode.
func (r *refusals) add(rq *corev1.ResourceQuota, policy quota.Policy, err error, now time.Time) bool {
	pause := doubling(r.count, firstRefusalPause, maxRefusalPause)
	r.count++
	r.until, r.err, r.circumstances = now.Add(pause), err, circumstances(rq, policy)
	return r.count == 1
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
	policy.Lift = nil
	value, err := json.Marshal([]any{rq.Labels, rq.Annotations, rq.Spec, policy})
	if err != nil {
		return err.Error()
	}
	return string(value)
}
