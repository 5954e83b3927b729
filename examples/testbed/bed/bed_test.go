package bed

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/quota"
)

// eventually is how long the tests wait for what has to come.
const eventually = 5 * time.Minute

var (
	shared     *Bed
	startOnce  sync.Once
	errStarted error
)

// TestMain stops the bed that the tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	if shared != nil {
		if err := shared.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// sharedBed returns a bed that all tests use, each in a namespace of its own.
func sharedBed(t *testing.T) *Bed {
	t.Helper()
	startOnce.Do(func() {
		shared, errStarted = Start(context.Background(), Config{Log: os.Stderr, Step: 20 * time.Millisecond})
	})
	require.NoError(t, errStarted)
	return shared
}

// A tenant is a namespace in a bed.
type tenant struct {
	*testing.T
	bed       *Bed
	namespace string
	client    kubernetes.Interface
	vmis      virt.Client[kubevirtv1.VirtualMachineInstance]
	vmims     virt.Client[kubevirtv1.VirtualMachineInstanceMigration]
}

func newTenant(t *testing.T, b *Bed) *tenant {
	t.Helper()
	namespace, err := b.NewNamespace(t.Context(), "tenant-")
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(b.Config())
	require.NoError(t, err)
	machines, err := dynamic.NewForConfig(b.Config())
	require.NoError(t, err)
	return &tenant{T: t, bed: b, namespace: namespace, client: client, vmis: virt.VMIs(machines, namespace), vmims: virt.VMIMs(machines, namespace)}
}

// newVMI creates a VMI and waits until it runs.
func (n *tenant) newVMI(name string) {
	n.Helper()
	_, err := n.vmis.Create(n.Context(), virt.NewVMI(n.namespace, name, 1, resource.MustParse("1Gi")))
	require.NoError(n, err)
	require.EventuallyWithT(n, func(c *assert.CollectT) {
		vmi, err := n.vmis.Get(n.Context(), name)
		require.NoError(c, err)
		require.Equal(c, kubevirtv1.Running, vmi.Status.Phase)
	}, eventually, 50*time.Millisecond)
}

// migrate creates a migration.
func (n *tenant) migrate(name, vmi string) {
	n.Helper()
	_, err := n.vmims.Create(n.Context(), virt.NewVMIM(n.namespace, name, vmi))
	require.NoError(n, err)
}

func (n *tenant) awaitVMIM(name string, is func(*assert.CollectT, *kubevirtv1.VirtualMachineInstanceMigration)) {
	n.Helper()
	require.EventuallyWithT(n, func(c *assert.CollectT) {
		vmim, err := n.vmims.Get(n.Context(), name)
		require.NoError(c, err)
		is(c, vmim)
	}, eventually, 50*time.Millisecond)
}

func succeeded(c *assert.CollectT, vmim *kubevirtv1.VirtualMachineInstanceMigration) {
	require.Equal(c, kubevirtv1.MigrationSucceeded, vmim.Status.Phase)
}

// TestRefusedMigration is what the bed is for: a quota that is exactly full, a target
// pod that it refuses, a raise, and a migration that goes through.
func TestRefusedMigration(t *testing.T) {
	n := newTenant(t, sharedBed(t))
	n.newQuota("q", corev1.ResourceList{"limits.cpu": resource.MustParse("100"), "limits.memory": resource.MustParse("100Gi")})
	n.newVMI("vm")
	var used corev1.ResourceList
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		rq, err := n.client.CoreV1().ResourceQuotas(n.namespace).Get(t.Context(), "q", metav1.GetOptions{})
		require.NoError(c, err)
		memory := rq.Status.Used["limits.memory"]
		require.Positive(c, memory.Sign())
		used = rq.Status.Used
	}, eventually, 50*time.Millisecond)
	n.setQuota("q", used)

	n.migrate("m", "vm")
	n.awaitVMIM("m", func(c *assert.CollectT, vmim *kubevirtv1.VirtualMachineInstanceMigration) {
		require.Equal(c, kubevirtv1.MigrationPending, vmim.Status.Phase)
		require.True(c, rejected(vmim))
	})
	require.Len(t, n.launchers(), 1)

	raised := used.DeepCopy()
	for name, quantity := range used {
		quantity = quantity.DeepCopy()
		quantity.Add(used[name])
		raised[name] = quantity
	}
	n.setQuota("q", raised)
	n.awaitVMIM("m", succeeded)

	vmim, err := n.vmims.Get(t.Context(), "m")
	require.NoError(t, err)
	require.False(t, rejected(vmim))
	vmi, err := n.vmis.Get(t.Context(), "vm")
	require.NoError(t, err)
	require.Equal(t, vmi.Status.MigrationState.TargetNode, vmi.Status.NodeName)
	require.NotEqual(t, vmi.Status.MigrationState.SourceNode, vmi.Status.NodeName)

	refusals := 0
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		events, err := n.bed.Audit()
		require.NoError(c, err)
		refusals = 0
		created := 0
		for _, e := range events {
			if e.Namespace != n.namespace || e.Resource != "pods" || e.Subresource != "" || e.Verb != "create" {
				continue
			}
			require.Equal(c, "system:serviceaccount:kubevirt:kubevirt-controller", e.User)
			if e.Code == 403 {
				require.Contains(c, e.Message, "exceeded quota: q")
				refusals++
			} else {
				created++
			}
		}
		require.Equal(c, 2, created, "source and target")
		require.Positive(c, refusals)
	}, eventually, 50*time.Millisecond)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		rq, err := n.client.CoreV1().ResourceQuotas(n.namespace).Get(t.Context(), "q", metav1.GetOptions{})
		require.NoError(c, err)
		for name, quantity := range used {
			now := rq.Status.Used[name]
			require.Zero(c, now.Cmp(quantity), "%s: %s", name, &now)
		}
	}, eventually, 50*time.Millisecond, "the source does not count any more")
}

func rejected(vmim *kubevirtv1.VirtualMachineInstanceMigration) bool {
	for _, condition := range vmim.Status.Conditions {
		if condition.Type == kubevirtv1.VirtualMachineInstanceMigrationRejectedByResourceQuota {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (n *tenant) newQuota(name string, hard corev1.ResourceList) {
	n.Helper()
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}
	_, err := n.client.CoreV1().ResourceQuotas(n.namespace).Create(n.Context(), rq, metav1.CreateOptions{})
	require.NoError(n, err)
	n.awaitQuota(name, hard)
}

// setQuota sets limits by hand, and waits until they are in force.
func (n *tenant) setQuota(name string, hard corev1.ResourceList) {
	n.Helper()
	require.EventuallyWithT(n, func(c *assert.CollectT) {
		rq, err := n.client.CoreV1().ResourceQuotas(n.namespace).Get(n.Context(), name, metav1.GetOptions{})
		require.NoError(c, err)
		rq.Spec.Hard = hard
		_, err = n.client.CoreV1().ResourceQuotas(n.namespace).Update(n.Context(), rq, metav1.UpdateOptions{})
		require.NoError(c, err)
	}, eventually, 50*time.Millisecond)
	n.awaitQuota(name, hard)
}

func (n *tenant) awaitQuota(name string, hard corev1.ResourceList) {
	n.Helper()
	require.EventuallyWithT(n, func(c *assert.CollectT) {
		rq, err := n.client.CoreV1().ResourceQuotas(n.namespace).Get(n.Context(), name, metav1.GetOptions{})
		require.NoError(c, err)
		require.True(c, quota.Equal(hard, rq.Status.Hard))
	}, eventually, 50*time.Millisecond)
}

func (n *tenant) launchers() []corev1.Pod {
	n.Helper()
	pods, err := n.client.CoreV1().Pods(n.namespace).List(n.Context(), metav1.ListOptions{LabelSelector: kubevirtv1.AppLabel + "=virt-launcher"})
	require.NoError(n, err)
	return pods.Items
}

// TestKillAndRestart kills each component in the middle of a migration that hangs, and
// starts it again: nothing is lost, and the migration goes on.
func TestKillAndRestart(t *testing.T) {
	b := sharedBed(t)
	for _, component := range b.Components() {
		t.Run(string(component), func(t *testing.T) {
			n := newTenant(t, b)
			n.newVMI("vm")
			vmim := virt.NewVMIM(n.namespace, "m", "vm")
			vmim.Annotations = map[string]string{sim.MigrationAnnotation: sim.Hang}
			require.EventuallyWithT(t, func(c *assert.CollectT) { // an API server that was restarted serves custom resources a little later
				_, err := n.vmims.Create(t.Context(), vmim)
				require.NoError(c, err)
			}, eventually, 50*time.Millisecond)
			n.awaitVMIM("m", func(c *assert.CollectT, vmim *kubevirtv1.VirtualMachineInstanceMigration) {
				require.Equal(c, kubevirtv1.MigrationRunning, vmim.Status.Phase)
			})
			before, err := readPIDFile(b.Dir(), string(component))
			require.NoError(t, err)
			require.True(t, before.running())
			require.NoError(t, b.Kill(component))
			require.False(t, before.running())
			require.NoError(t, b.Restart(t.Context(), component))
			after, err := readPIDFile(b.Dir(), string(component))
			require.NoError(t, err)
			require.True(t, after.running())
			require.NotEqual(t, before, after)

			require.EventuallyWithT(t, func(c *assert.CollectT) {
				_, err := n.vmims.Patch(t.Context(), "m", `{"metadata":{"annotations":{"`+sim.MigrationAnnotation+`":null}}}`)
				require.NoError(c, err)
			}, eventually, 50*time.Millisecond)
			n.awaitVMIM("m", succeeded)
		})
	}
}

func TestNoSuchComponent(t *testing.T) {
	b := sharedBed(t)
	require.Error(t, b.Kill("kubelet"))
	require.Error(t, b.Restart(t.Context(), "kubelet"))
}

func TestUserHasOnlyTheRightsThatItsGroupsHave(t *testing.T) {
	n := newTenant(t, sharedBed(t))
	nobody, err := n.bed.User("somebody", "some group")
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(nobody)
	require.NoError(t, err)
	_, err = client.CoreV1().ResourceQuotas(n.namespace).List(t.Context(), metav1.ListOptions{})
	require.True(t, apierrors.IsForbidden(err), "%v", err)
	require.ErrorContains(t, err, `"somebody"`)

	account, err := n.bed.ServiceAccount(t.Context(), n.namespace, "default")
	require.NoError(t, err)
	client, err = kubernetes.NewForConfig(account)
	require.NoError(t, err)
	_, err = client.CoreV1().ResourceQuotas(n.namespace).List(t.Context(), metav1.ListOptions{})
	require.True(t, apierrors.IsForbidden(err), "%v", err)
	require.ErrorContains(t, err, "system:serviceaccount:"+n.namespace+":default")
}

// TestDrainedNodeIsEvacuated lets the real virt-controller create the migrations.
func TestDrainedNodeIsEvacuated(t *testing.T) {
	n := newTenant(t, sharedBed(t))
	for _, name := range []string{"vm1", "vm2", "vm3"} {
		n.newVMI(name)
	}
	vmi, err := n.vmis.Get(t.Context(), "vm1")
	require.NoError(t, err)
	node := vmi.Status.NodeName
	require.NoError(t, n.bed.Simulator().Drain(t.Context(), node))
	t.Cleanup(func() { require.NoError(t, n.bed.Simulator().Undrain(context.Background(), node)) })
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		vmis, err := n.vmis.List(t.Context())
		require.NoError(c, err)
		for _, vmi := range vmis {
			require.NotEqual(c, node, vmi.Status.NodeName)
		}
	}, eventually, 50*time.Millisecond)
}
