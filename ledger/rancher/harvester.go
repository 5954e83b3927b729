package rancher

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

// Harvester's annotations on the ResourceQuotas of Rancher. Its controllers write them
// (pkg/controller/master/migration/vmim_controller.go, pkg/util/resourcequota/utils.go),
// and set limits.cpu and limits.memory to the namespace's limits plus what they say
// (pkg/controller/master/resourcequota). The names are in pkg/util/constants.go.
const (
	// HarvesterNamePrefix and the name of a VMI are the annotation of one migration up
	// to v1.4.1, which adds its value to spec.hard in the same write, and subtracts it in
	// the end. The value is a ResourceList in JSON, such as
	// {"limits.cpu":"1","limits.memory":"1267028Ki"}. Later versions still read it.
	HarvesterNamePrefix = "harvesterhci.io/migrating-"
	// HarvesterUIDPrefix and the UID of a VMI (not of the VMIM) are the annotation of one
	// migration since v1.4.2, with the same value. It is written first, and spec.hard is
	// computed anew a moment later.
	HarvesterUIDPrefix = "harvesterhci.io/migratingUID-"
	// HarvesterCompensation, since v1.9.0, is one more amount of limits.memory for the
	// whole quota, in the same form; for usage that is above the limit.
	HarvesterCompensation = "harvesterhci.io/migratingCompensation"
	// HarvesterResync, since v1.9.0, is "true" from a change of the annotations above
	// until spec.hard has followed, and "false" from then on.
	HarvesterResync = "harvesterhci.io/migratingScalingResyncNeeded"
	// HarvesterSkip, since v1.4.2, switches all this off for a quota if it is "true".
	// It is a person's.
	HarvesterSkip = "harvesterhci.io/skipResourceQuotaAutoScaling"
)

// HarvesterSkips reports whether Harvester is told to leave rq alone. It is for
// applier.Config.DisabledFor: nothing is granted any more, and what is raised goes down
// with the migrations that need it, also if the annotation came in the middle of one.
func HarvesterSkips(rq *corev1.ResourceQuota) bool {
	return rq != nil && rq.Annotations[HarvesterSkip] == "true"
}

// A HarvesterRecord is what Harvester's annotations on one quota say. The zero record
// says nothing.
type HarvesterRecord struct {
	// Entries are the migrations, sorted by annotation.
	Entries []HarvesterEntry
	// Compensation is that of HarvesterCompensation; nil if there is none.
	Compensation corev1.ResourceList
	// Changed says that spec.hard may not have followed yet (HarvesterResync is "true").
	Changed bool
	// Followed says that spec.hard was looked at after the last change (it is "false"),
	// and followed, unless the namespace had no limits. Versions before v1.9.0 say neither.
	Followed bool
}

// A HarvesterEntry is one migration in Harvester's annotations.
type HarvesterEntry struct {
	// Annotation is its key.
	Annotation string
	// VMI or UID is which virtual machine instance migrates, by its name or by its UID.
	VMI string
	UID types.UID
	// Surge is what was added for it, in ResourceQuota names.
	Surge corev1.ResourceList
}

// InFlight returns the entries as migrations that are charged, sorted by UID. They are
// for a ledger in which nobody has recorded anything yet, so that limits do not go down
// too early: see Takeover.Seed. The UIDs are made up, because entries do not name the
// VMIM, and the ledger forgets them with the first call of migration.Observer.Observe.
func (r HarvesterRecord) InFlight() []quota.Migration {
	inFlight := make([]quota.Migration, 0, len(r.Entries))
	for _, e := range r.Entries {
		inFlight = append(inFlight, quota.Migration{
			UID:   types.UID("harvester-" + strings.TrimPrefix(e.Annotation, "harvesterhci.io/")),
			VMI:   e.VMI,
			State: quota.Charged,
			Surge: e.Surge,
		})
	}
	return quota.Sorted(inFlight)
}

// added returns what Harvester adds to the limit of name: the entries, and for memory the
// compensation.
func (r HarvesterRecord) added(name corev1.ResourceName) resource.Quantity {
	var sum resource.Quantity
	for _, e := range r.Entries {
		sum = plus(sum, e.Surge[name])
	}
	if name == corev1.ResourceLimitsMemory {
		sum = plus(sum, r.Compensation[name])
	}
	return sum
}

// followed reports whether hard contains what Harvester adds, which it says, and which
// leaves something of each limit that is raised.
func (r HarvesterRecord) followed(hard corev1.ResourceList) bool {
	for _, name := range scaled {
		added, live := r.added(name), hard[name]
		if added.Sign() > 0 && live.Sign() > 0 && live.Cmp(added) <= 0 {
			return false
		}
	}
	return r.Followed
}

// scales reports whether there is a sign that spec.hard is not what Rancher wrote.
func (r HarvesterRecord) scales() bool {
	return len(r.Entries) > 0 || r.Compensation != nil || r.Changed
}

// ofHarvester reports whether an annotation is one that Harvester's controllers write,
// and remove.
func ofHarvester(annotation string) bool {
	return annotation == HarvesterCompensation || annotation == HarvesterResync || isEntry(annotation)
}

func isEntry(annotation string) bool {
	return strings.HasPrefix(annotation, HarvesterUIDPrefix) || strings.HasPrefix(annotation, HarvesterNamePrefix)
}

// plus returns a + b, in the format of a unless that is zero. It shares no memory with
// either.
func plus(a, b resource.Quantity) resource.Quantity {
	sum := a.DeepCopy()
	sum.Add(b)
	return sum
}

// less returns a - b, and zero if that is negative.
func less(a, b resource.Quantity) resource.Quantity {
	if a.Cmp(b) <= 0 {
		return resource.Quantity{Format: a.Format}
	}
	rest := a.DeepCopy()
	rest.Sub(b)
	return rest
}
