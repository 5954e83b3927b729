package fake

import (
	"math"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// persistentState begins the names of KubeVirt's backend-storage claims, and is their label.
const persistentState = "persistent-state-for"

// NewVMI returns a virtual machine instance as the API server has it after KubeVirt's webhooks: it runs from a
// container disk, may live-migrate, and has no limits, so that KubeVirt sets them when a quota demands them.
func NewVMI(namespace, name string, sockets uint32, guest resource.Quantity) *kubevirtv1.VirtualMachineInstance {
	guest = guest.DeepCopy()
	return &kubevirtv1.VirtualMachineInstance{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      name,
			Labels:    map[string]string{"kubevirt.io/vm": name},
			Annotations: map[string]string{
				kubevirtv1.ControllerAPILatestVersionObservedAnnotation:  kubevirtv1.ApiLatestVersion,
				kubevirtv1.ControllerAPIStorageVersionObservedAnnotation: kubevirtv1.ApiStorageVersion,
			},
			Finalizers: []string{kubevirtv1.VirtualMachineInstanceFinalizer},
		},
		Spec: kubevirtv1.VirtualMachineInstanceSpec{
			Architecture:                  "amd64",
			EvictionStrategy:              pointer(kubevirtv1.EvictionStrategyLiveMigrate),
			TerminationGracePeriodSeconds: pointer(int64(5)),
			Domain: kubevirtv1.DomainSpec{
				CPU:       &kubevirtv1.CPU{Cores: 1, Sockets: sockets, Threads: 1},
				Memory:    &kubevirtv1.Memory{Guest: &guest},
				Resources: kubevirtv1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: guest.DeepCopy()}},
			},
			Volumes: []kubevirtv1.Volume{{Name: "d", VolumeSource: kubevirtv1.VolumeSource{
				ContainerDisk: &kubevirtv1.ContainerDiskSource{Image: "registry.test/disk:1"},
			}}},
		},
	}
}

// launcher renders a virt-launcher pod for vmi as of now: KubeVirt's pkg/virt-controller/services, as far as
// quota is concerned.
func (k *virtController) launcher(vmi *kubevirtv1.VirtualMachineInstance) *corev1.Pod {
	annotations := map[string]string{
		"kubevirt.io/domain":                     vmi.Name,
		kubevirtv1.MemoryOverheadAnnotationBytes: strconv.FormatInt(k.overhead, 10),
	}
	if vmi.Status.RuntimeUser != 0 {
		annotations[kubevirtv1.DeprecatedNonRootVMIAnnotation] = "true"
	}
	always := corev1.ContainerRestartPolicyAlways
	var claims []corev1.PodResourceClaim
	for _, entry := range vmi.Spec.ResourceClaims {
		claims = append(claims, corev1.PodResourceClaim{
			Name: entry.Name, ResourceClaimName: entry.ResourceClaimName, ResourceClaimTemplateName: entry.ResourceClaimTemplateName,
		})
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:    vmi.Namespace,
			GenerateName: "virt-launcher-" + vmi.Name + "-",
			Labels: map[string]string{
				kubevirtv1.AppLabel:       "virt-launcher",
				kubevirtv1.CreatedByLabel: string(vmi.UID),
				"kubevirt.io/vm":          vmi.Labels["kubevirt.io/vm"],
				"vm.kubevirt.io/name":     vmi.Name,
				"vmi.kubevirt.io/id":      vmi.Name,
			},
			Annotations:     annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(vmi, kubevirtv1.VirtualMachineInstanceGroupVersionKind)},
		},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			ResourceClaims:                claims,
			TerminationGracePeriodSeconds: pointer(int64(35)),
			Containers:                    []corev1.Container{{Name: "compute", Resources: k.computeResources(vmi)}},
			InitContainers: []corev1.Container{{
				Name: "guest-console-log", RestartPolicy: &always,
				Resources: resources(milli(5), megabytes(35), milli(15), megabytes(60)),
			}},
		},
	}
}

// sourceLauncher is the first pod of vmi. Unlike the targets of its migrations it also prepares the container
// disk.
func (k *virtController) sourceLauncher(vmi *kubevirtv1.VirtualMachineInstance) *corev1.Pod {
	pod := k.launcher(vmi)
	for _, v := range vmi.Spec.Volumes {
		if v.ContainerDisk != nil {
			disk := resources(milli(1), megabytes(1), milli(10), megabytes(40))
			disk.Requests[corev1.ResourceEphemeralStorage] = megabytes(50)
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "volume" + v.Name, Resources: disk})
		}
	}
	return pod
}

// computeResources are those of the container that the guest runs in.
func (k *virtController) computeResources(vmi *kubevirtv1.VirtualMachineInstance) corev1.ResourceRequirements {
	asked := vmi.Spec.Domain.Resources
	r := corev1.ResourceRequirements{Requests: asked.Requests.DeepCopy(), Limits: asked.Limits.DeepCopy()}
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	if r.Limits == nil {
		r.Limits = corev1.ResourceList{}
	}
	if !has(r.Requests, corev1.ResourceMemory) && vmi.Spec.Domain.Memory != nil && vmi.Spec.Domain.Memory.Guest != nil {
		r.Requests[corev1.ResourceMemory] = vmi.Spec.Domain.Memory.Guest.DeepCopy()
	}
	vCPUs := vCPUs(vmi.Spec.Domain.CPU)
	if !has(r.Requests, corev1.ResourceCPU) {
		r.Requests[corev1.ResourceCPU] = milli(100 * vCPUs)
	}
	r.Requests[corev1.ResourceEphemeralStorage] = megabytes(50)
	for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
		if memory, ok := list[corev1.ResourceMemory]; ok {
			memory.Add(*resource.NewQuantity(k.overhead, resource.BinarySI))
			list[corev1.ResourceMemory] = memory
		}
		for _, device := range []corev1.ResourceName{"devices.kubevirt.io/kvm", "devices.kubevirt.io/tun", "devices.kubevirt.io/vhost-net"} {
			list[device] = *resource.NewQuantity(1, resource.DecimalSI)
		}
	}
	k.addAutoLimits(vmi, r, vCPUs)
	return r
}

// addAutoLimits adds limits that vmi does not have, if some quota demands them now.
func (k *virtController) addAutoLimits(vmi *kubevirtv1.VirtualMachineInstance, r corev1.ResourceRequirements, vCPUs int64) {
	for _, rq := range all[*corev1.ResourceQuota](&k.store, vmi.Namespace) {
		if has(rq.Spec.Hard, corev1.ResourceLimitsCPU) && !has(r.Limits, corev1.ResourceCPU) {
			r.Limits[corev1.ResourceCPU] = *resource.NewQuantity(vCPUs, resource.DecimalSI)
		}
		if has(rq.Spec.Hard, corev1.ResourceLimitsMemory) && !has(r.Limits, corev1.ResourceMemory) {
			request := r.Requests[corev1.ResourceMemory]
			r.Limits[corev1.ResourceMemory] = *resource.NewQuantity(int64(request.AsApproximateFloat64()*k.memoryLimitRatio(vmi.Namespace)), request.Format)
		}
	}
}

// memoryLimitRatio is 2, or what the label of the namespace says.
func (k *virtController) memoryLimitRatio(namespace string) float64 {
	const byDefault = 2
	ns, ok := find[*corev1.Namespace](&k.store, "", namespace)
	if !ok {
		return byDefault
	}
	ratio, err := strconv.ParseFloat(ns.Labels[kubevirtv1.AutoMemoryLimitsRatioLabel], 64)
	if err != nil || math.IsNaN(ratio) || math.IsInf(ratio, 0) || ratio < 1 {
		return byDefault
	}
	return ratio
}

// attachment renders the pod that attaches the hot-plugged volumes of a VMI on the node of its launcher.
func attachment(launcher *corev1.Pod) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       launcher.Namespace,
			GenerateName:    "hp-volume-",
			Labels:          map[string]string{kubevirtv1.AppLabel: "hotplug-disk"},
			Annotations:     map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(launcher, corev1.SchemeGroupVersion.WithKind("Pod"))},
		},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: pointer(int64(0)),
			Containers: []corev1.Container{{
				Name:      "hotplug-disk",
				Resources: resources(milli(10), megabytes(2), milli(100), megabytes(80)),
			}},
		},
	}
}

// createClaim creates a claim for what persists a TPM or the variables of EFI.
func (k *virtController) createClaim(vmi *kubevirtv1.VirtualMachineInstance, label, value string) error {
	k.sleep()
	_, err := k.create(virtControllerUser, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       vmi.Namespace,
			GenerateName:    persistentState + "-" + vmi.Name + "-",
			Labels:          map[string]string{label: value},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(vmi, kubevirtv1.VirtualMachineInstanceGroupVersionKind)},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceStorage: *resource.NewQuantity(10<<20, resource.BinarySI),
			}},
		},
	})
	return err
}

// persists reports whether vmi has backend storage.
func persists(vmi *kubevirtv1.VirtualMachineInstance) bool {
	d := vmi.Spec.Domain
	if tpm := d.Devices.TPM; tpm != nil && tpm.Persistent != nil && *tpm.Persistent {
		return true
	}
	return d.Firmware != nil && d.Firmware.Bootloader != nil && d.Firmware.Bootloader.EFI != nil &&
		d.Firmware.Bootloader.EFI.Persistent != nil && *d.Firmware.Bootloader.EFI.Persistent
}

func vCPUs(cpu *kubevirtv1.CPU) int64 {
	if cpu == nil {
		return 1
	}
	return int64(max(cpu.Sockets, 1)) * int64(max(cpu.Cores, 1)) * int64(max(cpu.Threads, 1))
}

func resources(cpuRequest, memoryRequest, cpuLimit, memoryLimit resource.Quantity) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: cpuRequest, corev1.ResourceMemory: memoryRequest},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: cpuLimit, corev1.ResourceMemory: memoryLimit},
	}
}

func milli(n int64) resource.Quantity { return *resource.NewMilliQuantity(n, resource.DecimalSI) }

func megabytes(n int64) resource.Quantity {
	return *resource.NewScaledQuantity(n, resource.Mega)
}
