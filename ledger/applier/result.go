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
	// have an offer. Its Deferred are those that this quota is in the way of and that get no
	// room, also for reasons of this package. Those deferred because of another quota of the
	// namespace are in neither list.
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

// The actions.
const (
	Unchanged Action = "Unchanged" // nothing
	Raised    Action = "Raised"    // higher enforced limits, at least one
	Lowered   Action = "Lowered"   // lower enforced limits, none of them below static
	Restored  Action = "Restored"  // status.hard is spec.hard again
	Announced Action = "Announced" // OfferAnnotation alone, before the room or after it
)

// Reasons of deferrals beside those of package quota; [Sentence] says what each means.
// Missing is nil unless said otherwise.
const (
	Disabled     quota.DeferralReason = "Disabled"
	WriteRefused quota.DeferralReason = "WriteRefused"
	// RefusedElsewhere is for a target pod that was refused by a quota which is no
	// ResourceQuota of the namespace, such as OpenShift's ClusterResourceQuota, so that room
	// does not help. See quota.Migration.RefusedBy.
	RefusedElsewhere quota.DeferralReason = "RefusedElsewhere"
	// GrowthAboveStatic is for a guest that grows by hot-plug by more than the static limits
	// have left, so the target pod can never come. Missing is what they lack.
	GrowthAboveStatic quota.DeferralReason = "GrowthAboveStatic"
)

// Reasons of QuotaResult.Queued; [Sentence] says what each means. What KubeVirt can start is
// what [Parallel] says, or what was learned; [Plan] knows of the migrations of its namespace only.
const (
	ParallelInCluster quota.DeferralReason = "ParallelInCluster"
	ParallelFromNode  quota.DeferralReason = "ParallelFromNode"
	Outranked         quota.DeferralReason = "Outranked"
	Behind            quota.DeferralReason = "Behind"
	InTurn            quota.DeferralReason = "InTurn"
	OfferLapsed       quota.DeferralReason = "OfferLapsed"
	Unsettled         quota.DeferralReason = "Unsettled"
)
