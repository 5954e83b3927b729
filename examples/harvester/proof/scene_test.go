package proof

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/ledger/rancher"
)

const (
	system    = "harvester-system"   // the namespace of the service accounts
	asApplied = "harvester-headroom" // the service account of rbac.yaml
)

// What all tests share. The write lock of Rancher's webhook is installed.
var (
	stage         *onbed.Stage
	rancherClient kubernetes.Interface
)

func TestMain(m *testing.M) {
	onbed.Main(m, func(t try.T, s *onbed.Stage) {
		stage = s
		s.Build(t, "..", ".")
		s.Build(t, "../../controller", ".")
		s.Bed.Create(t, []byte("{apiVersion: v1, kind: Namespace, metadata: {name: "+system+"}}"))
		rancherClient = try.Must(kubernetes.NewForConfig(s.Bed.User(t, bed.RancherUser, "system:masters")))(t)
		s.Bed.LockQuotas(t)
	})
}

// A scene is a namespace with a quota as Rancher makes it, which one VM fills exactly.
type scene struct{ *onbed.Fleet }

// newScene returns a scene in which the lock is in force or not.
func newScene(t *testing.T, locked bool) scene {
	t.Helper()
	return scene{stage.Fleet(t, "tenant", 1, onbed.FleetOptions{
		Owner: rancherClient,
		Quota: metav1.ObjectMeta{Name: "default-gn4d2", Labels: map[string]string{rancher.QuotaLabel: "true"}},
		Prepared: func(f *onbed.Fleet) {
			if !locked {
				f.PatchNamespace("labels", bed.UnlockedLabel, "true")
			}
			cpu, memory := f.Static[corev1.ResourceLimitsCPU], f.Static[corev1.ResourceLimitsMemory]
			f.PatchNamespace("annotations", rancher.LimitsAnnotation,
				fmt.Sprintf(`{"limit":{"limitsCpu":%q,"limitsMemory":%q}}`, cpu.String(), memory.String()))
		},
	})}
}

// startProgram starts the program, as a service account of that name with the rights of
// rbac.yaml, which is applied as it is but for the name of all that is in it.
func startProgram(t *testing.T, account string) *process.Process {
	t.Helper()
	file := try.Must(os.ReadFile("../rbac.yaml"))(t)
	said := try.Must(stage.Shell(t, ".", "kubectl apply -f - <<'END'\n"+strings.ReplaceAll(string(file), asApplied, account)+"\nEND"))(t)
	require.Equal(t, 3, strings.Count(said, " created\n"), said)
	return stage.StartAs(t, system, account, account, "harvester")
}

// writes returns the limits that the program of an account enforced, one after the other, and
// expects that it wrote nothing but the status of quotas, and had the right to all that it did.
func (s scene) writes(account string, p *process.Process) (limits []string) {
	s.Helper()
	user := "system:serviceaccount:" + system + ":" + account
	for _, e := range stage.Requests(s, user, p) {
		require.NotEqual(s, "configmaps", e.Resource)
	}
	for _, rq := range s.Versions() {
		if rq.Event.User == user {
			limits = append(limits, onbed.Spelled(rq.Status.Hard))
		}
	}
	s.Logf("%d writes", len(limits))
	return limits
}
