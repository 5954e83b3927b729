// Package virt reads and writes KubeVirt's objects, and makes them as virt-api would.
package virt

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/migration"
)

// The resources of this package's clients.
var (
	Instances  = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstances")
	Migrations = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstancemigrations")
	KubeVirts  = kubevirtv1.SchemeGroupVersion.WithResource("kubevirts")
)

// Informer returns an informer of typed objects of one of the resources, in all namespaces.
func Informer(client dynamic.Interface, resource schema.GroupVersionResource) cache.SharedIndexInformer {
	informer := dynamicinformer.NewDynamicSharedInformerFactory(client, 0).ForResource(resource).Informer()
	_ = informer.SetTransform(migration.Typed) // fails only for informers that run
	return informer
}

// Watch runs informers until ctx is done. It returns when they and handler have seen what there is.
func Watch(ctx context.Context, handler cache.ResourceEventHandler, informers ...cache.SharedIndexInformer) error {
	var synced []cache.InformerSynced
	for _, informer := range informers {
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			return err
		}
		synced = append(synced, registration.HasSynced)
		go informer.RunWithContext(ctx)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return errors.New("ended before the caches were synced")
	}
	return nil
}

// A Client reads and writes objects of the type T, in one namespace or, to list and to
// watch, in all. Its errors are those of the API server.
type Client[T any] struct {
	client dynamic.ResourceInterface
	kind   schema.GroupVersionKind
}

// VMIs returns a client of virtual machine instances; namespace "": in all namespaces.
func VMIs(client dynamic.Interface, namespace string) Client[kubevirtv1.VirtualMachineInstance] {
	return Client[kubevirtv1.VirtualMachineInstance]{client.Resource(Instances).Namespace(namespace), kubevirtv1.VirtualMachineInstanceGroupVersionKind}
}

// VMIMs returns a client of migrations; namespace "": in all namespaces.
func VMIMs(client dynamic.Interface, namespace string) Client[kubevirtv1.VirtualMachineInstanceMigration] {
	return Client[kubevirtv1.VirtualMachineInstanceMigration]{client.Resource(Migrations).Namespace(namespace), kubevirtv1.VirtualMachineInstanceMigrationGroupVersionKind}
}

// Create creates object.
func (c Client[T]) Create(ctx context.Context, object *T) (*T, error) {
	content, err := c.untyped(object)
	if err != nil {
		return nil, err
	}
	return typed[T](c.client.Create(ctx, content, metav1.CreateOptions{}))
}

// Get returns the object with that name.
func (c Client[T]) Get(ctx context.Context, name string) (*T, error) {
	return typed[T](c.client.Get(ctx, name, metav1.GetOptions{}))
}

// List returns all objects.
func (c Client[T]) List(ctx context.Context) ([]*T, error) {
	list, err := c.client.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	result := make([]*T, len(list.Items))
	for i := range list.Items {
		if result[i], err = typed[T](&list.Items[i], nil); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// Update writes object, unless it has changed since it was read.
func (c Client[T]) Update(ctx context.Context, object *T) (*T, error) {
	content, err := c.untyped(object)
	if err != nil {
		return nil, err
	}
	return typed[T](c.client.Update(ctx, content, metav1.UpdateOptions{}))
}

// Patch applies a JSON merge patch to the object with that name.
func (c Client[T]) Patch(ctx context.Context, name, patch string, subresources ...string) (*T, error) {
	return typed[T](c.client.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresources...))
}

// Delete deletes the object with that name.
func (c Client[T]) Delete(ctx context.Context, name string) error {
	return c.client.Delete(ctx, name, metav1.DeleteOptions{})
}

// untyped converts by way of JSON: what is untyped has no unsigned numbers, and VMIs have.
func (c Client[T]) untyped(object *T) (*unstructured.Unstructured, error) {
	result := &unstructured.Unstructured{}
	content, err := json.Marshal(object)
	if err == nil {
		err = json.Unmarshal(content, &result.Object)
	}
	if err == nil {
		result.SetGroupVersionKind(c.kind)
	}
	return result, err
}

func typed[T any](object *unstructured.Unstructured, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	result, err := migration.Typed(object)
	t, _ := result.(*T)
	return t, err
}

// NewVMI returns a virtual machine instance as the API server has it after virt-api's
// webhooks. It is the one of package fake, and more of what the real virt-controller
// wants to see (kubevirt.io/kubevirt pkg/defaults, and
// pkg/virt-api/webhooks/mutating-webhook/mutators/vmi-mutator.go). Its disk is an empty one,
// which every KubeVirt charges alike: KubeVirt 1.8 runs a container disk in a container of its
// own.
func NewVMI(namespace, name string, sockets uint32, guest resource.Quantity) *kubevirtv1.VirtualMachineInstance {
	vmi := fake.NewVMI(namespace, name, sockets, guest)
	domain := &vmi.Spec.Domain
	vmi.Spec.TerminationGracePeriodSeconds = new(int64)
	vmi.Spec.Volumes = []kubevirtv1.Volume{{Name: "d", VolumeSource: kubevirtv1.VolumeSource{
		EmptyDisk: &kubevirtv1.EmptyDiskSource{Capacity: *resource.NewQuantity(1<<30, resource.BinarySI)},
	}}}
	domain.Devices.Disks = []kubevirtv1.Disk{{Name: "d", DiskDevice: kubevirtv1.DiskDevice{Disk: &kubevirtv1.DiskTarget{Bus: kubevirtv1.DiskBusVirtio}}}}
	vmi.Spec.Networks = []kubevirtv1.Network{{Name: "default", NetworkSource: kubevirtv1.NetworkSource{Pod: &kubevirtv1.PodNetwork{}}}}
	domain.Devices.Interfaces = []kubevirtv1.Interface{{
		Name:                   "default",
		InterfaceBindingMethod: kubevirtv1.InterfaceBindingMethod{Masquerade: &kubevirtv1.InterfaceMasquerade{}},
	}}
	domain.Machine = &kubevirtv1.Machine{Type: "q35"}
	domain.CPU.Model = kubevirtv1.CPUModeHostPassthrough // so that any node will do
	vmi.Status.Phase = kubevirtv1.Pending
	vmi.Status.CurrentCPUTopology = &kubevirtv1.CPUTopology{Sockets: domain.CPU.Sockets, Cores: domain.CPU.Cores, Threads: domain.CPU.Threads}
	boot, current, requested := guest.DeepCopy(), guest.DeepCopy(), guest.DeepCopy()
	vmi.Status.Memory = &kubevirtv1.MemoryStatus{GuestAtBoot: &boot, GuestCurrent: &current, GuestRequested: &requested}
	return vmi
}

// NewVMIM returns a migration of a virtual machine instance. The API server gives it
// the label and the finalizer that virt-api would.
func NewVMIM(namespace, name, vmi string) *kubevirtv1.VirtualMachineInstanceMigration {
	return &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: vmi},
	}
}
