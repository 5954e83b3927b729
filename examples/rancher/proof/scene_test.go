package proof

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/rest"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// A scene is a namespace with a project of its own, and VMs that fill its quota exactly.
type scene struct {
	*onbed.Fleet
	config   agentConfig // of its agents
	agent    *agent
	static   model.Limit
	declared []string // all that static was, as the API server spells it
}

// sudo is the account by which Rancher writes past its own lock.
var sudo = rest.ImpersonationConfig{UserName: bed.RancherUser, Groups: []string{"system:masters"}}

// newScene starts an agent that is configured so, and fills the namespace.
func newScene(t *testing.T, vms int, configure func(*agentConfig)) *scene {
	t.Helper()
	s := &scene{config: agentConfig{
		REST: asRancher, WriteAs: sudo, Projects: &projects, Headroom: asHeadroom,
	}}
	if configure != nil {
		configure(&s.config)
	}
	stage.Fleet(t, "tenant", vms, onbed.FleetOptions{Create: func(f *onbed.Fleet) {
		s.Fleet = f
		if s.config.WriteAs.UserName == "" {
			s.PatchNamespace("labels", bed.UnlockedLabel, "true") // a Rancher from before the lock
		}
		s.start()
		t.Cleanup(func() { s.agent.Stop() })
		s.join("c-bed:" + s.Namespace())
		cores, bytes := f.Static[corev1.ResourceLimitsCPU], f.Static[corev1.ResourceLimitsMemory]
		s.limit(model.Limit{"limitsCpu": cores.String(), "limitsMemory": bytes.String()})
	}})
	return s
}

func (s *scene) start() {
	agent := try.Must(startAgent(s.config))(s)
	s.agent = agent
}

// restart loses the agent, and starts another one.
func (s *scene) restart() {
	s.agent.Stop()
	s.start()
}

// join moves the namespace to a project.
func (s *scene) join(project string) {
	s.PatchNamespace("annotations", model.ProjectAnnotation, project)
}

// touch is any event of the namespace.
func (s *scene) touch() { s.PatchNamespace("annotations", "touched", time.Now().String()) }

// synced waits until the agent has reconciled the namespace as it is now. It may be in the
// middle of how it was before, so this takes two events.
func (s *scene) synced() {
	s.Helper()
	for range 2 {
		before := s.agent.synced.Load()
		s.touch()
		try.Eventually(s, func(c try.T) { require.Greater(c, s.agent.synced.Load(), before) })
	}
}

// wide is more than any test needs.
func wide() model.Limit {
	return model.Limit{"limitsCpu": "100000", "limitsMemory": "1000Ti", "pods": "1000000"}
}

// limit makes these the limits that the project gives to a namespace that asks for
// nothing, and waits until they are static.
func (s *scene) limit(limit model.Limit) {
	s.Helper()
	s.declare(limit)
	s.unask()
	projects.Set("c-bed:"+s.Namespace(), model.Project{Limit: wide(), Default: limit})
	s.Await("the limits are static", func(now scenario.State) bool {
		return len(now.Quotas) == 1 && onbed.Spelled(now.Quotas[0].Spec.Hard) == onbed.Spelled(s.Static) &&
			len(now.Quotas[0].Status.Hard) == len(s.Static)
	})
}

// declare says which limits Rancher is to write from now on.
func (s *scene) declare(limit model.Limit) {
	names := map[string]corev1.ResourceName{"limitsCpu": corev1.ResourceLimitsCPU, "limitsMemory": corev1.ResourceLimitsMemory, "pods": "pods"}
	s.static, s.Static = limit, corev1.ResourceList{}
	for field, amount := range limit {
		s.Static[names[field]] = resource.MustParse(fmt.Sprint(amount))
	}
	s.declared = append(s.declared, onbed.Spelled(s.Static))
}

// unask takes the annotation of the namespace away, so that the project's default counts.
func (s *scene) unask() { s.PatchNamespace("annotations", "field.cattle.io/resourceQuota", nil) }

// hang creates a migration of the first VM that hangs, and waits until it runs.
func (s *scene) hang() {
	s.Helper()
	s.Migrate(1, scenario.Hang)
	s.AwaitPhase("m0", "Running")
}

// release lets that migration go on to its end.
func (s *scene) release() {
	s.Helper()
	s.Release("m0")
	s.Succeeded("m0")
}

// finish expects all that has to hold at the end, and that it held all the time: Rancher's
// field is Rancher's, and headroom wrote nothing but status.hard.
func (s *scene) finish() {
	s.Helper()
	s.AwaitRest()
	for _, rq := range s.Versions() {
		require.Contains(s, s.declared, onbed.Spelled(rq.Spec.Hard), "at resourceVersion %s", rq.ResourceVersion)
		require.Empty(s, rq.Annotations, "at resourceVersion %s", rq.ResourceVersion)
	}
	for _, r := range s.requests(headroomUser) {
		require.Equal(s, "update resourcequotas/status", r.call)
		// A request that a lost agent had under way is a timeout to the API server.
		require.Contains(s, []int32{http.StatusOK, http.StatusConflict, http.StatusNotFound, http.StatusGatewayTimeout}, r.code, "%+v", r)
	}
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
	s.Helper()
	return slices.DeleteFunc(s.requests(user), func(r request) bool { return r.code >= http.StatusBadRequest })
}

// requests returns the writes of a user, in order.
func (s *scene) requests(user string) (requests []request) {
	s.Helper()
	for _, e := range s.Audit() {
		if e.User != user {
			continue
		}
		r := request{call: e.Verb + " " + e.Resource, code: e.Code}
		if e.Subresource != "" {
			r.call += "/" + e.Subresource
		}
		if e.Resource == "resourcequotas" && e.Subresource == "" && e.Verb != "delete" {
			var rq corev1.ResourceQuota
			require.NoError(s, json.Unmarshal(e.RequestObject, &rq))
			r.body = fmt.Sprint(onbed.Spelled(rq.Spec.Hard), rq.Spec.Scopes, rq.Spec.ScopeSelector, rq.Labels, rq.Annotations)
		}
		requests = append(requests, r)
	}
	return requests
}
