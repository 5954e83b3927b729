package proof

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/rancher"
)

const (
	eventually = 2 * time.Minute
	tick       = 50 * time.Millisecond
)

// What all tests share: one bed, and the program. Each test has a namespace of its own.
var (
	shared  *bed.Bed
	admin   kubernetes.Interface
	objects dynamic.Interface
	binary  string

	rancherClient kubernetes.Interface
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "harvester-proof-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "harvester")
	if out, err := exec.Command("go", "build", "-o", binary, "..").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		return 1
	}
	ctx := context.Background()
	shared, err = bed.Start(ctx, bed.Config{Log: os.Stderr, Step: 20 * time.Millisecond})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := shared.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	if admin, err = kubernetes.NewForConfig(shared.Config()); err == nil {
		objects, err = dynamic.NewForConfig(shared.Config())
	}
	if err == nil {
		_, err = admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: system}}, metav1.CreateOptions{})
	}
	if err == nil {
		err = lock(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// lock installs the write lock of Rancher's webhook.
func lock(ctx context.Context) error {
	config, err := shared.User(bed.RancherUser, "system:masters")
	if err != nil {
		return err
	}
	if rancherClient, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	return shared.LockQuotas(ctx)
}

// A scene is a namespace with a quota as Rancher makes it, which one VM fills exactly.
type scene struct {
	t         *testing.T
	namespace string
	vmi       *kubevirtv1.VirtualMachineInstance
	vmis      virt.Client[kubevirtv1.VirtualMachineInstance]
	vmims     virt.Client[kubevirtv1.VirtualMachineInstanceMigration]
	static    *corev1.ResourceQuota // before anything happens to it
}

// newScene returns a scene in which the lock is in force or not.
func newScene(t *testing.T, locked bool) *scene {
	t.Helper()
	s := &scene{t: t}
	var err error
	s.namespace, err = shared.NewNamespace(t.Context(), "tenant-")
	require.NoError(t, err)
	if !locked {
		s.patchNamespace("labels", bed.UnlockedLabel, "true")
	}
	s.vmims, s.vmis = virt.VMIMs(objects, s.namespace), virt.VMIs(objects, s.namespace)

	// KubeVirt gives limits to a VM whose namespace has a quota that asks for them.
	_, err = rancherClient.CoreV1().ResourceQuotas(s.namespace).Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "default-gn4d2", Labels: map[string]string{rancher.QuotaLabel: "true"}},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			corev1.ResourceLimitsCPU: resource.MustParse("100"), corev1.ResourceLimitsMemory: resource.MustParse("1000Gi"),
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	s.limited()
	_, err = s.vmis.Create(t.Context(), virt.NewVMI(s.namespace, "vm", 1, resource.MustParse("1Gi")))
	require.NoError(t, err)
	s.eventually(func(c *assert.CollectT) {
		s.vmi, err = s.vmis.Get(t.Context(), "vm")
		require.NoError(c, err)
		require.Equal(c, kubevirtv1.Running, s.vmi.Status.Phase)
	})
	s.write(func(rq *corev1.ResourceQuota) { rq.Spec.Hard = rq.Status.Used })
	s.static = s.quota(t)
	cpu, memory := s.static.Spec.Hard[corev1.ResourceLimitsCPU], s.static.Spec.Hard[corev1.ResourceLimitsMemory]
	s.patchNamespace("annotations", rancher.LimitsAnnotation,
		fmt.Sprintf(`{"limit":{"limitsCpu":%q,"limitsMemory":%q}}`, cpu.String(), memory.String()))
	return s
}

// patchNamespace sets a label or an annotation.
func (s *scene) patchNamespace(what, key, value string) {
	s.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{%q:{%q:%q}}}`, what, key, value)
	_, err := admin.CoreV1().Namespaces().Patch(s.t.Context(), s.namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(s.t, err)
}

func (s *scene) eventually(is func(c *assert.CollectT)) {
	s.t.Helper()
	require.EventuallyWithT(s.t, is, eventually, tick)
}

func (s *scene) quota(t require.TestingT) *corev1.ResourceQuota {
	rq, err := admin.CoreV1().ResourceQuotas(s.namespace).Get(s.t.Context(), "default-gn4d2", metav1.GetOptions{})
	require.NoError(t, err)
	return rq
}

// write changes the quota, and waits until the API server enforces it.
func (s *scene) write(change func(rq *corev1.ResourceQuota)) {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) { // it may have been written in between
		rq := s.quota(c)
		change(rq)
		_, err := rancherClient.CoreV1().ResourceQuotas(s.namespace).Update(s.t.Context(), rq, metav1.UpdateOptions{})
		require.NoError(c, err)
	})
	s.limited()
}

func (s *scene) limited() {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) {
		rq := s.quota(c)
		require.Equal(c, spelled(rq.Spec.Hard), spelled(rq.Status.Hard))
	})
}

// spelled is a list as the API server has it, to the byte.
func spelled(list corev1.ResourceList) string {
	text, err := json.Marshal(list)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// plus returns the static limits and those of n migrations.
func (s *scene) plus(n int) corev1.ResourceList {
	sum := s.static.Spec.Hard.DeepCopy()
	for name, q := range sum {
		one := q.DeepCopy()
		for range n {
			q.Add(one)
		}
		sum[name] = q
	}
	return sum
}

// migrate creates a migration. How is a value of sim.MigrationAnnotation, or empty.
func (s *scene) migrate(name, how string) {
	s.t.Helper()
	m := virt.NewVMIM(s.namespace, name, "vm")
	if how != "" {
		m.Annotations = map[string]string{sim.MigrationAnnotation: how}
	}
	_, err := s.vmims.Create(s.t.Context(), m)
	require.NoError(s.t, err)
}

func (s *scene) await(name string, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) {
		m, err := s.vmims.Get(s.t.Context(), name)
		require.NoError(c, err)
		require.Equal(c, phase, m.Status.Phase)
	})
}

// refused waits until the API server has refused a target pod.
func (s *scene) refused() {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) {
		n := 0
		for _, e := range audited(c) {
			if e.Resource == "pods" && e.Namespace == s.namespace && e.Verb == "create" && e.Code == http.StatusForbidden {
				require.Contains(c, e.Message, "exceeded quota: default-gn4d2")
				n++
			}
		}
		require.NotZero(c, n)
	})
}

func audited(t require.TestingT) []bed.AuditEvent {
	events, err := shared.Audit()
	require.NoError(t, err)
	return events
}

// settled waits until the enforced limits are the static ones, which are what they were, to
// the byte. Of the annotations only those that left names are there.
func (s *scene) settled(left ...string) {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) {
		rq := s.quota(c)
		require.Equal(c, spelled(s.static.Spec.Hard), spelled(rq.Spec.Hard))
		require.Equal(c, spelled(s.static.Spec.Hard), spelled(rq.Status.Hard))
		require.ElementsMatch(c, left, slices.Collect(maps.Keys(rq.Annotations)))
		require.Equal(c, s.static.Labels, rq.Labels)
	})
}

// writes returns the limits that p enforced, one after the other, and expects that it wrote
// nothing else of quotas and that nothing was forbidden to it. Its log tells of reads, which
// the audit log does not have.
func (s *scene) writes(p *program) (limits []string) {
	s.t.Helper()
	for _, e := range audited(s.t) {
		if e.User != p.user {
			continue
		}
		require.NotEqual(s.t, int32(http.StatusForbidden), e.Code, "%s %s %s/%s: %s", e.Verb, e.Resource, e.Namespace, e.Name, e.Message)
		require.NotEqual(s.t, "configmaps", e.Resource)
		if e.Resource != "resourcequotas" {
			continue
		}
		require.Equal(s.t, "update status", e.Verb+" "+e.Subresource)
		if e.Namespace == s.namespace && e.Code == http.StatusOK {
			var rq corev1.ResourceQuota
			require.NoError(s.t, json.Unmarshal(e.RequestObject, &rq))
			limits = append(limits, spelled(rq.Status.Hard))
		}
	}
	require.NotContains(s.t, strings.ToLower(p.logged()), "forbidden")
	return limits
}
