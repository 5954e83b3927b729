package bed

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	kubevirtv1 "kubevirt.io/api/core/v1"
)

// Config says what a bed is like. The zero value is a bed with three nodes.
type Config struct {
	// Dir is where the bed keeps its data, logs and credentials. It is created, and has
	// to be empty if it exists. Empty: a fresh folder, which Stop removes.
	Dir string
	// Keep makes Stop leave a fresh folder where it is.
	Keep bool
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
	// KubeVirt is the configuration in the KubeVirt object. It can be changed in the
	// running bed. Nil: KubeVirt's defaults.
	KubeVirt *kubevirtv1.KubeVirtConfiguration
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

func (c Config) versions() (Versions, error) {
	if c.Versions != (Versions{}) {
		return ChooseVersions(c.Versions.Name)
	}
	return ChooseVersions("")
}
