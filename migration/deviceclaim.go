package migration

import (
	"cmp"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/vmquota/headroom/quota"
)

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
