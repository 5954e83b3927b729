package bed

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config says what a bed is like. The zero value is a bed with three nodes.
type Config struct {
	// Dir is where the bed keeps its data, logs and credentials. It is created, and has
	// to be empty if it exists. Empty: a fresh folder, which Stop removes.
	Dir string
	// Log is told what is being done. Nil: nobody is.
	Log io.Writer

	// Versions are what is built. The zero value: those that VersionsVariable names.
	Versions Versions

	// APIServers is one, or two on the same etcd. Everybody reaches the first but whoever
	// has a client of [Bed.Other]. Zero: as APIServersVariable says, or one.
	APIServers int

	// Nodes is how many nodes are simulated, named node01 and so on. Zero: three.
	// Negative: nothing is simulated, no pod ever starts.
	Nodes int
	// Step is how long each step takes that is simulated: to bind a pod, to start it,
	// to hand over a virtual machine. Zero: 100 ms.
	Step time.Duration
	// QuotaSync is how often kube-controller-manager recounts every quota: its flag
	// --resource-quota-sync-period. Zero: Kubernetes' default of five minutes.
	QuotaSync time.Duration
}

// APIServersVariable is the environment variable that says how many API servers a bed has.
const APIServersVariable = "HEADROOM_TESTBED_APISERVERS"

// apiServers returns the components that are API servers.
func (c Config) apiServers() ([]Component, error) {
	n := strconv.Itoa(c.APIServers)
	if c.APIServers == 0 {
		n = cmp.Or(os.Getenv(APIServersVariable), "1")
	}
	switch n {
	case "1":
		return []Component{APIServer}, nil
	case "2":
		return []Component{APIServer, OtherAPIServer}, nil
	default:
		return nil, fmt.Errorf("a bed has one or two API servers, not %s", n)
	}
}

func (c Config) versions() (Versions, error) { return ChooseVersions(c.Versions.Name) }

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

// program returns one of the nested modules, and how it is built.
func (v Versions) program(name string) program {
	p := program{name: name, ldflags: "-s -w" + versionFlags(v.Kubernetes), modfile: v.modfile()}
	switch name {
	case controlPlane:
		p.what, p.cold = "Kubernetes "+v.Kubernetes+" and etcd "+v.Etcd, "9 minutes"
	case kubectl:
		p.what, p.cold = "kubectl "+v.Kubernetes, "2 minutes"
	case kubevirt:
		p.what, p.cold, p.ldflags = "KubeVirt "+v.KubeVirt, "4 minutes", "-s -w"
		if v == Oldest {
			p.tags = "kubevirt_1_8"
		}
	}
	return p
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
