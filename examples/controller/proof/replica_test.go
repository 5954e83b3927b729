package proof

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	patience = 4 * time.Minute
	tick     = 20 * time.Millisecond
)

func eventually(t *testing.T, is func(c *assert.CollectT)) {
	t.Helper()
	require.EventuallyWithT(t, is, patience, tick)
}

// A replica is the controller's process, with the service account that the manifests
// make, and the flags that the Deployment gives it but for the addresses.
type replica struct {
	t               *testing.T
	name            string
	metrics, health string // addresses
	log             string // a file
	process         *exec.Cmd
	ended           chan error
}

// newReplica starts a replica and waits until it is ready. It is ended with the test.
func newReplica(t *testing.T, name string, flags ...string) *replica {
	t.Helper()
	r := startReplica(t, name, "headroom", flags...)
	eventually(t, func(c *assert.CollectT) {
		_, code := r.get(c, r.health, "/readyz")
		require.Equal(c, http.StatusOK, code)
	})
	return r
}

// startReplica starts a replica that is that service account. It is ended with the test.
func startReplica(t *testing.T, name, serviceAccount string, flags ...string) *replica {
	t.Helper()
	account, err := shared.ServiceAccount(t.Context(), system, serviceAccount)
	require.NoError(t, err)
	folder := t.TempDir()
	r := &replica{t: t, name: name, metrics: address(t), health: address(t), log: filepath.Join(folder, "log"), ended: make(chan error, 1)}
	kubeconfig := filepath.Join(folder, "kubeconfig")
	writeKubeconfig(t, kubeconfig, account)
	output, err := os.Create(r.log)
	require.NoError(t, err)
	r.process = exec.Command(filepath.Join(programs, "controller"), append([]string{
		"--logging-format=json", "--kubeconfig=" + kubeconfig,
		"--metrics-bind-address=" + r.metrics, "--health-probe-bind-address=" + r.health,
	}, flags...)...)
	r.process.Env = []string{"POD_NAME=" + name, "POD_NAMESPACE=" + system}
	r.process.Stdout, r.process.Stderr = output, output
	r.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, r.process.Start())
	go func() {
		r.ended <- r.process.Wait()
		close(r.ended)
		_ = output.Close()
	}()
	t.Cleanup(r.stop)
	return r
}

// address is one on which nothing listens.
func address(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	return listener.Addr().String()
}

func writeKubeconfig(t *testing.T, path string, config *rest.Config) {
	t.Helper()
	file := clientcmdapi.NewConfig()
	file.Clusters["bed"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthority: config.CAFile, CertificateAuthorityData: config.CAData}
	require.NotEmpty(t, config.BearerToken)
	file.AuthInfos["headroom"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	file.Contexts["bed"] = &clientcmdapi.Context{Cluster: "bed", AuthInfo: "headroom"}
	file.CurrentContext = "bed"
	require.NoError(t, clientcmd.WriteToFile(*file, path))
}

// stop ends the replica as a kubelet does, if it runs.
func (r *replica) stop() {
	if r.process.Process.Signal(syscall.SIGTERM) == nil {
		assert.NoError(r.t, <-r.ended)
	}
	r.t.Cleanup(func() {
		if r.t.Failed() {
			r.t.Logf("%s:\n%s", r.name, r.said())
		}
	})
}

// kill ends it with no warning.
func (r *replica) kill() {
	r.t.Helper()
	require.NoError(r.t, r.process.Process.Kill())
	require.Error(r.t, <-r.ended)
}

func (r *replica) said() string {
	data, err := os.ReadFile(r.log)
	require.NoError(r.t, err)
	return string(data)
}

// get returns what is there over HTTP.
func (r *replica) get(t require.TestingT, address, path string) (body string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	data, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return string(data), response.StatusCode
}

// A scrape is what Prometheus reads: the value of each series, by its name and labels.
type scrape map[string]float64

func (r *replica) scrape(t require.TestingT) scrape {
	body, code := r.get(t, r.metrics, "/metrics")
	require.Equal(t, http.StatusOK, code)
	found := scrape{}
	for lines := bufio.NewScanner(strings.NewReader(body)); lines.Scan(); {
		name, text, _ := cutLast(lines.Text())
		if !strings.HasPrefix(name, "headroom_") && !strings.HasPrefix(name, "rest_client_") {
			continue
		}
		value, err := strconv.ParseFloat(text, 64)
		require.NoError(t, err)
		found[name] = value
	}
	return found
}

func cutLast(line string) (before, after string, found bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return line, "", false
	}
	return line[:i], line[i+1:], true
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
	eventually(t, func(c *assert.CollectT) { require.True(c, a.leads(c) != b.leads(c)) })
	if a.leads(t) {
		leader, other = a, b
	} else {
		leader, other = b, a
	}
	lease, err := admin.CoordinationV1().Leases(system).Get(t.Context(), "headroom", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, leader.name, *lease.Spec.HolderIdentity)
	return leader, other
}

// requireAllowed expects that nothing was refused to the controller: no write, as the API
// server's audit log says, and no read, as the replicas say. Of quotas it has written the
// status only. The replicas are ended.
func requireAllowed(t *testing.T, replicas ...*replica) {
	t.Helper()
	writes := 0
	events, err := shared.Audit()
	require.NoError(t, err)
	for _, event := range events {
		if event.User != user {
			continue
		}
		writes++
		require.NotEqualValues(t, http.StatusForbidden, event.Code, "%+v", event)
		require.NotEqualValues(t, http.StatusUnauthorized, event.Code, "%+v", event)
		if event.Resource == "resourcequotas" {
			require.Equal(t, "status", event.Subresource, "%+v", event)
		}
	}
	require.Positive(t, writes)
	for _, r := range replicas {
		r.stop()
		for line := range strings.Lines(r.said()) {
			require.NotContains(t, line, "forbidden", fmt.Sprint(r.name))
		}
	}
}
