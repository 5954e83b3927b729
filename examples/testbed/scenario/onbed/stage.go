// Package onbed plays scenarios on a real control plane, many side by side on the same.
package onbed

import (
	"bytes"
	"embed"
	"io"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/examples/testbed/virt"
)

// Who the processes are on a bed.
const (
	User      = "headroom-library"     // the library
	OtherUser = "other-quota-policies" // policies that write spec.hard
)

// A Stage is a running bed, with the library at work in a process of its own.
type Stage struct {
	Bed     *bed.Bed             // if it has two API servers, the library reaches the other one
	Client  kubernetes.Interface // an administrator's
	Objects dynamic.Interface    // an administrator's
	watch   *watch
}

// NewStage makes a stage of a bed, with a program at work. If it is empty, no process is
// started. What the process logs goes to log, too, if that is not nil. When t ends, the process
// ends, and the audit log is checked: see [CheckAudit]. The bed goes on.
func NewStage(t try.T, b *bed.Bed, program process.Program, log io.Writer) *Stage {
	s := &Stage{Bed: b, Client: try.Must(kubernetes.NewForConfig(b.Config()))(t), Objects: try.Must(dynamic.NewForConfig(b.Config()))(t)}
	s.watch = newWatch(t, s.Client, s.Objects)
	// As virt-operator is told, so that a hot-plug is carried out by migrating.
	s.configure(t, map[string]any{"workloadUpdateStrategy": map[string]any{"workloadUpdateMethods": []string{"LiveMigrate"}}})
	t.Cleanup(func() { require.NoError(t, CheckAudit(b.Audit(t))) })
	if program != "" {
		s.StartProgram(t, program, log)
	}
	return s
}

// StartProgram starts a process with the rights that the program needs, and waits until it
// works. It ends with t at the latest.
func (s *Stage) StartProgram(t try.T, program process.Program, log io.Writer) *process.Process {
	t.Helper()
	user, rights := User, []Right{EnforceLimits}
	switch program {
	case process.Recorded:
		rights = append(rights, WriteLedger)
	case process.RaisePending:
		user, rights = OtherUser, []Right{WriteQuotas}
	default: // it needs no more
	}
	s.Grant(t, user, rights...)
	p := s.Launch(t, program, user, user, log)
	require.NoError(t, p.AwaitReady(t.Context()))
	return p
}

// Launch starts a process as user, which calls itself agent. It ends with t at the latest.
func (s *Stage) Launch(t try.T, program process.Program, user, agent string, log io.Writer) *process.Process {
	t.Helper()
	p := try.Must(process.Start(program, s.Bed.Other(s.Bed.User(t, user)), agent, log))(t)
	t.Cleanup(func() { require.NoError(t, p.Stop()) })
	return p
}

// configure changes the spec of the KubeVirt object.
func (s *Stage) configure(t try.T, spec map[string]any) {
	t.Helper()
	try.Must(s.Objects.Resource(virt.KubeVirts).Namespace(bed.KubeVirtNamespace).Patch(t.Context(), "kubevirt", types.MergePatchType,
		[]byte(Spelled(map[string]any{"spec": spec})), metav1.PatchOptions{}))(t)
}

// Configure changes KubeVirt's configuration: nil is a default. It returns when
// virt-controller goes by it, which that says nowhere.
func (s *Stage) Configure(t try.T, configuration map[string]any) {
	t.Helper()
	s.configure(t, map[string]any{"configuration": configuration})
	try.Sleep(t, time.Second)
}

// Crowded are the limits of KubeVirt for many scenarios at once, which must not wait for
// each other's migrations.
var Crowded = map[string]any{"migrations": map[string]any{"parallelMigrationsPerCluster": 200, "parallelOutboundMigrationsPerNode": 200}}

// Alone are KubeVirt's own.
var Alone = map[string]any{"migrations": nil}

// AwaitEmpty waits until no pod is left of the plays before, which would count where VMs are
// spread over the nodes.
func (s *Stage) AwaitEmpty(t try.T) {
	t.Helper()
	try.Eventually(t, func(c try.T) { require.Empty(c, s.watch.pods.GetIndexer().ListKeys()) })
}

// Cluster returns a fresh namespace, whose name begins with name, and which is deleted when t ends.
func (s *Stage) Cluster(t try.T, name string) *Cluster {
	t.Helper()
	namespace := s.Bed.NewNamespace(t, name+"-")
	try.Cleanup(t, func(t try.T) {
		err := s.Client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{})
		if !apierrors.IsNotFound(err) { // by the scenario
			require.NoError(t, err)
		}
	})
	return &Cluster{T: t, stage: s, namespace: namespace}
}

// A Right is what a user of [Stage.Grant] may do beside reading: the name of a file in rights.
type Right string

// The rights.
const (
	EnforceLimits Right = "enforce-limits" // update of resourcequotas/status
	WriteLedger   Right = "write-ledger"   // everything that the ConfigMap ledger does in process.Namespace
	WriteQuotas   Right = "write-quotas"   // update of resourcequotas, which the library never has
)

//go:embed rights/*.yaml
var manifests embed.FS

// Grant gives user the rights to read what the library reads, to record events, to nudge
// migrations, and the rights named. It also creates process.Namespace. What user was granted
// before stays.
func (s *Stage) Grant(t try.T, user string, rights ...Right) {
	t.Helper()
	for _, right := range append([]Right{"read"}, rights...) {
		content := try.Must(manifests.ReadFile("rights/" + string(right) + ".yaml"))(t)
		s.Bed.Create(t, bytes.ReplaceAll(content, []byte("USER"), []byte(user)))
	}
}
