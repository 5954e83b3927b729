package quota

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A Migration is one live migration's claim on its namespace's quota: while a virtual machine
// live-migrates, two pods run for it, the source and the target, and the second one is charged too.
type Migration struct {
	// UID is that of the VirtualMachineInstanceMigration. The functions of this
	// package count a UID once, however often it is listed; see [Policy.Decide].
	UID types.UID
	// VMI names the virtual machine instance that moves. The rule does not read it; room is
	// made for one migration of a VMI at a time. Empty means that it is not known.
	VMI string
	// State is how far the migration has come.
	State State
	// Surge is what the migration charges twice in all, in ResourceQuota names
	// (limits.memory, requests.cpu, pods, ...) and in the units that a quota
	// uses for them: cores, bytes, objects. Negative amounts count as zero, and
	// a resource that the quota does not limit is ignored.
	Surge corev1.ResourceList
	// Held is the part of Surge that status.used already contains. Nil means
	// none of it, or all of it if State is Charged; an empty list that is not
	// nil means none. Amounts above Surge count as Surge, negative ones as zero.
	// Held counts only if State is Charged.
	Held corev1.ResourceList
	// Priority orders the migrations that wait for the budget: higher is granted
	// first.
	Priority int32
	// Growth is what the target pod asks for beside Surge and keeps afterwards: the growth of
	// a guest by hot-plug, which must fit the static limits. Nil means none. The rule does not
	// read it, nor Node, Over and RefusedBy; package applier does.
	Growth corev1.ResourceList
	// Node is the node that the migration leaves, for KubeVirt's limit of outbound
	// migrations per node. Empty means that it is not known.
	Node string
	// Over means that KubeVirt has ended the migration, and only its losing pod, or the claim
	// that this had, is still charged: it takes none of KubeVirt's parallel migrations.
	Over bool
	// RefusedBy is the name of the quota that refused the target pod last, as the API
	// server has said. It may be one that is no ResourceQuota of the namespace, such as
	// OpenShift's ClusterResourceQuota. Empty means that it is not known.
	RefusedBy string
	// Created breaks ties of Priority: the older is granted first. Those without
	// a time (the zero value) are older than all others.
	Created metav1.Time
	// Shares divide Surge and Held among pods that the scopes of a ResourceQuota
	// tell apart; their sums are Surge and Held. Nil means that all of it falls
	// to one pod with the zero Traits. Only [Under] reads them.
	Shares []Share
}

// A Share is the part of a migration's claim that has the same [Traits], so that
// the scopes of any one ResourceQuota select all of it or none of it.
type Share struct {
	Traits Traits
	Surge  corev1.ResourceList // as in Migration
	Held   corev1.ResourceList // as in Migration
}

// State is how far a migration has come. A greater one is more advanced.
type State int

const (
	// Queued migrations exist, but KubeVirt has not tried to create their target
	// pod yet, or waits for its own parallel limits.
	Queued State = iota
	// Blocked migrations had their target pod refused by quota.
	Blocked
	// Charged migrations have some of their surge in the quota's usage. They stay
	// so until the losing pod (the source after success, the target after failure
	// or abort) no longer counts.
	Charged
)

// String returns "Queued", "Blocked", "Charged", or "State(n)" for any other n.
func (s State) String() string {
	names := [...]string{Queued: "Queued", Blocked: "Blocked", Charged: "Charged"}
	if s < Queued || s > Charged {
		return "State(" + strconv.Itoa(int(s)) + ")"
	}
	return names[s]
}

// GrowthAboveStatic returns by how much m.Growth and regular, the usage that no migration
// holds, are together above the static limits, by resource, and nil if they are not. Only Growth
// of m is read, so that a webhook can ask before a hot-plug:
//
//	missing := quota.Migration{Growth: growth}.GrowthAboveStatic(rq.Spec.Hard, decision.Regular)
//
// A resource without a limit, and growth of zero or less, always fit, as in [Decision.Fits].
func (m Migration) GrowthAboveStatic(static, regular corev1.ResourceList) corev1.ResourceList {
	var missing corev1.ResourceList
	for name, q := range m.Growth {
		limit, limited := static[name]
		growth := amountOf(q)
		above := amountOf(regular[name]).plus(growth).minus(amountOf(limit))
		if !limited || growth.isZero() || above.isZero() {
			continue
		}
		if missing == nil {
			missing = corev1.ResourceList{}
		}
		missing[name] = above.in(formatOf(limit))
	}
	return missing
}

// DeepCopy returns a copy of m that shares no memory with it.
func (m Migration) DeepCopy() Migration {
	m.Surge, m.Held, m.Growth = m.Surge.DeepCopy(), m.Held.DeepCopy(), m.Growth.DeepCopy()
	if m.Shares == nil {
		return m
	}
	shares := make([]Share, len(m.Shares))
	for i, share := range m.Shares {
		shares[i] = Share{Traits: share.Traits, Surge: share.Surge.DeepCopy(), Held: share.Held.DeepCopy()}
	}
	m.Shares = shares
	return m
}

// OnlyClaims reports whether m charges claims and no pod: what a migration that is over has left
// behind. It keeps no other migration of its VMI waiting.
func (m Migration) OnlyClaims() bool {
	return len(m.Shares) > 0 && !slices.ContainsFunc(m.Shares, func(s Share) bool { return !s.Traits.Claim })
}
