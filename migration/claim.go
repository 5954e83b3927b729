package migration

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// A claim is what a migration charges twice, object by object.
type claim []part

// A part is one object of a claim.
type part struct {
	traits quota.Traits
	surge  corev1.ResourceList
	held   bool // whether usage contains it
}

// chargedClaim is that of a migration that has doubled its VMI by x.
func (m *machine) chargedClaim(vmim *kubevirtv1.VirtualMachineInstanceMigration, current *corev1.Pod, x extra) claim {
	launcher := quota.FootprintAt(x.pod, m.Now)
	over := x.lost || vmim.IsFinal() || vmim.DeletionTimestamp != nil
	if !x.lost {
		if m.grows() {
			launcher = amounts.Each(launcher, m.growth(current, x.pod), amounts.Minus)
		}
		believe(launcher, quota.Footprint(m.expectedTarget(current, m.addedOverhead(current))))
	}
	c := claim{{traits: quota.TraitsOf(x.pod), surge: launcher, held: true}}
	attached := m.charged(m.attachments[x.pod.UID])
	if !x.lost {
		attached = m.attachedTo(vmim, attached)
	}
	for _, pod := range attached {
		c = append(c, part{traits: quota.TraitsOf(pod), surge: quota.FootprintAt(pod, m.Now), held: true})
	}
	if !over && len(attached) == 0 {
		c = append(c, m.expectedAttachment(current)...)
	}
	if x.lost {
		current = x.pod // what is charged too much is its own
	}
	c = append(c, m.deviceClaims(current, x.pod, over)...)
	return append(c, m.storage(vmim, x.lost, over)...)
}

// believe cuts launcher, what a target pod is charged for, down to refusalTrust times what is
// expected of one: whoever may create pods can forge a target pod, also for KubeVirt. The rest
// is regular usage.
func believe(launcher, expected corev1.ResourceList) {
	for name, q := range launcher {
		most, known := expected[name]
		if !known {
			delete(launcher, name)
			continue
		}
		launcher[name] = amounts.Min(q, trusted(most))
	}
}

// expectedClaim is that of a migration whose target pod is not there yet. What quota said that
// it was asked for when it refused that pod is more exact than the estimate: memory overhead and
// sidecars of another KubeVirt, or of another configuration, are seen nowhere else. While a
// hot-plug is carried out it includes the growth of the guest; see expectedGrowth.
func (m *machine) expectedClaim(vmim *kubevirtv1.VirtualMachineInstanceMigration, current *corev1.Pod) claim {
	target := m.expectedTarget(current, m.addedOverhead(current))
	launcher := quota.Footprint(target)
	if !m.grows() {
		enlarge(launcher, refusedRequest(m.refusalsOf(vmim), podRefusal, launcher))
	}
	c := claim{{traits: quota.TraitsOf(target), surge: launcher}}
	c = append(c, m.expectedAttachment(current)...)
	c = append(c, m.deviceClaims(current, nil, false)...)
	return append(c, m.storage(vmim, false, false)...)
}

// attachedTo returns which of the attachment pods of a target KubeVirt made. That is
// one at most: if the VMI does not name it, the oldest, because where there is one it
// makes no second.
func (m *machine) attachedTo(vmim *kubevirtv1.VirtualMachineInstanceMigration, attached []*corev1.Pod) []*corev1.Pod {
	if uid := m.account(vmim.UID).attachment; uid != "" {
		return slices.DeleteFunc(attached, func(pod *corev1.Pod) bool { return pod.UID != uid })
	}
	return attached[:min(1, len(attached))]
}

// expectedAttachment is the pod that will attach the hot-plugged volumes on the
// target's node. KubeVirt makes one for all of them, like the latest of the source.
func (m *machine) expectedAttachment(current *corev1.Pod) claim {
	if current == nil {
		return nil
	}
	attached := m.charged(m.attachments[current.UID])
	if len(attached) == 0 {
		return nil
	}
	latest := attached[len(attached)-1]
	return claim{{traits: quota.TraitsOf(latest), surge: quota.FootprintAt(latest, m.Now)}}
}

func (c claim) holdsAny() bool {
	return slices.ContainsFunc(c, func(p part) bool { return p.held })
}

// fill writes c into to. What it holds is nil where that is all or nothing.
func (c claim) fill(to *quota.Migration) {
	var shares []quota.Share
	partly := c.holdsAny() && slices.ContainsFunc(c, func(p part) bool { return !p.held })
	empty := func() corev1.ResourceList {
		if partly {
			return corev1.ResourceList{}
		}
		return nil
	}
	to.Surge, to.Held = corev1.ResourceList{}, empty()
	for _, p := range c {
		i := slices.IndexFunc(shares, func(s quota.Share) bool { return s.Traits == p.traits })
		if i < 0 {
			i = len(shares)
			shares = append(shares, quota.Share{Traits: p.traits, Surge: corev1.ResourceList{}, Held: empty()})
		}
		add(to.Surge, p.surge)
		add(shares[i].Surge, p.surge)
		if partly && p.held {
			add(to.Held, p.surge)
			add(shares[i].Held, p.surge)
		}
	}
	if slices.ContainsFunc(shares, func(s quota.Share) bool { return s.Traits != quota.Traits{} }) {
		to.Shares = shares
	}
}

// add adds b to a in place.
func add(a, b corev1.ResourceList) {
	for name, q := range b {
		if sum, ok := a[name]; ok {
			a[name] = amounts.Plus(sum, q)
		} else {
			a[name] = q.DeepCopy()
		}
	}
}

// podClaimAnnotation is PodResourceClaimAnnotation of newer versions of k8s.io/api/resource/v1.
const podClaimAnnotation = "resource.kubernetes.io/pod-claim-name"

// deviceClaims are the ResourceClaims that kube-controller-manager has made from templates for
// pods. Like it (findPodResourceClaim in its pkg/controller/resourceclaim) they go by the owner
// and by the annotation that has the name of the entry in the pod.
type deviceClaims struct {
	made     map[[2]string]*resourcev1.ResourceClaim // by the UID of the pod and the entry of its spec.resourceClaims
	extended map[string]string                       // the extended resources of device classes
}

func deviceClaimsOf(s *Snapshot) deviceClaims {
	claims := deviceClaims{made: map[[2]string]*resourcev1.ResourceClaim{}, extended: map[string]string{}}
	for _, made := range oldestFirst(s.ResourceClaims) {
		entry := [2]string{string(ownerPod(made)), made.Annotations[podClaimAnnotation]}
		if claims.made[entry] == nil { // Kubernetes makes no second one
			claims.made[entry] = made
		}
	}
	for _, class := range s.DeviceClasses {
		if class != nil && class.Spec.ExtendedResourceName != nil {
			claims.extended[class.Name] = *class.Spec.ExtendedResourceName
		}
	}
	return claims
}

// footprint returns what the claim for an entry of pod is charged for; nil if it does not
// exist, or is not known.
func (d *deviceClaims) footprint(pod *corev1.Pod, entry string) corev1.ResourceList {
	if pod == nil {
		return nil
	}
	made := d.made[[2]string{string(pod.UID), entry}]
	if made == nil {
		return nil
	}
	return quota.ResourceClaimFootprint(made, func(class string) string { return d.extended[class] })
}

// templated returns the names of the claims that Kubernetes makes for pod. Claims that a pod
// names itself are there already, and source and target share them.
func templated(pod *corev1.Pod) []string {
	var names []string
	for _, entry := range pod.Spec.ResourceClaims {
		if entry.ResourceClaimTemplateName != nil {
			names = append(names, entry.Name)
		}
	}
	return names
}

// deviceClaims returns what the migration claims for the ResourceClaims of pod, nil being a
// target pod that is still to come. Those that do not exist will be like those of current, or
// larger if quota said so when it refused them, unless the migration is over.
func (m *machine) deviceClaims(current, pod *corev1.Pod, over bool) claim {
	of := cmp.Or(pod, current)
	if of == nil {
		return nil
	}
	var c claim
	for _, name := range templated(of) {
		surge, held := m.devices.footprint(pod, name), true
		expected := m.devices.footprint(current, name)
		switch {
		case surge != nil:
			believe(surge, expected)
		case expected == nil || over:
			continue
		default:
			surge, held = expected, false
			enlarge(surge, refusedRequest(m.refusals[of.UID], fmt.Sprintf(claimRefusal, name), expected))
		}
		c = append(c, part{traits: quota.Traits{ResourceClaim: true}, surge: surge, held: held})
	}
	return c
}

// claimRefusedBy returns the name of the quota that keeps a target pod from running because
// it refused one of its ResourceClaims; "" if none does.
func (m *machine) claimRefusedBy(x extra) string {
	for _, name := range templated(x.pod) {
		by := refusedBy(m.refusals[x.pod.UID], fmt.Sprintf(claimRefusal, name))
		if by != "" && m.devices.footprint(x.pod, name) == nil {
			return by
		}
	}
	return ""
}

// persistentState is how KubeVirt names the volumes and labels the claims of its
// backend storage, which persists a TPM or EFI variables: PVCPrefix in its
// pkg/storage/backend-storage.
const persistentState = "persistent-state-for"

// storage returns what the migration claims for a second backend-storage PVC. KubeVirt
// makes it before the target pod, unless the first one can be shared, and deletes the
// one that lost.
func (m *machine) storage(vmim *kubevirtv1.VirtualMachineInstanceMigration, lost, over bool) claim {
	source, target := m.claimsOf(vmim)
	second := target
	if lost {
		second = source
	}
	switch {
	case second != nil && source == target, lost && target == nil:
		return nil // there is one only
	case lost && m.made(source) == nil:
		return nil
	case second != nil:
		return claim{{traits: quota.TraitsOfClaim(second), surge: quota.ClaimFootprint(calculableClaim(second)), held: true}}
	}
	if over || source == nil || !persists(m.vmi) {
		return nil
	}
	if modes := source.Status.AccessModes; len(modes) > 0 && modes[0] == corev1.ReadWriteMany {
		return nil // source and target share it
	}
	return claim{{traits: quota.TraitsOfClaim(source), surge: quota.ClaimFootprint(calculableClaim(source))}}
}

// leftStorage returns what the backend-storage PVC charges that vmim, which is over, has left behind.
// KubeVirt has deleted it, and Kubernetes keeps it as long as the losing pod is there, also if that
// has ended: podUsesPVCForDeletion in its pkg/controller/volume/pvcprotection.
func (m *machine) leftStorage(vmim *kubevirtv1.VirtualMachineInstanceMigration) claim {
	a := m.account(vmim.UID)
	name := a.targetClaim
	if a.won {
		name = a.sourceClaim
	}
	if name == "" || a.sourceClaim == a.targetClaim || name == backendClaimName(m.vmi) {
		return nil
	}
	left := m.made(m.backend[[2]string{"", name}]...)
	if left == nil || left.DeletionTimestamp == nil || left.CreationTimestamp.After(a.end.Truncate(time.Second)) {
		return nil // it is of no migration: whoever may create claims can take a name that is free
	}
	return claim{{traits: quota.TraitsOfClaim(left), surge: quota.ClaimFootprint(calculableClaim(left)), held: true}}
}

// backendClaims are PVCs that may be backend storage, oldest first, by a label and its value, and
// by their name as that of no label.
type backendClaims map[[2]string][]*corev1.PersistentVolumeClaim

func backendClaimsOf(pvcs []*corev1.PersistentVolumeClaim) backendClaims {
	claims := backendClaims{}
	for _, pvc := range pvcs {
		name, of, vmi := pvc.Name, pvc.Labels[kubevirtv1.MigrationNameLabel], pvc.Labels[persistentState]
		for _, key := range [][2]string{{"", name}, {kubevirtv1.MigrationNameLabel, of}, {persistentState, vmi}} {
			if key[1] != "" {
				claims[key] = append(claims[key], pvc)
			}
		}
	}
	return claims
}

// made returns the oldest of pvcs that KubeVirt has made for this VMI: it gives them the
// owners of the VMI, or the VMI as the owner if it has none (createPVC in its
// pkg/storage/backend-storage).
func (m *machine) made(pvcs ...*corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	owner := m.vmi.UID
	if controller := metav1.GetControllerOfNoCopy(m.vmi); controller != nil {
		owner = controller.UID
	}
	for _, pvc := range pvcs {
		if pvc == nil {
			continue
		}
		if controller := metav1.GetControllerOfNoCopy(pvc); controller != nil && controller.UID == owner {
			return pvc
		}
	}
	return nil
}

// claimsOf returns the backend-storage PVCs of the source and of the target,
// nil where there is none.
func (m *machine) claimsOf(
	vmim *kubevirtv1.VirtualMachineInstanceMigration,
) (source, target *corev1.PersistentVolumeClaim) {
	a := m.account(vmim.UID)
	sourceName, targetName := cmp.Or(a.sourceClaim, backendClaimName(m.vmi)), a.targetClaim
	source, target = first(m.backend[[2]string{"", sourceName}]), first(m.backend[[2]string{"", targetName}])
	if target != source && target != nil { // else both pods share it
		target = m.made(target) // a name that is free can be taken
	}
	if sourceName == "" {
		source = m.made(m.backend[[2]string{persistentState, m.vmi.Name}]...)
	}
	if targetName == "" && persists(m.vmi) {
		target = m.made(m.backend[[2]string{kubevirtv1.MigrationNameLabel, vmim.Name}]...)
	}
	return source, target
}

// backendClaimName returns the name of the PVC that vmi says it uses.
func backendClaimName(vmi *kubevirtv1.VirtualMachineInstance) string {
	for _, volume := range vmi.Status.VolumeStatus {
		if strings.HasPrefix(volume.Name, persistentState) && volume.PersistentVolumeClaimInfo != nil {
			return volume.PersistentVolumeClaimInfo.ClaimName
		}
	}
	return ""
}

// persists reports whether vmi needs backend storage: IsBackendStorageNeeded in KubeVirt's
// pkg/storage/backend-storage.
func persists(vmi *kubevirtv1.VirtualMachineInstance) bool {
	domain := &vmi.Spec.Domain
	if tpm := domain.Devices.TPM; tpm != nil && isTrue(tpm.Persistent) && (tpm.Enabled == nil || *tpm.Enabled) {
		return true
	}
	firmware := domain.Firmware
	if firmware != nil && firmware.Bootloader != nil && firmware.Bootloader.EFI != nil &&
		isTrue(firmware.Bootloader.EFI.Persistent) {
		return true
	}
	tracking := vmi.Status.ChangedBlockTracking
	return tracking != nil && (tracking.State == kubevirtv1.ChangedBlockTrackingInitializing ||
		tracking.State == kubevirtv1.ChangedBlockTrackingEnabled)
}

func isTrue(b *bool) bool { return b != nil && *b }
