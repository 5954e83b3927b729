// Package v1beta1 has the fields of a template that virt-controller reads.
package v1beta1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// ConditionReady is the condition of a template that can be used.
const ConditionReady = "Ready"

// A VirtualMachineTemplate is a virtual machine with parameters.
type VirtualMachineTemplate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              VirtualMachineTemplateSpec   `json:"spec"`
	Status            VirtualMachineTemplateStatus `json:"status,omitempty"`
}

// A VirtualMachineTemplateSpec is what somebody asked for.
type VirtualMachineTemplateSpec struct {
	VirtualMachine *runtime.RawExtension `json:"virtualMachine,omitempty"`
	Parameters     []Parameter           `json:"parameters,omitempty"`
}

// A Parameter has a value unless somebody who uses the template gives it another.
type Parameter struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

// A VirtualMachineTemplateStatus tells whether the template can be used.
type VirtualMachineTemplateStatus struct {
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// DeepCopy returns a copy that shares no memory with t.
func (t *VirtualMachineTemplate) DeepCopy() *VirtualMachineTemplate {
	if t == nil {
		return nil
	}
	result := &VirtualMachineTemplate{
		TypeMeta:   t.TypeMeta,
		ObjectMeta: *t.ObjectMeta.DeepCopy(),
		Spec: VirtualMachineTemplateSpec{
			VirtualMachine: t.Spec.VirtualMachine.DeepCopy(),
			Parameters:     slices.Clone(t.Spec.Parameters),
		},
	}
	result.Status.Conditions = slices.Clone(t.Status.Conditions)
	return result
}

// DeepCopyObject is DeepCopy, for runtime.Object.
func (t *VirtualMachineTemplate) DeepCopyObject() runtime.Object {
	return t.DeepCopy()
}
