// Package onfake plays scenarios on a simulated cluster, in simulated time.
package onfake

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
)

const (
	namespace = "tenant"
	library   = "headroom" // the user
)

// A cluster is a simulated [scenario.Cluster], and the library's record.EventRecorder.
type cluster struct {
	try.T
	fake     *fake.Cluster
	waits    []string
	outcomes map[string]fake.Outcome // by migration
}

func (c *cluster) Event(object runtime.Object, _, reason, message string) {
	if o, ok := object.(metav1.Object); ok {
		c.waits = append(c.waits, scenario.Waits(o, reason, message)...)
	}
}

func (c *cluster) Eventf(object runtime.Object, kind, reason, format string, args ...any) {
	c.Event(object, kind, reason, fmt.Sprintf(format, args...))
}

func (c *cluster) AnnotatedEventf(object runtime.Object, _ map[string]string, kind, reason, format string, args ...any) {
	c.Eventf(object, kind, reason, format, args...)
}

// Play plays s, and returns how it ended. It fails t also if an invariant was broken. The same
// seed makes the same play.
func Play(t try.T, s *scenario.Scenario, seed uint64) scenario.End {
	t.Helper()
	c := &cluster{T: t, outcomes: map[string]fake.Outcome{}}
	c.fake = fake.New(fake.Config{Seed: seed, Outcome: func(m *kubevirtv1.VirtualMachineInstanceMigration) fake.Outcome {
		return c.outcomes[m.Name]
	}})
	if s.Overhead != 0 {
		c.fake.SetMemoryOverhead(s.Overhead)
	}
	require.NoError(t, c.fake.CreateNamespace(process.Namespace, nil))
	require.NoError(t, c.fake.CreateNamespace(namespace, nil))
	c.fake.Start(library, func(p *fake.Process) fake.Program {
		options := migration.Options{Recorder: c}
		if s.Recorded {
			options.Ledger = configmap.New(p.Client.CoreV1(), process.Namespace)
		}
		return try.Must(p.Controller(options))(t)
	})
	end := scenario.Play(s, c)
	require.Empty(t, c.fake.Violations(), "seed %d", seed)
	return end
}

func (c *cluster) Client() kubernetes.Interface { return c.fake.Client("admin") }
func (c *cluster) Namespace() string            { return namespace }

// admissionLag is longer than quota admission takes to know a new quota. Until then it
// charges nothing.
const admissionLag = 100 * time.Millisecond

func (c *cluster) CreateVMI(vmi *kubevirtv1.VirtualMachineInstance) {
	c.fake.Advance(admissionLag)
	require.NoError(c, c.fake.CreateVMI(vmi))
}

func (c *cluster) DeleteVMI(name string) { require.NoError(c, c.fake.DeleteVMI(namespace, name)) }

func (c *cluster) CreateMigration(m scenario.Migrate) {
	outcome := fake.Outcome{Hang: m.Goes == scenario.Hang, Fail: m.Goes == scenario.Fail}
	if m.Linger == scenario.Forever {
		outcome.Linger = 1000 * time.Hour
	} else if m.Linger != "" {
		var err error
		outcome.Linger, err = time.ParseDuration(m.Linger)
		require.NoError(c, err)
	}
	c.outcomes[m.Name] = outcome
	vmim := virt.NewVMIM(namespace, m.Name, m.VM)
	vmim.Finalizers = []string{kubevirtv1.VirtualMachineInstanceMigrationFinalizer}
	if m.Evacuates {
		metav1.SetMetaDataAnnotation(&vmim.ObjectMeta, kubevirtv1.EvacuationMigrationAnnotation, "")
	}
	require.NoError(c, c.fake.CreateMigration(vmim))
}

func (c *cluster) DeleteMigration(name string) { require.NoError(c, c.fake.Abort(namespace, name)) }

func (c *cluster) HotPlug(h scenario.HotPlug) {
	vmi := c.fake.VMI(namespace, h.VM)
	require.True(c, vmi != nil && vmi.Spec.Domain.CPU != nil, "no VMI %s with CPUs", h.VM)
	c.fake.SetMemoryOverhead(h.Overhead)
	require.NoError(c, c.fake.HotPlug(namespace, h.VM, vmi.Spec.Domain.CPU.Sockets, h.Memory))
}

func (c *cluster) SetUtilityVolumes(vm string, volumes ...string) {
	require.NoError(c, c.fake.SetUtilityVolumes(namespace, vm, volumes...))
}

func (c *cluster) SetBackup(vm string, inProgress bool) {
	require.NoError(c, c.fake.SetBackup(namespace, vm, inProgress))
}

func (c *cluster) RefusePods(message string) { c.fake.RefusePods(namespace, message) }

func (c *cluster) Drain(node string) { c.fake.Drain(node) }

func (c *cluster) Undrain(node string) { c.fake.Uncordon(node) }

func (c *cluster) SetOverhead(overhead scenario.Overhead) { c.fake.SetMemoryOverhead(overhead.Bytes) }

// DeleteNamespace plays the namespace controller: it deletes all that is in the
// namespace, and the namespace when that is gone.
func (c *cluster) DeleteNamespace() {
	now, client := c.fake.Snapshot(namespace), c.Client().CoreV1()
	deleted := func(err error) {
		if !apierrors.IsNotFound(err) {
			require.NoError(c, err)
		}
	}
	for _, rq := range c.quotas() {
		deleted(client.ResourceQuotas(namespace).Delete(c.Context(), rq.Name, metav1.DeleteOptions{}))
	}
	for _, pod := range now.Pods {
		deleted(client.Pods(namespace).Delete(c.Context(), pod.Name, metav1.DeleteOptions{}))
	}
	for _, m := range now.Migrations {
		deleted(c.fake.Abort(namespace, m.Name))
	}
	for _, vmi := range now.VMIs {
		deleted(c.fake.DeleteVMI(namespace, vmi.Name))
	}
	require.True(c, c.fake.Until(time.Hour, func() bool {
		left := c.fake.Snapshot(namespace)
		return len(left.Pods)+len(left.Migrations)+len(left.VMIs) == 0
	}), "the namespace does not become empty")
	deleted(client.Namespaces().Delete(c.Context(), namespace, metav1.DeleteOptions{}))
}

func (c *cluster) State() scenario.State {
	now := c.fake.Snapshot(namespace)
	ledger, err := c.Client().CoreV1().ConfigMaps(process.Namespace).Get(c.Context(), configmap.Name(namespace), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		ledger, err = nil, nil
	}
	require.NoError(c, err)
	return scenario.State{
		Namespace: now.Namespace, Quotas: c.quotas(), Pods: now.Pods, VMIs: now.VMIs, Migrations: now.Migrations, Ledger: ledger, Waits: c.waits,
	}
}

// quotas returns the quotas of the namespace, sorted by name.
func (c *cluster) quotas() (quotas []*corev1.ResourceQuota) {
	list := try.Must(c.Client().CoreV1().ResourceQuotas(namespace).List(c.Context(), metav1.ListOptions{}))(c)
	for i := range list.Items {
		quotas = append(quotas, &list.Items[i])
	}
	slices.SortFunc(quotas, func(a, b *corev1.ResourceQuota) int { return strings.Compare(a.Name, b.Name) })
	return quotas
}

// Until waits for longer than KubeVirt's longest back-off.
func (c *cluster) Until(done func(scenario.State) bool) bool {
	return c.fake.Until(time.Hour, func() bool { return done(c.State()) })
}

func (c *cluster) Rest() { c.fake.Advance(10 * time.Minute) }

func (c *cluster) Writes() int { return c.fake.Writes(library, fake.ResourceQuotas) }
