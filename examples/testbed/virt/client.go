// Package virt reads and writes KubeVirt's objects, and makes them as virt-api would.
package virt

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/dynamic"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// The resources of this package's clients.
var (
	Machines   = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachines")
	Instances  = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstances")
	Migrations = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstancemigrations")
	KubeVirts  = kubevirtv1.SchemeGroupVersion.WithResource("kubevirts")
)

// A Client reads and writes objects of the type T, in one namespace or, to list and to
// watch, in all. Its errors are those of the API server.
type Client[T any] struct {
	client dynamic.ResourceInterface
	kind   schema.GroupVersionKind
}

// VMs returns a client of virtual machines; namespace "": in all namespaces.
func VMs(client dynamic.Interface, namespace string) Client[kubevirtv1.VirtualMachine] {
	return Client[kubevirtv1.VirtualMachine]{client.Resource(Machines).Namespace(namespace), kubevirtv1.VirtualMachineGroupVersionKind}
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

func (c Client[T]) untyped(object *T) (*unstructured.Unstructured, error) {
	// By way of JSON, for what is untyped has no unsigned numbers and VMIs have.
	content, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.kind.Kind, err)
	}
	var result unstructured.Unstructured
	if err := json.Unmarshal(content, &result.Object); err != nil {
		return nil, fmt.Errorf("%s: %w", c.kind.Kind, err)
	}
	result.SetGroupVersionKind(c.kind)
	return &result, nil
}

func typed[T any](object *unstructured.Unstructured, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	var result T
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &result); err != nil {
		return nil, fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return &result, nil
}
