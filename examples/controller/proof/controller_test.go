package proof

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// A migration that quota has refused is rescued, and both objects tell.
func TestRefusedAndRescued(t *testing.T) {
	leader, other := pair(t)
	s := newScene(t, 1)
	s.Disable(true)
	s.Migrate(1, "")
	s.AwaitPhase("m0", scenario.Refused)
	s.Disable(false)
	s.Succeeded("m0")
	s.AwaitRest()
	try.Eventually(t, func(c try.T) {
		list := try.Must(admin.CoreV1().Events(s.Namespace()).List(t.Context(), metav1.ListOptions{FieldSelector: "source=headroom"}))(c)
		var reasons []string
		for i := range list.Items {
			reasons = append(reasons, list.Items[i].InvolvedObject.Kind+" "+list.Items[i].Reason)
		}
		require.Contains(c, reasons, "ResourceQuota HeadroomRaised")
		require.Contains(c, reasons, "ResourceQuota HeadroomRestored")
		require.Contains(c, reasons, "VirtualMachineInstanceMigration HeadroomGranted")
	})
	requireAllowed(t, leader, other)
}

// The leader is killed while one migration runs, and before another one is refused.
func TestFailOver(t *testing.T) {
	leader, other := pair(t)
	s := newScene(t, 2)
	s.Migrate(1, scenario.Hang)
	s.AwaitPhase("m0", "Running")
	s.Raised()

	require.NoError(t, leader.Kill())
	killed := time.Now()
	s.CreateMigration(scenario.Migrate{Name: "m1", VM: "vm1"})
	s.AwaitPhase("m1", scenario.Refused)
	require.False(t, other.leads(t))
	try.Eventually(t, func(c try.T) { require.True(c, other.leads(c)) })
	t.Log("the other replica leads after", time.Since(killed).Round(time.Millisecond))
	s.Succeeded("m1")
	t.Log("the migration that was refused meanwhile has succeeded after", time.Since(killed).Round(time.Millisecond))

	s.Release("m0")
	s.Succeeded("m0")
	s.AwaitRest()

	// The killed one comes back, and takes over when the other one is ended.
	back := newReplica(t, leader.name)
	require.False(t, back.leads(t))
	require.NoError(t, other.Stop())
	ended := time.Now()
	try.Eventually(t, func(c try.T) { require.True(c, back.leads(c)) })
	t.Log("after an orderly end the other one leads after", time.Since(ended).Round(time.Millisecond))
	requireAllowed(t, leader, other, back)
}

// Headroom is gone for good while a quota is raised, and nothing of it is left.
func TestNothingIsLeft(t *testing.T) {
	r := newReplica(t, "replica")
	s := newScene(t, 1)
	s.Migrate(1, scenario.Hang)
	s.AwaitPhase("m0", "Running")
	s.Raised()
	require.NoError(t, r.Kill())
	s.Release("m0")
	s.Succeeded("m0")
	s.AwaitRest()
}

// What the README promises about metrics is there, and moves with a drain.
func TestMetricsOfADrain(t *testing.T) {
	leader, other := pair(t)
	const machines = 4
	s := newScene(t, machines)
	before := leader.scrape(t)
	require.Zero(t, before.family("headroom_migrations"))
	s.Disable(true) // so that they are refused: room may come before KubeVirt's first try
	migrations := s.Migrate(machines, scenario.Hang)
	s.AwaitPhase("m0", scenario.Refused)
	s.Disable(false)
	seen := map[string]bool{}
	note := func() scrape {
		now := leader.scrape(t)
		for _, name := range promised(t) {
			if now.has(name) || now.has(name+"_count") {
				seen[name] = true
			}
		}
		return now
	}
	try.Eventually(t, func(c try.T) {
		now := note()
		require.Positive(c, now[`headroom_migrations{namespace="`+s.Namespace()+`",state="charged"}`])
		quota := `{namespace="` + s.Namespace() + `",resource="limits.memory",resourcequota="q"}`
		require.Positive(c, now["headroom_resourcequota_raised"+quota])
		require.Positive(c, now["headroom_resourcequota_temporary"+quota])
		require.Equal(c, now["headroom_resourcequota_static"+quota], now["headroom_resourcequota_regular"+quota])
		require.Positive(c, now[`headroom_migrations_oldest_created{namespace="`+s.Namespace()+`"}`])
	})
	for _, name := range migrations {
		s.Release(name)
	}
	s.Succeeded(migrations...)
	s.AwaitRest()
	var after scrape
	try.Eventually(t, func(c try.T) {
		after = note()
		require.Zero(c, after.family("headroom_migrations"))
	})
	moved := func(series string) float64 { return after[series] - before[series] }
	require.Positive(t, moved(`headroom_resourcequota_writes_total{action="raised"}`))
	// A migration that has to wait for KubeVirt's parallel ones was not refused.
	require.Positive(t, moved("headroom_migration_blocked_seconds_count"))
	require.LessOrEqual(t, moved("headroom_migration_blocked_seconds_count"), float64(machines))
	require.Positive(t, after.family("rest_client_requests_total"))
	t.Logf("%d migrations: raised %v, lowered %v, restored %v", machines, moved(`headroom_resourcequota_writes_total{action="raised"}`),
		moved(`headroom_resourcequota_writes_total{action="lowered"}`), moved(`headroom_resourcequota_writes_total{action="restored"}`))

	// These are there only while something is wrong.
	absent := []string{"headroom_migrations_deferred", "headroom_resourcequota_write_failing", "headroom_resourcequota_taken"}
	for _, name := range promised(t) {
		require.True(t, seen[name] || slices.Contains(absent, name), "%s is not there", name)
	}
	for _, name := range []string{"headroom_resourcequota_writes_refused_total", "headroom_reconcile_errors_total"} {
		require.Zero(t, after[name], name)
	}
	idle := other.scrape(t)
	require.Zero(t, idle["headroom_leader"])
	require.Zero(t, idle.family("headroom_resourcequota_writes_total"))
	requireAllowed(t, leader, other)
}

// promised are the metrics of the README's table.
func promised(t *testing.T) (names []string) {
	t.Helper()
	for line := range strings.Lines(readme(t)) {
		if found := regexp.MustCompile("^\\| `(headroom_[a-z_]+)`").FindStringSubmatch(line); found != nil {
			names = append(names, found[1])
		}
	}
	require.NotEmpty(t, names)
	return names
}

// newScene returns a namespace with a quota that its machines fill exactly.
func newScene(t *testing.T, machines int) *onbed.Fleet {
	t.Helper()
	return stage.Fleet(t, "tenant", machines, onbed.FleetOptions{})
}

// A replica is the controller's process, with the service account that the manifests
// make, and the flags that the Deployment gives it but for the addresses.
type replica struct {
	*process.Process
	name            string
	metrics, health string // addresses
}

// newReplica starts a replica and waits until it is ready. It is ended with the test.
func newReplica(t *testing.T, name string, flags ...string) *replica {
	t.Helper()
	r := startReplica(t, name, "headroom", flags...)
	try.Eventually(t, func(c try.T) {
		_, code := r.get(c, r.health, "/readyz")
		require.Equal(c, http.StatusOK, code)
	})
	return r
}

// startReplica starts a replica that is that service account. It is ended with the test.
func startReplica(t *testing.T, name, account string, flags ...string) *replica {
	t.Helper()
	r := &replica{name: name, metrics: address(t), health: address(t)}
	r.Process = stage.StartAs(t, system, account, name, "controller", append([]string{
		"--logging-format=json", "--metrics-bind-address=" + r.metrics, "--health-probe-bind-address=" + r.health,
	}, flags...)...)
	return r
}

// address is one on which nothing listens.
func address(t *testing.T) string {
	t.Helper()
	listener := try.Must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer func() { require.NoError(t, listener.Close()) }()
	return listener.Addr().String()
}

// get returns what is there over HTTP.
func (r *replica) get(t require.TestingT, address, path string) (body string, code int) {
	client := http.Client{Timeout: 10 * time.Second}
	response := try.Must(client.Get("http://" + address + path))(t)
	data, err := io.ReadAll(response.Body)
	require.NoError(t, errors.Join(err, response.Body.Close()))
	return string(data), response.StatusCode
}

// A scrape is what Prometheus reads: the value of each series, by its name and labels.
type scrape map[string]float64

func (r *replica) scrape(t require.TestingT) scrape {
	body, code := r.get(t, r.metrics, "/metrics")
	require.Equal(t, http.StatusOK, code)
	found := scrape{}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "headroom_") || strings.HasPrefix(line, "rest_client_") {
			i := strings.LastIndexByte(line, ' ')
			value := try.Must(strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64))(t)
			found[line[:i]] = value
		}
	}
	return found
}

// family adds up the series of a metric.
func (s scrape) family(name string) (sum float64) {
	for series, value := range s {
		if bare, _, _ := strings.Cut(series, "{"); bare == name {
			sum += value
		}
	}
	return sum
}

// has says whether there is a series of a metric.
func (s scrape) has(name string) bool {
	for series := range s {
		if bare, _, _ := strings.Cut(series, "{"); bare == name {
			return true
		}
	}
	return false
}

func (r *replica) leads(t require.TestingT) bool { return r.scrape(t)["headroom_leader"] == 1 }

// pair starts the two replicas of the Deployment, and returns them when one leads.
func pair(t *testing.T) (leader, other *replica) {
	t.Helper()
	a, b := newReplica(t, "replica-a"), newReplica(t, "replica-b")
	try.Eventually(t, func(c try.T) { require.True(c, a.leads(c) != b.leads(c)) })
	if a.leads(t) {
		leader, other = a, b
	} else {
		leader, other = b, a
	}
	lease := try.Must(admin.CoordinationV1().Leases(system).Get(t.Context(), "headroom", metav1.GetOptions{}))(t)
	require.Equal(t, leader.name, *lease.Spec.HolderIdentity)
	return leader, other
}

// requireAllowed expects that nothing was refused to the controller: no write, as the API
// server's audit log says, and no read, as the replicas say. Of quotas it has written the
// status only. The replicas are ended.
func requireAllowed(t *testing.T, replicas ...*replica) {
	t.Helper()
	var processes []*process.Process
	for _, r := range replicas {
		require.NoError(t, r.Stop())
		processes = append(processes, r.Process)
	}
	require.NotEmpty(t, stage.Requests(t, user, processes...))
}

// A replica that must not read what it has to says so, and leaves the Lease to one that may.
func TestAReplicaWithoutARightDoesNotLead(t *testing.T) {
	for _, resource := range []string{"events", "pods"} {
		t.Run(resource, func(t *testing.T) {
			restore := withdraw(t, resource)
			lame := startReplica(t, "lame-"+resource, "headroom")
			try.Eventually(t, func(c try.T) {
				body, code := lame.get(c, lame.health, "/readyz")
				require.Equal(c, http.StatusServiceUnavailable, code)
				require.Contains(c, body, resource+" is forbidden")
				require.NotContains(c, body, "the cache of ResourceQuotas has not synced")
			})
			able := startReplica(t, "able-"+resource, administrator(t))
			try.Eventually(t, func(c try.T) { require.True(c, able.leads(c)) })
			require.False(t, lame.leads(t))
			restore()
			try.Eventually(t, func(c try.T) {
				_, code := lame.get(c, lame.health, "/readyz")
				require.Equal(c, http.StatusOK, code)
			})
			require.NoError(t, able.Stop())
			try.Eventually(t, func(c try.T) { require.True(c, lame.leads(c)) })
		})
	}
}

// withdraw takes the right on a resource away from Headroom.
func withdraw(t *testing.T, resource string) (restore func()) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	roles := admin.RbacV1().ClusterRoles()
	role := try.Must(roles.Get(ctx, "headroom", metav1.GetOptions{}))(t)
	change := func(rules []rbacv1.PolicyRule, allowed bool) {
		role := try.Must(roles.Get(ctx, "headroom", metav1.GetOptions{}))(t)
		role.Rules = rules
		try.Must(roles.Update(ctx, role, metav1.UpdateOptions{}))(t)
		try.Eventually(t, func(c try.T) {
			review, err := admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
				Spec: authorizationv1.SubjectAccessReviewSpec{
					User:               "system:serviceaccount:" + system + ":headroom",
					ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "list", Resource: resource},
				},
			}, metav1.CreateOptions{})
			require.NoError(c, err)
			require.Equal(c, allowed, review.Status.Allowed)
		})
	}
	var left []rbacv1.PolicyRule
	for _, rule := range role.DeepCopy().Rules {
		rule.Resources = slices.DeleteFunc(rule.Resources, func(r string) bool { return r == resource })
		if len(rule.Resources) > 0 {
			left = append(left, rule)
		}
	}
	change(left, false)
	restore = sync.OnceFunc(func() { change(role.Rules, true) })
	t.Cleanup(restore)
	return restore
}

// administrator returns the name of a service account that may do everything.
func administrator(t *testing.T) string {
	t.Helper()
	stage.Bed.Create(t, []byte(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: able, namespace: headroom}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: able}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: able, namespace: headroom}]`))
	return "able"
}
