package fake

import (
	"cmp"
	"errors"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/rancher"
)

// RancherLabel marks the quotas that Rancher manages, and that its webhook locks.
const RancherLabel = rancher.QuotaLabel

// RancherUser is who Rancher writes quotas as; see Config.Lock.
const RancherUser = "system:serviceaccount:cattle-system:rancher-webhook-sudo"

// errLocked is what Rancher's webhook says (2.14.6, 2.15.2).
var errLocked = errors.New("users are forbidden from changing resources managed by Rancher")

// namespaceController may delete what Rancher's webhook has locked.
const namespaceController = "system:serviceaccount:kube-system:namespace-controller"

// lockedFor returns an error if Rancher's webhook keeps o from user: a quota or limit range that Rancher
// manages, from all but the user that Config.Lock names.
func (c *Cluster) lockedFor(user string, o object) error {
	kind := kindOf(o)
	managed := (kind == ResourceQuotas || kind == LimitRanges) && o.GetLabels()[RancherLabel] == "true"
	if c.config.Lock == "" || user == c.config.Lock || !managed {
		return nil
	}
	return apierrors.NewForbidden(kind.groupResource(), o.GetName(), errLocked)
}

// lockedUpdate is lockedFor an update. The status is open to everybody who leaves the label alone.
func (c *Cluster) lockedUpdate(user string, before, after object, status bool) error {
	was, is := c.lockedFor(user, before), c.lockedFor(user, after)
	if status && was != nil && is != nil {
		return nil
	}
	return cmp.Or(was, is)
}

// admit is admission on creation: the lock, the defaults of LimitRanges, the guard, RefusePods, quota.
func (c *Cluster) admit(user string, o object) error {
	if err := c.lockedFor(user, o); err != nil {
		return err
	}
	switch o := o.(type) {
	case *corev1.Pod:
		for _, limits := range all[*corev1.LimitRange](&c.store, o.Namespace) {
			applyDefaults(limits, o)
		}
	case *corev1.PersistentVolumeClaim:
	case *resourcev1.ResourceClaim:
		return c.admission.charge(user, o, nil)
	default:
		return nil
	}
	if err := c.checkGuard(user, o); err != nil {
		return err
	}
	if message := c.refusals[o.GetNamespace()]; message != "" && kindOf(o) == Pods {
		return apierrors.NewForbidden(Pods.groupResource(), o.GetName(), errors.New(message))
	}
	return c.admission.charge(user, o, nil)
}

// resize returns the pod as it is stored with the resources that the containers of asked have, if quota lets it
// grow.
func (c *Cluster) resize(asked *corev1.Pod) (object, error) {
	pod, ok := find[*corev1.Pod](&c.store, asked.Namespace, asked.Name)
	if !ok {
		return nil, apierrors.NewNotFound(Pods.groupResource(), asked.Name)
	}
	before := loadOf(pod, c.clock.now).charge
	pod = pod.DeepCopy()
	for i, r := range resourcesOf(pod) {
		*r = *resourcesOf(asked)[i]
	}
	return pod, c.admission.charge(adminUser, pod, before)
}

// setDefaults does what the API server does to a new object before admission.
func (c *Cluster) setDefaults(o object) {
	switch o := o.(type) {
	case *corev1.Namespace:
		o.Status.Phase = corev1.NamespaceActive
	case *corev1.ResourceQuota:
		o.Status = corev1.ResourceQuotaStatus{}
	case *corev1.PersistentVolumeClaim:
		o.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
		o.Finalizers = append(o.Finalizers, claimFinalizer)
	case *kubevirtv1.VirtualMachineInstanceMigration:
		o.Status = kubevirtv1.VirtualMachineInstanceMigrationStatus{}
	case *corev1.LimitRange:
		for i := range o.Spec.Limits {
			if item := &o.Spec.Limits[i]; item.Type == corev1.LimitTypeContainer {
				// SetDefaults_LimitRangeItem in k8s.io/kubernetes/pkg/apis/core/v1
				item.Default = complete(item.Default, item.Max)
				item.DefaultRequest = complete(item.DefaultRequest, item.Default)
				item.DefaultRequest = complete(item.DefaultRequest, item.Min)
			}
		}
	case *corev1.Pod:
		o.Status = corev1.PodStatus{Phase: corev1.PodPending}
		if o.Spec.TerminationGracePeriodSeconds == nil {
			o.Spec.TerminationGracePeriodSeconds = pointer(int64(corev1.DefaultTerminationGracePeriodSeconds))
		}
		for _, r := range resourcesOf(o) {
			r.Requests = complete(r.Requests, r.Limits)
		}
	}
}

// applyDefaults gives the containers of pod the requests and limits that they lack, as the LimitRanger plugin
// does. Its minima, maxima and ratios are not checked.
func applyDefaults(limits *corev1.LimitRange, pod *corev1.Pod) {
	for _, item := range limits.Spec.Limits {
		if item.Type != corev1.LimitTypeContainer {
			continue
		}
		for _, r := range resourcesOf(pod) {
			r.Limits = complete(r.Limits, item.Default)
			r.Requests = complete(r.Requests, item.DefaultRequest)
		}
	}
}

// resourcesOf returns those of all containers of pod, to be changed in it.
func resourcesOf(pod *corev1.Pod) []*corev1.ResourceRequirements {
	var resources []*corev1.ResourceRequirements
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			resources = append(resources, &containers[i].Resources)
		}
	}
	return resources
}

// complete adds to list what it lacks of defaults, and returns it.
func complete(list, defaults corev1.ResourceList) corev1.ResourceList {
	for name, q := range defaults {
		if _, ok := list[name]; ok {
			continue
		}
		if list == nil {
			list = corev1.ResourceList{}
		}
		list[name] = q.DeepCopy()
	}
	return list
}

func pointer[T any](value T) *T { return &value }
