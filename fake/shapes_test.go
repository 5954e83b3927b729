package fake

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// unsimulated are the beginnings of fields of recorded objects that have nothing to do
// with quota or migrations, and that the simulation leaves out.
var unsimulated = map[Kind][]string{
	ResourceQuotas: {"apiVersion", "kind"},
	Pods: {
		"apiVersion", "kind", "metadata.generation", "metadata.annotations.descheduler", "metadata.annotations.istio.io",
		"metadata.annotations.kubectl", "metadata.annotations.p", "metadata.annotations.traffic",
		"metadata.annotations.kubevirt.io/migration-target-ready", "metadata.annotations.kubevirt.io/migrationTransportUnix",
		"metadata.labels.kubevirt.io/migrationTargetNodeName", "metadata.labels.kubevirt.io/nodeName",
		"spec.affinity", "spec.automount", "spec.dnsPolicy", "spec.enableServiceLinks", "spec.hostname", "spec.nodeSelector",
		"spec.preemptionPolicy", "spec.priority", "spec.readinessGates", "spec.schedulerName", "spec.securityContext",
		"spec.serviceAccount", "spec.tolerations", "spec.volumes", "spec.containers[].command", "spec.containers[].env",
		"spec.containers[].image", "spec.containers[].securityContext", "spec.containers[].termination", "spec.containers[].volumeMounts",
		"spec.initContainers[].args", "spec.initContainers[].command", "spec.initContainers[].env", "spec.initContainers[].image",
		"spec.initContainers[].securityContext", "spec.initContainers[].termination", "spec.initContainers[].volumeMounts",
		"status.conditions[].lastProbeTime", "status.conditions[].message", "status.conditions[].reason",
		"status.conditions[].type = kubevirt.io/virtual-machine-unpaused", "status.containerStatuses", "status.initContainerStatuses",
		"status.podIP", "status.qosClass",
	},
	VMIs: {
		"apiVersion", "kind", "metadata.generation", "spec.domain.cpu.model", "spec.domain.devices", "spec.domain.machine", "spec.networks",
		"status.conditions[].lastProbeTime", "status.conditions[].message", "status.interfaces", "status.launcherContainerImageVersion",
		"status.migrationState.migrationConfiguration", "status.migrationTransport", "status.qosClass", "status.volumeStatus",
		"status.phaseTransitionTimestamps[].phase = Succeeded", // the recordings' virt-handler does not write it
	},
	Migrations: {
		"apiVersion", "kind", "metadata.generation", "metadata.annotations.sim.", "status.migrationState.migrationConfiguration",
	},
}

// valued reports whether the value of a field must be the same in the simulation, and the
// field not only be there.
func valued(path string) bool {
	return strings.Contains(path, ".resources.") || strings.Contains(path, "status.hard") || strings.Contains(path, "status.used") ||
		slices.ContainsFunc([]string{".restartPolicy", ".phase", ".type", ".status", "memory-overhead-bytes", "emoryOverhead", "inalizers[]", ".kind"},
			func(end string) bool { return strings.HasSuffix(path, end) })
}

// fieldsOf adds to fields the paths of all that o has. Lists have no indexes, and keys
// that are UIDs no letters.
func fieldsOf(t *testing.T, fields map[string]bool, o metav1.Object) {
	data, err := json.Marshal(o)
	require.NoError(t, err)
	var tree any
	require.NoError(t, json.Unmarshal(data, &tree))
	collect(fields, "", tree)
}

func collect(fields map[string]bool, path string, value any) {
	switch value := value.(type) {
	case map[string]any:
		for name, v := range value {
			if strings.HasSuffix(path, ".activePods") {
				name = "UID"
			}
			collect(fields, path+"."+name, v)
		}
	case []any:
		for _, v := range value {
			collect(fields, path+"[]", v)
		}
	case nil:
	default:
		path = strings.TrimPrefix(path, ".")
		if valued(path) {
			path += fmt.Sprintf(" = %v", value)
		}
		fields[path] = true
	}
}

func simulated(kind Kind, fields map[string]bool) []string {
	var left []string
	for field := range fields {
		if !slices.ContainsFunc(unsimulated[kind], func(prefix string) bool { return strings.HasPrefix(field, prefix) }) {
			left = append(left, field)
		}
	}
	slices.Sort(left)
	return left
}

func without(fields []string, known map[string]bool) []string {
	return slices.DeleteFunc(fields, func(field string) bool { return known[field] })
}

// Every field of the recorded objects is simulated, but for the ones above, and nothing
// is simulated that was not recorded.
func TestFieldsAreThoseOfTheRecordings(t *testing.T) {
	recorded, made := map[Kind]map[string]bool{}, map[Kind]map[string]bool{}
	note := func(fields map[Kind]map[string]bool, o object) {
		if fields[kindOf(o)] == nil {
			fields[kindOf(o)] = map[string]bool{}
		}
		fieldsOf(t, fields[kindOf(o)], o)
	}
	for name, play := range scenarios {
		for _, e := range readRecording(t, name) {
			o, ok := e.Object.(object)
			require.True(t, ok)
			note(recorded, o)
		}
		s := newStage(t)
		s.store.tell = append(s.store.tell, func(c change) {
			if c.kind != Namespaces {
				note(made, c.object())
			}
		})
		play(s)
	}
	for _, kind := range []Kind{ResourceQuotas, Pods, VMIs, Migrations} {
		t.Run(string(kind), func(t *testing.T) {
			require.Empty(t, without(simulated(kind, recorded[kind]), made[kind]), "recorded, and not simulated")
			require.Empty(t, without(simulated(kind, made[kind]), recorded[kind]), "simulated, and not recorded")
		})
	}
}
