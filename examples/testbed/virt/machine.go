package virt

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
)

// NewVMI returns a virtual machine instance as the API server has it after virt-api's
// webhooks. It is the one of package fake, and more of what the real virt-controller
// wants to see.
func NewVMI(namespace, name string, sockets uint32, guest resource.Quantity) *kubevirtv1.VirtualMachineInstance {
	vmi := fake.NewVMI(namespace, name, sockets, guest)
	Default(vmi)
	return vmi
}

// Default adds to vmi what virt-api's webhook adds on creation and vmi lacks
// (kubevirt.io/kubevirt pkg/defaults, and
// pkg/virt-api/webhooks/mutating-webhook/mutators/vmi-mutator.go).
func Default(vmi *kubevirtv1.VirtualMachineInstance) {
	if vmi.Annotations == nil {
		vmi.Annotations = map[string]string{}
	}
	vmi.Annotations[kubevirtv1.ControllerAPILatestVersionObservedAnnotation] = kubevirtv1.ApiLatestVersion
	vmi.Annotations[kubevirtv1.ControllerAPIStorageVersionObservedAnnotation] = kubevirtv1.ApiStorageVersion
	if !slices.Contains(vmi.Finalizers, kubevirtv1.VirtualMachineInstanceFinalizer) {
		vmi.Finalizers = append(vmi.Finalizers, kubevirtv1.VirtualMachineInstanceFinalizer)
	}
	if vmi.Spec.Architecture == "" {
		vmi.Spec.Architecture = "amd64"
	}
	if vmi.Spec.TerminationGracePeriodSeconds == nil {
		vmi.Spec.TerminationGracePeriodSeconds = new(int64)
	}
	defaultDomain(&vmi.Spec.Domain)
	defaultDevices(&vmi.Spec)
	defaultStatus(vmi)
}

func defaultDomain(domain *kubevirtv1.DomainSpec) {
	if domain.Machine == nil {
		domain.Machine = &kubevirtv1.Machine{Type: "q35"}
	}
	if domain.CPU == nil {
		domain.CPU = &kubevirtv1.CPU{}
	}
	for _, count := range []*uint32{&domain.CPU.Sockets, &domain.CPU.Cores, &domain.CPU.Threads} {
		*count = max(*count, 1)
	}
	if domain.CPU.Model == "" {
		domain.CPU.Model = kubevirtv1.CPUModeHostPassthrough // so that any node will do
	}
	if domain.Memory == nil || domain.Memory.Guest == nil {
		return
	}
	requests := domain.Resources.Requests.DeepCopy()
	if requests == nil {
		requests = corev1.ResourceList{}
	}
	if _, set := requests[corev1.ResourceMemory]; !set {
		requests[corev1.ResourceMemory] = domain.Memory.Guest.DeepCopy()
	}
	domain.Resources.Requests = requests
}

// defaultDevices gives every volume a disk, and the machine a network.
func defaultDevices(spec *kubevirtv1.VirtualMachineInstanceSpec) {
	devices := &spec.Domain.Devices
	for _, volume := range spec.Volumes {
		named := func(disk kubevirtv1.Disk) bool { return disk.Name == volume.Name }
		if !slices.ContainsFunc(devices.Disks, named) {
			target := kubevirtv1.DiskDevice{Disk: &kubevirtv1.DiskTarget{Bus: kubevirtv1.DiskBusVirtio}}
			devices.Disks = append(devices.Disks, kubevirtv1.Disk{Name: volume.Name, DiskDevice: target})
		}
	}
	if len(spec.Networks) == 0 && len(devices.Interfaces) == 0 {
		const name = "default"
		spec.Networks = []kubevirtv1.Network{{Name: name, NetworkSource: kubevirtv1.NetworkSource{Pod: &kubevirtv1.PodNetwork{}}}}
		devices.Interfaces = []kubevirtv1.Interface{{
			Name:                   name,
			InterfaceBindingMethod: kubevirtv1.InterfaceBindingMethod{Masquerade: &kubevirtv1.InterfaceMasquerade{}},
		}}
	}
}

func defaultStatus(vmi *kubevirtv1.VirtualMachineInstance) {
	status, domain := &vmi.Status, vmi.Spec.Domain
	if status.Phase == "" {
		status.Phase = kubevirtv1.Pending
	}
	if status.CurrentCPUTopology == nil {
		status.CurrentCPUTopology = &kubevirtv1.CPUTopology{Sockets: domain.CPU.Sockets, Cores: domain.CPU.Cores, Threads: domain.CPU.Threads}
	}
	if status.Memory == nil && domain.Memory != nil && domain.Memory.Guest != nil {
		copied := func() *resource.Quantity {
			guest := domain.Memory.Guest.DeepCopy()
			return &guest
		}
		status.Memory = &kubevirtv1.MemoryStatus{GuestAtBoot: copied(), GuestCurrent: copied(), GuestRequested: copied()}
	}
}

// NewVMIM returns a migration of a virtual machine instance. The API server gives it
// the label and the finalizer that virt-api would.
func NewVMIM(namespace, name, vmi string) *kubevirtv1.VirtualMachineInstanceMigration {
	return &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: vmi},
	}
}
