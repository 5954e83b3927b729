package proof

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rancher/lasso/pkg/cache"
	"github.com/rancher/lasso/pkg/client"
	"github.com/rancher/lasso/pkg/controller"
	"github.com/rancher/wrangler/v3/pkg/generated/controllers/core"
	wranglercorev1 "github.com/rancher/wrangler/v3/pkg/generated/controllers/core/v1"
	"github.com/rancher/wrangler/v3/pkg/generic"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
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

const (
	rancherUser  = "system:serviceaccount:cattle-system:rancher"
	headroomUser = "headroom"
)

// What all tests share: one bed with Rancher's lock and an observer, and the projects of its
// Rancher, each namespace with one of its own.
var (
	stage                 *onbed.Stage
	admin                 kubernetes.Interface
	asRancher, asHeadroom *rest.Config
	projects              model.Projects
)

func TestMain(m *testing.M) {
	onbed.Main(m, func(t try.T, s *onbed.Stage) {
		stage, admin = s, s.Client
		asRancher, asHeadroom = s.Bed.User(t, rancherUser, "system:masters"), s.Bed.User(t, headroomUser)
		s.Bed.LockQuotas(t)
		rights := try.Must(os.ReadFile("rights.yaml"))(t)
		s.Bed.Create(t, bytes.ReplaceAll(rights, []byte("NAMESPACE"), []byte(rancher.DefaultNamespace)))
		require.NoError(t, observe(t.Context(), s.Bed.User(t, "virt")))
	})
}

// observe is the virtualization side: it writes the ledger, and wakes KubeVirt. It runs
// until ctx is done.
func observe(ctx context.Context, config *rest.Config) error {
	clients, err := migration.ClientsFor(config)
	if err != nil {
		return err
	}
	records := informers.NewSharedInformerFactoryWithOptions(clients.Core, 0,
		informers.WithNamespace(rancher.DefaultNamespace), informers.WithTweakListOptions(configmap.Select))
	ledger := configmap.New(clients.Core.CoreV1(), rancher.DefaultNamespace, configmap.WithInformer(records.Core().V1().ConfigMaps().Informer()))
	records.Start(ctx.Done())
	records.WaitForCacheSync(ctx.Done())
	observer, err := migration.NewController(clients, migration.Options{Ledger: ledger, RecordOnly: true, Recorder: &record.FakeRecorder{}})
	if err != nil {
		return err
	}
	if err := observer.Start(ctx); err != nil {
		return err
	}
	go observer.Work(ctx)
	return nil
}

// An agentConfig is what an agent works with.
type agentConfig struct {
	REST *rest.Config // Rancher's account
	// WriteAs is the account that it impersonates when it writes quotas. Since the write
	// lock that is another account than its own.
	WriteAs  rest.ImpersonationConfig
	Projects *model.Projects
	// Latency is how far away the API server is: it is added to each request and to each
	// event.
	Latency time.Duration

	// Headroom starts the shim beside the controller, with its own account so that the
	// audit log shows which of the two wrote. If nil, there is no shim.
	Headroom *rest.Config
	// Disabled is the shim's kill switch. If nil, it is on.
	Disabled func() bool
	// Own has the shim find no ledger, so that it enforces the cluster's own migrations.
	Own bool
}

// An agent is the part of Rancher that is responsible for one cluster, from its start to
// its loss.
type agent struct {
	stop   context.CancelFunc
	shim   *rancher.Shim // nil if there is none
	synced atomic.Int64  // how many times it has reconciled a namespace without an error
}

// startAgent starts an agent. It lists everything anew, and reconciles every namespace.
func startAgent(config agentConfig) (*agent, error) {
	restConfig := config.far(config.REST)
	clients, err := client.NewSharedClientFactory(restConfig, &client.SharedClientFactoryOptions{Scheme: scheme.Scheme})
	if err != nil {
		return nil, err
	}
	controllers := controller.NewSharedControllerFactory(cache.NewSharedCachedFactory(clients, nil), nil)
	factory, err := core.NewFactoryFromConfigWithOptions(restConfig, &generic.FactoryOptions{SharedControllerFactory: controllers})
	if err != nil {
		return nil, err
	}
	namespaces, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return nil, err
	}
	impersonated := rest.CopyConfig(restConfig)
	impersonated.Impersonate = config.WriteAs
	quotas, err := kubernetes.NewForConfig(impersonated)
	if err != nil {
		return nil, err
	}
	v1 := factory.Core().V1()
	ctx, stop := context.WithCancel(context.Background())
	a := &agent{stop: stop}
	a.register(ctx, v1.Namespace(), config.Latency, &model.Controller{
		Namespaces:     namespaces.CoreV1(),
		Quotas:         quotas.CoreV1(),
		NamespaceCache: v1.Namespace().Informer().GetIndexer(),
		QuotaCache:     v1.ResourceQuota().Informer().GetIndexer(),
		Projects:       config.Projects,
		Now:            time.Now,
	})
	if a.shim, err = config.shim(ctx); err != nil {
		stop()
		return nil, err
	}
	const workers = 5
	if err := controllers.Start(ctx, workers); err != nil {
		a.Stop()
		return nil, err
	}
	return a, nil
}

// register reconciles on every event of a namespace and of a project. Events are late by latency.
func (a *agent) register(ctx context.Context, namespaces wranglercorev1.NamespaceController, latency time.Duration, c *model.Controller) {
	namespaces.OnChange(ctx, "resourceQuotaSyncController", func(name string, ns *corev1.Namespace) (*corev1.Namespace, error) {
		if ns == nil {
			return nil, nil
		}
		time.Sleep(latency)
		err := c.Sync(ctx, name)
		if err == nil {
			a.synced.Add(1)
		}
		return nil, err
	})
	c.Projects.OnChange(func(id string) {
		if ctx.Err() != nil {
			return
		}
		found, err := c.Of(id)
		if err != nil {
			return
		}
		for _, ns := range found {
			namespaces.Enqueue(ns.Name)
		}
	})
}

// shim starts what the change to Rancher starts.
func (c agentConfig) shim(ctx context.Context) (*rancher.Shim, error) {
	if c.Headroom == nil {
		return nil, nil
	}
	clientset, err := kubernetes.NewForConfig(c.far(c.Headroom))
	if err != nil {
		return nil, err
	}
	shim := rancher.Config{Client: clientset, Now: time.Now, Disabled: c.Disabled}
	if c.Own {
		shim.Namespace = "no-ledger"
		shim.Own = func(ctx context.Context) error {
			return migration.Run(ctx, c.far(c.Headroom), migration.Options{DisabledFor: rancher.HarvesterSkips, Disabled: c.Disabled})
		}
	}
	return rancher.Start(ctx, shim)
}

// far returns config for an API server that is Latency away.
func (c agentConfig) far(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return distant{next, c.Latency} })
	return config
}

// Stop loses the agent. Requests that are under way are still sent.
func (a *agent) Stop() {
	a.stop()
	if a.shim != nil {
		<-a.shim.Done()
	}
}

// distant is an API server that is some way off.
type distant struct {
	http.RoundTripper
	latency time.Duration
}

func (d distant) RoundTrip(request *http.Request) (*http.Response, error) {
	select {
	case <-time.After(d.latency):
		return d.RoundTripper.RoundTrip(request)
	case <-request.Context().Done():
		return nil, request.Context().Err()
	}
}
