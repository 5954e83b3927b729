package fake

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

const apiServer = "kube-apiserver"

// A quotaAdmission is the admission plugin ResourceQuota (k8s.io/apiserver, pkg/admission/plugin/resourcequota,
// v1.36). It looks at status.hard and status.used only, in a cache that is a little older than the store,
// overlaid by what it wrote itself; and it raises status.used itself, before the object is stored.
type quotaAdmission struct {
	*Cluster
	cache quotaCache
	own   map[string]*corev1.ResourceQuota // what it wrote last, by key
}

// quotas returns those of namespace as the plugin sees them at that time, by name.
func (a *quotaAdmission) quotas(namespace string, at time.Time) []*corev1.ResourceQuota {
	seen := a.cache.list(namespace, at)
	for i, rq := range seen {
		if own := a.own[key(rq)]; own != nil && versionOf(own) > versionOf(rq) {
			seen[i] = own
		}
	}
	return seen
}

func versionOf(o object) uint64 {
	version, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return version
}

// retryPause is about how long the plugin takes from a conflict to its next try.
const retryPause = 2 * time.Millisecond

// charge raises the usage of all quotas that charge o for more than before, or says why it may not be created.
// After three retries a conflict is the answer. A quota that was charged before another one refuses stays so until
// the next recount: nobody takes it back.
func (a *quotaAdmission) charge(user string, o object, before corev1.ResourceList) (err error) {
	at := a.clock.now
	var raised []*corev1.ResourceQuota
	defer func() {
		if err != nil || !forMigration(user, o) {
			a.judge.rob(raised)
		}
	}()
	quotas := a.quotas(o.GetNamespace(), at)
	for retries := 3; ; retries-- {
		charged, err := a.check(quotas, o, before)
		if err != nil {
			return err
		}
		var failed []string
		var conflict error
		for _, rq := range charged {
			stored, err := a.update(apiServer, rq, true)
			if err != nil {
				failed, conflict = append(failed, rq.Name), err
				continue
			}
			a.own[key(rq)], _ = stored.(*corev1.ResourceQuota)
			raised = append(raised, rq)
		}
		if conflict == nil || retries == 0 {
			return conflict
		}
		at = at.Add(retryPause)
		quotas = slices.DeleteFunc(a.quotas(o.GetNamespace(), at), func(rq *corev1.ResourceQuota) bool {
			return !slices.Contains(failed, rq.Name)
		})
	}
}

// check returns the quotas that charge o, for what is more than before, with their new usage, or an error if
// any of them does not let it in.
func (a *quotaAdmission) check(quotas []*corev1.ResourceQuota, o object, before corev1.ResourceList) ([]*corev1.ResourceQuota, error) {
	load := loadOf(o, a.clock.now)
	for name, q := range before {
		load.charge[name] = amounts.Minus(load.charge[name], q)
	}
	forbidden := func(format string, args ...any) error {
		return apierrors.NewForbidden(kindOf(o).groupResource(), o.GetName(), fmt.Errorf(format, args...))
	}
	var charging []*corev1.ResourceQuota
	for _, rq := range quotas {
		names := load.limitedBy(rq.Status.Hard)
		if len(names) == 0 || !load.traits.SelectedBy(rq) {
			continue
		}
		if err := load.complete(names); err != nil {
			return nil, forbidden("failed quota: %s: %w", rq.Name, err)
		}
		if slices.ContainsFunc(names, func(name corev1.ResourceName) bool { return !has(rq.Status.Used, name) }) {
			return nil, forbidden("status unknown for quota: %s, resources: %s", rq.Name, join(names))
		}
		charging = append(charging, rq)
	}
	var charged []*corev1.ResourceQuota
	for _, rq := range charging {
		updated, requested := rq.DeepCopy(), corev1.ResourceList{}
		var exceeded []corev1.ResourceName
		for name, q := range load.charge {
			limit, limited := rq.Status.Hard[name]
			if !limited || q.IsZero() {
				continue
			}
			requested[name] = q
			used := amounts.Plus(updated.Status.Used[name], q)
			updated.Status.Used[name] = used
			if used.Cmp(limit) > 0 {
				exceeded = append(exceeded, name)
			}
		}
		if len(exceeded) > 0 {
			return nil, forbidden("exceeded quota: %s, requested: %s, used: %s, limited: %s",
				rq.Name, only(exceeded, requested), only(exceeded, rq.Status.Used), only(exceeded, rq.Status.Hard))
		}
		if len(requested) > 0 {
			charged = append(charged, updated)
		}
	}
	return charged, nil
}

// A load is what quota charges for an object.
type load struct {
	pod    *corev1.Pod // nil: it is a claim of some kind
	charge corev1.ResourceList
	traits quota.Traits
}

func loadOf(o object, now time.Time) load {
	switch o := o.(type) {
	case *corev1.Pod:
		return load{pod: o, charge: quota.FootprintAt(o, now), traits: quota.TraitsOf(o)}
	case *corev1.PersistentVolumeClaim:
		return load{charge: quota.ClaimFootprint(o), traits: quota.TraitsOfClaim(o)}
	case *resourcev1.ResourceClaim:
		return load{charge: quota.ResourceClaimFootprint(o, nil), traits: quota.Traits{ResourceClaim: true}}
	default:
		return load{}
	}
}

// limitedBy returns which limits of hard are about objects of this kind, sorted.
func (l load) limitedBy(hard corev1.ResourceList) []corev1.ResourceName {
	counts := isClaimResource
	switch {
	case l.pod != nil:
		counts = isPodResource
	case l.traits.ResourceClaim:
		counts = isDeviceResource
	}
	return slices.DeleteFunc(amounts.Names(hard), func(name corev1.ResourceName) bool { return !counts(name) })
}

// complete reports which of the containers do not say what the limits demand: a quota on cpu or memory lets
// nothing in that does not name it.
func (l load) complete(names []corev1.ResourceName) error {
	if l.pod == nil || l.pod.Spec.Resources != nil && len(l.pod.Spec.Resources.Requests)+len(l.pod.Spec.Resources.Limits) > 0 {
		return nil
	}
	var missing []string
	for _, name := range names {
		var lacking []string
		for _, container := range slices.Concat(l.pod.Spec.Containers, l.pod.Spec.InitContainers) {
			if !specifies(container.Resources, name) && !slices.Contains(lacking, container.Name) {
				lacking = append(lacking, container.Name)
			}
		}
		if len(lacking) > 0 {
			slices.Sort(lacking)
			missing = append(missing, string(name)+" for: "+strings.Join(lacking, ","))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return errors.New("must specify " + strings.Join(missing, "; "))
}

// specifies reports whether r has what a limit of that name demands to be there.
func specifies(r corev1.ResourceRequirements, name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceRequestsCPU:
		return has(r.Requests, corev1.ResourceCPU)
	case corev1.ResourceMemory, corev1.ResourceRequestsMemory:
		return has(r.Requests, corev1.ResourceMemory)
	case corev1.ResourceLimitsCPU:
		return has(r.Limits, corev1.ResourceCPU)
	case corev1.ResourceLimitsMemory:
		return has(r.Limits, corev1.ResourceMemory)
	default:
		return true
	}
}

func has(list corev1.ResourceList, name corev1.ResourceName) bool {
	_, ok := list[name]
	return ok
}

// isPodResource reports whether quota counts name over pods.
func isPodResource(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
		corev1.ResourcePods, "count/pods":
		return true
	default:
		s := string(name)
		extended := strings.HasPrefix(s, corev1.DefaultResourceRequestsPrefix) &&
			strings.Contains(s, "/") && !strings.Contains(s, corev1.ResourceDefaultNamespacePrefix)
		return extended || strings.HasPrefix(s, corev1.ResourceHugePagesPrefix) || strings.HasPrefix(s, corev1.ResourceRequestsHugePagesPrefix)
	}
}

// isClaimResource reports whether quota counts name over PersistentVolumeClaims.
func isClaimResource(name corev1.ResourceName) bool {
	const ofClass = ".storageclass.storage.k8s.io/"
	switch s := string(name); name {
	case corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage, "count/persistentvolumeclaims":
		return true
	default:
		return strings.HasSuffix(s, ofClass+string(corev1.ResourcePersistentVolumeClaims)) ||
			strings.HasSuffix(s, ofClass+string(corev1.ResourceRequestsStorage))
	}
}

// isDeviceResource reports whether quota counts name over ResourceClaims. No class of devices stands for an
// extended resource here.
func isDeviceResource(name corev1.ResourceName) bool {
	return name == "count/resourceclaims.resource.k8s.io" || strings.HasSuffix(string(name), corev1.ResourceClaimsPerClass)
}

// only writes the named ones of list as the plugin does.
func only(names []corev1.ResourceName, list corev1.ResourceList) string {
	named := maps.Clone(list)
	maps.DeleteFunc(named, func(name corev1.ResourceName, _ resource.Quantity) bool { return !slices.Contains(names, name) })
	return amounts.Text(named, ",")
}

func join(names []corev1.ResourceName) string {
	var parts []string
	for _, name := range names {
		parts = append(parts, string(name))
	}
	return strings.Join(parts, ",")
}
