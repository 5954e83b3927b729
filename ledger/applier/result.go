package applier

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

// A Result is the outcome of one [Applier.Apply]. It shares no memory with the Applier.
type Result struct {
	// Quotas are those that migrations concern, those that are raised, and those whose
	// room was taken, sorted by name. The others were left alone.
	Quotas []QuotaResult
	// RequeueAfter is when to call Apply again if nothing changes before; the least of
	// those of Quotas. Zero means only after the next change.
	RequeueAfter time.Duration
}

// Offered returns the migrations that any of Quotas has open room for; nil if there is none.
func (r Result) Offered() map[types.UID]bool {
	var offered map[types.UID]bool
	for _, q := range r.Quotas {
		for _, uid := range q.Offered {
			offered = with(offered, uid)
		}
	}
	return offered
}

// A QuotaResult is what became of one ResourceQuota.
type QuotaResult struct {
	Name string
	// Static is spec.hard.
	Static corev1.ResourceList
	// Hard is status.hard as it is now.
	Hard corev1.ResourceList
	// Effective is what status.hard has to be. It differs from Hard while a write is
	// pending: see Why, RequeueAfter and Err.
	Effective corev1.ResourceList
	// Decision is what the rule makes of the quota for the migrations that are charged or
	// have an offer. Its Deferred are those that this quota is in the way of and that
	// get no room; beside the reasons of package quota there are those of this one. What
	// is deferred because of another quota of the namespace is in neither list.
	Decision quota.Decision
	// Queued are the migrations that see this quota and wait for their turn, or for KubeVirt,
	// with the reasons of this package. Missing is what they lack in the quota as it is; nil if
	// they fit.
	Queued []quota.Deferral
	// Offered are the UIDs of the migrations that this quota has open room for, sorted.
	Offered []types.UID
	Action  Action
	// Why says in one sentence why the limits are what they are, or what is waited for.
	Why string
	// Taken is regular usage above static that came while room was open for target pods.
	// Nil if there is none.
	Taken corev1.ResourceList
	// RequeueAfter is as in Result.
	RequeueAfter time.Duration
	// Err is why the quota is not as it should be: an [Error], or nil.
	Err error
}

// Action is what Apply has written to the status of a ResourceQuota.
type Action string

const (
	// Unchanged means nothing.
	Unchanged Action = "Unchanged"
	// Raised means higher enforced limits, at least one.
	Raised Action = "Raised"
	// Lowered means lower enforced limits, none of them below static.
	Lowered Action = "Lowered"
	// Restored means that status.hard is spec.hard again.
	Restored Action = "Restored"
	// Announced means OfferAnnotation alone, before the room or after it.
	Announced Action = "Announced"
)

// Reasons of deferrals beside those of package quota. Missing is nil unless said otherwise.
const (
	// Disabled means that a kill switch is on.
	Disabled quota.DeferralReason = "Disabled"
	// WriteRefused means that the API server refuses to write the quota.
	WriteRefused quota.DeferralReason = "WriteRefused"
	// RefusedElsewhere means that the target pod was refused by a quota that is no
	// ResourceQuota of the namespace, such as OpenShift's ClusterResourceQuota, so that room
	// does not help. See quota.Migration.RefusedBy.
	RefusedElsewhere quota.DeferralReason = "RefusedElsewhere"
	// GrowthAboveStatic means that the guest grows by hot-plug, and that the growth does
	// not fit the static limits, so the target pod can never come. Missing is what is
	// missing in the static limits.
	GrowthAboveStatic quota.DeferralReason = "GrowthAboveStatic"
)

// Reasons of QuotaResult.Queued. What KubeVirt can start is what [Parallel] says, or what was
// learned; [Plan] knows of the migrations of its namespace only.
const (
	// ParallelInCluster means that as many migrations run as KubeVirt runs in a cluster.
	ParallelInCluster quota.DeferralReason = "ParallelInCluster"
	// ParallelFromNode means that as many leave the node as KubeVirt lets leave one.
	ParallelFromNode quota.DeferralReason = "ParallelFromNode"
	// Outranked means that KubeVirt starts migrations of higher priority first.
	Outranked quota.DeferralReason = "Outranked"
	// Behind means that another migration of the same virtual machine is before it.
	Behind quota.DeferralReason = "Behind"
	// InTurn means that room is being made for others first.
	InTurn quota.DeferralReason = "InTurn"
	// OfferLapsed means that there was room, and KubeVirt did not create the target pod.
	OfferLapsed quota.DeferralReason = "OfferLapsed"
	// Unsettled means that usage has just risen above static, and must stand still first.
	Unsettled quota.DeferralReason = "Unsettled"
)

// sooner returns the lesser of two times to wait, of which zero is none at all.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
