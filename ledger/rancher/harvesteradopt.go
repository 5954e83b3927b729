package rancher

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// scaled are the limits that Harvester raises. It leaves all others alone.
var scaled = []corev1.ResourceName{corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory}

// HarvesterStatic returns the static limits of rq, which Harvester may have raised: what
// Rancher last wrote to the quota, as far as that can be told. Limits are what the
// annotation of the namespace asks for ([Limits]), read after rq, and nil if it is not
// there or cannot be read.
//
// It is not spec.hard less what the annotations add. Harvester writes the annotations
// first and spec.hard later, Rancher resets spec.hard and leaves the annotations, and an
// entry may have leaked: each time the difference is less than what the tenant was given
// (harvester/harvester issue 7178 ended at 26 of 30 that way). And it is not what the
// namespace asks for, which Rancher may have refused. The answer is never below what
// Rancher wrote, and above it only where nothing tells:
//
//   - Without a sign of Harvester, and for every limit but limits.cpu and limits.memory,
//     it is what [applier.Static] says.
//   - A limit that is as this library wrote it last, or was reset to what the library
//     recorded as static, is static as the library recorded it.
//   - A limit below the namespace's is one that Harvester has not raised, because it
//     raises from there: Rancher gave less than was asked for, and that is static.
//   - A limit above the namespace's is the namespace's, raised. By how much does not
//     matter: an entry may have come or gone, and spec.hard not have followed.
//   - Unless somebody else may have set it: a person, who told Harvester to skip the quota;
//     or anybody, since this library recorded the limits. Then it is the namespace's, or
//     the recorded one, only if the annotations explain the rest exactly.
//   - Where the namespace has no such limit, or zero, Harvester raises nothing.
//   - Without the namespace's limits, annotations that spec.hard has followed
//     (HarvesterRecord.Followed) are subtracted, unless that leaves nothing of limits.cpu
//     or of limits.memory: Harvester raises no limit from zero, and it says that it has
//     followed also where it skips a namespace without limits. (It is too little if the
//     namespace has lost them in the moment between an entry and its raise.) In all other
//     cases the limit stands as it is. Rancher, which sees the static limits, sets them right when it next looks at
//     the namespace.
//
// The error is that of [ReadHarvester] or, with no limits, of applier.Static. Malformed
// entries do not matter where the namespace's limits are known; elsewhere nothing is
// subtracted.
func HarvesterStatic(rq *corev1.ResourceQuota, limits corev1.ResourceList) (corev1.ResourceList, error) {
	static, err := applier.Static(rq)
	if rq == nil || err != nil {
		return nil, err
	}
	record, malformed := ReadHarvester(rq)
	if !record.scales() && malformed == nil {
		return static, nil
	}
	s := scaling{record: record, limits: limits, known: malformed == nil, skips: HarvesterSkips(rq)}
	s.recorded, _ = readList(rq.Annotations[applier.StaticAnnotation]) // nil if the quota has none
	s.applied, _ = readList(rq.Annotations[applier.AppliedAnnotation])
	s.followed = s.record.followed(rq.Spec.Hard)
	for _, name := range scaled {
		if live, ok := rq.Spec.Hard[name]; ok {
			static[name] = s.static(name, live).DeepCopy()
		}
	}
	return static, malformed
}

// A scaling is what there is to tell a static limit from a raised one.
type scaling struct {
	record            HarvesterRecord
	limits            corev1.ResourceList
	recorded, applied corev1.ResourceList
	known             bool // all of the record could be read
	skips             bool
	followed          bool // spec.hard contains what the record adds
}

// static returns the static limit of name, of which live is there.
func (s scaling) static(name corev1.ResourceName, live resource.Quantity) resource.Quantity {
	added := s.record.added(name)
	ours, recorded := s.recorded[name]
	if recorded && (live.Cmp(s.applied[name]) == 0 || live.Cmp(ours) == 0) {
		return ours
	}
	explained := func(base resource.Quantity) bool {
		raised := plus(base, added)
		return s.known && raised.Cmp(live) == 0
	}
	asked, limited := s.limits[name]
	limited = limited && asked.Sign() > 0
	switch {
	case limited && live.Cmp(asked) <= 0:
		return live
	case limited && (explained(asked) || !recorded && !s.skips):
		return asked
	case recorded && explained(ours):
		return ours
	case s.limits == nil && s.followed && s.known && !recorded && !s.skips:
		return less(live, added)
	default:
		return live
	}
}

// AdoptHarvester returns a copy of rq, to be written by one update, in which Harvester's
// annotations are those of this library, and nil if there is nothing to adopt. Spec.hard
// is as it was, so that no limit is lower or higher for being adopted; its static limits
// (HarvesterStatic) are recorded, and the applier takes it from there. If nothing is in
// flight in the namespace, spec.hard is static at once. Everything else in rq stays,
// HarvesterSkip too.
//
// The error is that of HarvesterStatic. If there is a copy beside it, writing that is
// right: what was malformed is gone then, and has been told of. If the annotations of
// this library cannot be read there is no copy.
func AdoptHarvester(rq *corev1.ResourceQuota, limits corev1.ResourceList, inFlight bool) (*corev1.ResourceQuota, error) {
	before, err := applier.Static(rq)
	if rq == nil || err != nil {
		return nil, err
	}
	static, malformed := HarvesterStatic(rq, limits)
	next := rq.DeepCopy()
	maps.DeleteFunc(next.Annotations, func(key, _ string) bool { return ofHarvester(key) })
	if len(next.Annotations) == len(rq.Annotations) {
		return nil, malformed
	}
	if len(next.Annotations) == 0 {
		next.Annotations = nil
	}
	switch {
	case !inFlight:
		next = applier.WithLimits(next, static, static)
	case !quota.Equal(static, before):
		next = applier.WithLimits(next, static, rq.Spec.Hard)
	}
	return next, malformed
}
