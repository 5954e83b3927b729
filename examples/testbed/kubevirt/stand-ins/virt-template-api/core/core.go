// Package core names the resource that templates of virtual machines are.
package core

// The API group of templates, and the names of the resource.
const (
	GroupName            = "template.kubevirt.io"
	SingularResourceName = "virtualmachinetemplate"
	PluralResourceName   = "virtualmachinetemplates"
)
