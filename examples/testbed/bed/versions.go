package bed

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Versions are what a bed is built from. The modules below controlplane, kubevirt
// and kubectl require these, in a file for each Versions; a test holds them to it.
type Versions struct {
	Name       string // to choose it by
	Kubernetes string
	Etcd       string // the one that Kubernetes is built with
	KubeVirt   string
}

// The versions that a bed can be built from.
var (
	Newest = Versions{Name: "newest", Kubernetes: "v1.37.2", Etcd: "v3.7.0", KubeVirt: "v1.9.0"}
	Oldest = Versions{Name: "oldest", Kubernetes: "v1.34.4", Etcd: "v3.6.4", KubeVirt: "v1.8.2"}
)

// VersionsVariable is the environment variable that names the versions of beds whose
// Config does not say. If it is not set, these are the Newest.
const VersionsVariable = "HEADROOM_TESTBED_VERSIONS"

// ChooseVersions returns the versions with that name; an empty one is that which
// VersionsVariable says.
func ChooseVersions(name string) (Versions, error) {
	all := []Versions{Newest, Oldest}
	name = cmp.Or(name, os.Getenv(VersionsVariable), Newest.Name)
	i := slices.IndexFunc(all, func(v Versions) bool { return v.Name == name })
	if i < 0 {
		return Versions{}, fmt.Errorf("no versions are called %q; there are %s and %s", name, Newest.Name, Oldest.Name)
	}
	return all[i], nil
}

// programs returns the nested modules that a bed runs, and how they are built.
func (v Versions) programs() (controlPlane, kubevirt program) {
	controlPlane = program{
		name:    "controlplane",
		what:    "Kubernetes " + v.Kubernetes + " and etcd " + v.Etcd,
		cold:    "9 minutes",
		ldflags: "-s -w" + versionFlags(v.Kubernetes),
		modfile: v.modfile(),
	}
	kubevirt = program{
		name:    "kubevirt",
		what:    "KubeVirt " + v.KubeVirt,
		cold:    "4 minutes",
		ldflags: "-s -w",
		modfile: v.modfile(),
	}
	if v == Oldest {
		kubevirt.tags = "kubevirt_1_8"
	}
	return controlPlane, kubevirt
}

// kubectl returns the nested module of the client.
func (v Versions) kubectl() program {
	return program{
		name:    "kubectl",
		what:    "kubectl " + v.Kubernetes,
		cold:    "2 minutes",
		ldflags: "-s -w" + versionFlags(v.Kubernetes),
		modfile: v.modfile(),
	}
}

// modfile returns the name of the file that a program's requirements are in.
func (v Versions) modfile() string {
	if v == Newest {
		return "go.mod"
	}
	return v.Name + ".mod"
}

// apiServerFlags returns what makes an API server of these versions serve
// MutatingAdmissionPolicies, which are on by default from Kubernetes 1.36 on.
func (v Versions) apiServerFlags() []string {
	if v == Newest {
		return nil
	}
	return []string{"--feature-gates=MutatingAdmissionPolicy=true", "--runtime-config=admissionregistration.k8s.io/v1beta1=true"}
}

// policyVersion is the version in which MutatingAdmissionPolicies are served.
func (v Versions) policyVersion() string {
	if v == Newest {
		return "v1"
	}
	return "v1beta1"
}

// versionFlags returns linker flags that make a binary of Kubernetes know its version.
func versionFlags(version string) string {
	const variable = " -X k8s.io/component-base/version."
	number := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	return variable + "gitVersion=" + version + variable + "gitMajor=" + number[0] + variable + "gitMinor=" + number[1]
}
