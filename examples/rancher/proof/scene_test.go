package proof

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/sim"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/rancher"
)

const (
	eventually = 3 * time.Minute
	tick       = 20 * time.Millisecond
	cpu        = corev1.ResourceLimitsCPU
	memory     = corev1.ResourceLimitsMemory
)

// A scene is a namespace with a project of its own, and VMs that fill its quota exactly.
type scene struct {
	t         *testing.T
	namespace string
	config    model.Config // of its agents
	agent     *model.Agent
	vmis      virt.Client[kubevirtv1.VirtualMachineInstance]
	vmims     virt.Client[kubevirtv1.VirtualMachineInstanceMigration]
	one       corev1.ResourceList // what a VM is charged
	static    model.Limit
	declared  []string // all that static was, as text
	*timeline
}

// sudo is the account by which Rancher writes past its own lock.
var sudo = rest.ImpersonationConfig{UserName: bed.RancherUser, Groups: []string{"system:masters"}}

// newScene starts an agent that is configured so, and fills the namespace.
func newScene(t *testing.T, vms int, configure func(*model.Config)) *scene {
	s := &scene{t: t, config: model.Config{
		REST: asRancher, WriteAs: sudo, Projects: &projects, Headroom: asHeadroom,
	}}
	if configure != nil {
		configure(&s.config)
	}
	var err error
	s.namespace, err = shared.NewNamespace(t.Context(), "tenant-")
	require.NoError(t, err)
	if s.config.WriteAs.UserName == "" {
		s.annotateAs("labels", bed.UnlockedLabel, "true") // a Rancher from before the lock
	}
	s.vmis, s.vmims = virt.VMIs(machines, s.namespace), virt.VMIMs(machines, s.namespace)
	s.start()
	t.Cleanup(func() { s.agent.Stop() })

	// KubeVirt gives limits to a VM whose namespace has a quota that asks for them.
	s.join("c-bed:" + s.namespace)
	s.limit(model.Limit{"limitsCpu": "100", "limitsMemory": "1000Gi"})
	for i := range vms {
		_, err := s.vmis.Create(t.Context(), virt.NewVMI(s.namespace, fmt.Sprint("vm", i), 1, resource.MustParse("1Gi")))
		require.NoError(t, err)
	}
	s.eventually(func(c *assert.CollectT) {
		all, err := s.vmis.List(t.Context())
		require.NoError(c, err)
		require.Len(c, all, vms)
		for _, vmi := range all {
			require.Equal(c, kubevirtv1.Running, vmi.Status.Phase)
		}
	})
	used := s.quota(t).Status.Used
	cores, bytes := used[cpu], used[memory]
	s.one = corev1.ResourceList{cpu: share(cores, vms), memory: share(bytes, vms)}
	s.limit(model.Limit{"limitsCpu": cores.String(), "limitsMemory": bytes.String()})
	s.timeline = watchAll(s)
	return s
}

// share returns the n-th part of q.
func share(q resource.Quantity, n int) resource.Quantity {
	return *resource.NewMilliQuantity(q.MilliValue()/int64(n), q.Format) //nolint:forbidigo // some cores and gigabytes
}

func (s *scene) start() {
	agent, err := model.Start(s.config)
	require.NoError(s.t, err)
	s.agent = agent
}

// restart loses the agent, and starts another one.
func (s *scene) restart() {
	s.agent.Stop()
	s.start()
}

func (s *scene) eventually(is func(c *assert.CollectT)) {
	s.t.Helper()
	require.EventuallyWithT(s.t, is, eventually, tick)
}

// annotateAs sets a label or an annotation of the namespace.
func (s *scene) annotateAs(what, name, value string) {
	patch := fmt.Sprintf(`{"metadata":{%q:{%q:%q}}}`, what, name, value)
	_, err := admin.CoreV1().Namespaces().Patch(s.t.Context(), s.namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(s.t, err)
}

// join moves the namespace to a project.
func (s *scene) join(project string) { s.annotateAs("annotations", model.ProjectAnnotation, project) }

// touch is any event of the namespace.
func (s *scene) touch() { s.annotateAs("annotations", "touched", time.Now().String()) }

// synced waits until the agent has reconciled the namespace as it is now. It may be in the
// middle of how it was before, so this takes two events.
func (s *scene) synced() {
	s.t.Helper()
	for range 2 {
		before := s.agent.Synced()
		s.touch()
		s.eventually(func(c *assert.CollectT) { require.Greater(c, s.agent.Synced(), before) })
	}
}

// wide is more than any test needs.
func wide() model.Limit {
	return model.Limit{"limitsCpu": "100000", "limitsMemory": "1000Ti", "pods": "1000000"}
}

// limit makes these the limits that the project gives to a namespace that asks for
// nothing, and waits until they are static.
func (s *scene) limit(limit model.Limit) {
	s.t.Helper()
	s.declare(limit)
	s.unask()
	projects.Set("c-bed:"+s.namespace, model.Project{Limit: wide(), Default: limit})
	s.eventually(func(c *assert.CollectT) {
		rq := s.quota(c)
		require.Equal(c, s.wanted(), text(rq.Spec.Hard))
		require.Equal(c, len(rq.Spec.Hard), len(rq.Status.Hard), "in force")
	})
}

// declare says which limits Rancher is to write from now on.
func (s *scene) declare(limit model.Limit) {
	s.static = limit
	s.declared = append(s.declared, s.wanted())
}

// unask takes the annotation of the namespace away, so that the project's default counts.
func (s *scene) unask() {
	patch := `{"metadata":{"annotations":{"field.cattle.io/resourceQuota":null}}}`
	_, err := admin.CoreV1().Namespaces().Patch(s.t.Context(), s.namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(s.t, err)
}

// wanted is the limits that Rancher wants, as text.
func (s *scene) wanted() string {
	names := map[string]corev1.ResourceName{"limitsCpu": cpu, "limitsMemory": memory, "pods": "pods"}
	list := corev1.ResourceList{}
	for field, amount := range s.static {
		list[names[field]] = resource.MustParse(fmt.Sprint(amount))
	}
	return text(list)
}

func text(list corev1.ResourceList) (t string) {
	for _, name := range slices.Sorted(maps.Keys(list)) {
		q := list[name]
		t += fmt.Sprintf("%s=%s ", name, q.String())
	}
	return t
}

// plus returns static and the surge of n migrations.
func (s *scene) plus(n int) string {
	names := map[string]corev1.ResourceName{"limitsCpu": cpu, "limitsMemory": memory}
	list := corev1.ResourceList{}
	for field, amount := range s.static {
		q := resource.MustParse(fmt.Sprint(amount))
		for range n {
			if field == "pods" {
				q.Add(resource.MustParse("1"))
			} else {
				q.Add(s.one[names[field]])
			}
		}
		if field == "pods" {
			list["pods"] = q
		} else {
			list[names[field]] = q
		}
	}
	return text(list)
}

// quota returns the quota that Rancher manages.
func (s *scene) quota(t require.TestingT) *corev1.ResourceQuota {
	list, err := admin.CoreV1().ResourceQuotas(s.namespace).List(s.t.Context(), metav1.ListOptions{LabelSelector: rancher.QuotaLabel + "=true"})
	require.NoError(t, err)
	require.Len(t, list.Items, 1)
	return &list.Items[0]
}

// enforces waits until the limits that are enforced are these.
func (s *scene) enforces(want string) {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) { require.Equal(c, want, text(s.quota(c).Status.Hard)) })
}

// migrate creates a migration; how is an annotation of the simulator, or nothing.
func (s *scene) migrate(name, vmi string, how map[string]string) {
	s.t.Helper()
	m := virt.NewVMIM(s.namespace, name, vmi)
	m.Annotations = how
	_, err := s.vmims.Create(s.t.Context(), m)
	require.NoError(s.t, err)
}

var hang = map[string]string{sim.MigrationAnnotation: sim.Hang}

// release lets a migration that hangs go on.
func (s *scene) release(name string) {
	s.t.Helper()
	_, err := s.vmims.Patch(s.t.Context(), name, `{"metadata":{"annotations":{"`+sim.MigrationAnnotation+`":null}}}`)
	require.NoError(s.t, err)
}

func (s *scene) phase(t require.TestingT, name string) kubevirtv1.VirtualMachineInstanceMigrationPhase {
	m, err := s.vmims.Get(s.t.Context(), name)
	require.NoError(t, err)
	return m.Status.Phase
}

func (s *scene) await(name string, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) { require.Equal(c, phase, s.phase(c, name)) })
}

// settled waits until the enforced limits are the static ones, without an annotation, and
// the ledger has nothing about the namespace.
func (s *scene) settled() {
	s.t.Helper()
	s.eventually(func(c *assert.CollectT) {
		rq := s.quota(c)
		require.Equal(c, s.wanted(), text(rq.Spec.Hard))
		require.Equal(c, s.wanted(), text(rq.Status.Hard))
		require.Empty(c, rq.Annotations)
		list, err := admin.CoreV1().ConfigMaps(rancher.DefaultNamespace).List(context.Background(), metav1.ListOptions{
			LabelSelector: configmap.Label + "=" + s.namespace,
		})
		require.NoError(c, err)
		require.Empty(c, list.Items)
	})
}

// finish expects all that has to hold at the end, and that it held all the time: Rancher's
// field is Rancher's, and headroom wrote nothing but status.hard.
func (s *scene) finish() {
	s.t.Helper()
	s.settled()
	for _, rq := range s.quotas() {
		require.Contains(s.t, s.declared, text(rq.Spec.Hard), "at resourceVersion %s", rq.ResourceVersion)
		require.Empty(s.t, rq.Annotations, "at resourceVersion %s", rq.ResourceVersion)
	}
	for _, r := range s.requests(headroomUser) {
		require.Equal(s.t, "update resourcequotas/status", r.call)
		// A request that a lost agent had under way is a timeout to the API server.
		require.Contains(s.t, []int32{http.StatusOK, http.StatusConflict, http.StatusNotFound, http.StatusGatewayTimeout}, r.code, "%+v", r)
	}
	s.t.Log("limits.cpu was", s.limits(cpu))
}

// A request is a write in the namespace that the API server has answered.
type request struct {
	call string // such as update resourcequotas/status
	code int32
	body string // of a quota, what Rancher writes of it
}

// carriedOut returns the requests of a user without those that were refused: a conflict
// depends on whatever else happens to an object at the moment, and is tried again.
func (s *scene) carriedOut(user string) []request {
	s.t.Helper()
	return slices.DeleteFunc(s.requests(user), func(r request) bool { return r.code >= http.StatusBadRequest })
}

// requests returns the writes of a user, in order.
func (s *scene) requests(user string) (requests []request) {
	s.t.Helper()
	events, err := shared.Audit()
	require.NoError(s.t, err)
	for _, e := range events {
		if e.User != user || e.Namespace != s.namespace {
			continue
		}
		r := request{call: e.Verb + " " + e.Resource, code: e.Code}
		if e.Subresource != "" {
			r.call += "/" + e.Subresource
		}
		if e.Resource == "resourcequotas" && e.Subresource == "" && e.Verb != "delete" {
			var rq corev1.ResourceQuota
			require.NoError(s.t, json.Unmarshal(e.RequestObject, &rq))
			r.body = fmt.Sprint(text(rq.Spec.Hard), rq.Spec.Scopes, rq.Spec.ScopeSelector, rq.Labels, rq.Annotations)
		}
		requests = append(requests, r)
	}
	return requests
}
