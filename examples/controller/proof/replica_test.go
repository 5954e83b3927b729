package proof

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
)

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
