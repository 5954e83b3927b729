package proof

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/quota"
)

const cpu, memory = corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory

// A scene is a namespace with a quota that its machines fill exactly.
type scene struct {
	t         *testing.T
	namespace string
	vmis      virt.Client[kubevirtv1.VirtualMachineInstance]
	vmims     virt.Client[kubevirtv1.VirtualMachineInstanceMigration]
	static    string // spec, enforced limits and annotations of the quota, as bytes
	hard      corev1.ResourceList
}

func newScene(t *testing.T, machines int) *scene {
	t.Helper()
	name, err := shared.NewNamespace(t.Context(), "tenant-")
	require.NoError(t, err)
	s := &scene{t: t, namespace: name, vmis: virt.VMIs(objects, name), vmims: virt.VMIMs(objects, name)}
	// KubeVirt gives limits to a machine whose namespace has a quota that asks for them.
	_, err = admin.CoreV1().ResourceQuotas(name).Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "q"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{cpu: resource.MustParse("100"), memory: resource.MustParse("1000Gi")}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	s.eventually(func(c *assert.CollectT) {
		require.Len(c, s.quota(c).Status.Used, 2, "before it is enforced, nothing is charged")
	})
	for i := range machines {
		_, err := s.vmis.Create(t.Context(), virt.NewVMI(name, fmt.Sprint("vm", i), 1, resource.MustParse("1Gi")))
		require.NoError(t, err)
	}
	s.eventually(func(c *assert.CollectT) {
		all, err := s.vmis.List(t.Context())
		require.NoError(c, err)
		require.Len(c, all, machines)
		for _, vmi := range all {
			require.Equal(c, kubevirtv1.Running, vmi.Status.Phase)
		}
	})
	var used corev1.ResourceList
	s.eventually(func(c *assert.CollectT) {
		used = s.quota(c).Status.Used
		for _, name := range []corev1.ResourceName{cpu, memory} {
			charged := used[name]
			require.Positive(c, charged.Sign(), name)
		}
	})
	full, err := json.Marshal(map[string]any{"spec": map[string]any{"hard": used}})
	require.NoError(t, err)
	s.patchQuota(string(full))
	s.eventually(func(c *assert.CollectT) {
		rq := s.quota(c)
		for _, list := range []corev1.ResourceList{rq.Spec.Hard, rq.Status.Hard, rq.Status.Used} {
			require.True(c, quota.Equal(used, list), "%v", list) // the same amount may be written differently
		}
	})
	s.static, s.hard = s.bytes(t), used
	return s
}

func (s *scene) eventually(is func(c *assert.CollectT)) {
	s.t.Helper()
	eventually(s.t, is)
}

func (s *scene) quota(t require.TestingT) *corev1.ResourceQuota {
	rq, err := admin.CoreV1().ResourceQuotas(s.namespace).Get(s.t.Context(), "q", metav1.GetOptions{})
	require.NoError(t, err)
	return rq
}

// bytes returns what the API server says about the quota, as it says it.
func (s *scene) bytes(t require.TestingT) string {
	data, err := admin.CoreV1().RESTClient().Get().Namespace(s.namespace).Resource("resourcequotas").Name("q").
		SetHeader("Accept", "application/json").Do(s.t.Context()).Raw()
	require.NoError(t, err)
	var rq struct {
		Metadata struct{ Annotations json.RawMessage }
		Spec     json.RawMessage
		Status   struct{ Hard json.RawMessage }
	}
	require.NoError(t, json.Unmarshal(data, &rq))
	return string(rq.Spec) + string(rq.Status.Hard) + string(rq.Metadata.Annotations)
}

func (s *scene) patchQuota(patch string) {
	s.t.Helper()
	_, err := admin.CoreV1().ResourceQuotas(s.namespace).Patch(s.t.Context(), "q", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(s.t, err)
}

// disable switches headroom off for the quota, or on again.
func (s *scene) disable(off bool) {
	s.t.Helper()
	value := "null"
	if off {
		value = `"true"`
	}
	s.patchQuota(`{"metadata":{"annotations":{"headroom.vmquota.io/disabled":` + value + `}}}`)
}

// raised waits until the enforced limits are above the static ones.
func (s *scene) raised() {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) {
		rq := s.quota(c)
		for _, name := range []corev1.ResourceName{cpu, memory} {
			static, limit := s.hard[name], rq.Status.Hard[name]
			require.Positive(c, limit.Cmp(static), name)
		}
	})
}

// migrate creates a migration of the i-th machine, with that annotation of the simulator.
func (s *scene) migrate(i int, how string) {
	s.t.Helper()
	m := virt.NewVMIM(s.namespace, fmt.Sprint("m", i), fmt.Sprint("vm", i))
	if how != "" {
		m.Annotations = map[string]string{sim.MigrationAnnotation: how}
	}
	_, err := s.vmims.Create(s.t.Context(), m)
	require.NoError(s.t, err)
}

// release lets a migration that hangs go on.
func (s *scene) release(i int) {
	s.t.Helper()
	_, err := s.vmims.Patch(s.t.Context(), fmt.Sprint("m", i), `{"metadata":{"annotations":{"`+sim.MigrationAnnotation+`":null}}}`)
	require.NoError(s.t, err)
}

func (s *scene) await(i int, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) {
		m, err := s.vmims.Get(s.t.Context(), fmt.Sprint("m", i))
		require.NoError(c, err)
		require.Equal(c, phase, m.Status.Phase)
	})
}

// refused waits until quota has refused the target pod.
func (s *scene) refused(i int) {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) {
		m, err := s.vmims.Get(s.t.Context(), fmt.Sprint("m", i))
		require.NoError(c, err)
		require.True(c, slices.ContainsFunc(m.Status.Conditions, func(condition kubevirtv1.VirtualMachineInstanceMigrationCondition) bool {
			return condition.Type == kubevirtv1.VirtualMachineInstanceMigrationRejectedByResourceQuota
		}))
	})
}

// settled waits until the quota is as it was before, byte for byte.
func (s *scene) settled() {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) {
		require.Equal(c, s.static, s.bytes(c))
	})
}
