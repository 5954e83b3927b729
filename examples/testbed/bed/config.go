package bed

import (
	"io"
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

func (c Config) versions() (Versions, error) {
	if c.Versions != (Versions{}) {
		return ChooseVersions(c.Versions.Name)
	}
	return ChooseVersions("")
}
