package proof

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
)

// root is that of the tree, system the namespace of the manifests, user whom the controller is
// there.
const (
	root   = "../../.."
	system = "headroom"
	user   = "system:serviceaccount:" + system + ":headroom"
)

// What all tests share: a bed, on which the chart is installed with the guard, and programs
// as those who install them build them.
var (
	stage *onbed.Stage
	admin kubernetes.Interface
)

// The controller is installed as its README says: with kubectl, which removes it, and then with
// Helm, which does so in the end.
func TestMain(m *testing.M) {
	onbed.Main(m, func(t try.T, s *onbed.Stage) {
		stage, admin = s, s.Client
		s.Build(t, "..", ".")
		s.Build(t, "../guard", "./thief")
		s.Build(t, "../chart", "helm.sh/helm/v3/cmd/helm")
		command(t, "kubectl apply")
		available(t)
		command(t, "kubectl delete")
		gone(t)
		command(t, "helm install")
		try.Cleanup(t, func(t try.T) {
			command(t, "helm uninstall")
			gone(t)
		})
	})
}

func readme(t try.T) string {
	t.Helper()
	data := try.Must(os.ReadFile("../README.md"))(t)
	return string(data)
}

// command runs the command of the README that begins with prefix. It must not warn: an unknown
// field and what Pod Security does not allow are warnings.
func command(t try.T, prefix string) {
	t.Helper()
	line := regexp.MustCompile("(?m)^    (" + prefix + " .*)$").FindStringSubmatch(readme(t))
	require.NotNil(t, line, "README.md has no %s", prefix)
	output, err := stage.Shell(t, root, line[1])
	require.NoError(t, err, output)
	require.NotContains(t, output, "Warning")
}

// gone expects that nothing of the whole cluster is left.
func gone(t try.T) {
	t.Helper()
	_, role := admin.RbacV1().ClusterRoles().Get(t.Context(), "headroom", metav1.GetOptions{})
	_, binding := admin.RbacV1().ClusterRoleBindings().Get(t.Context(), "headroom", metav1.GetOptions{})
	_, policy := admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), "headroom-guard", metav1.GetOptions{})
	_, deployment := admin.AppsV1().Deployments(system).Get(t.Context(), "headroom", metav1.GetOptions{})
	for _, err := range []error{role, binding, policy, deployment} {
		require.True(t, apierrors.IsNotFound(err), "an object is left: %v", err)
	}
}

// available waits until the Deployment has both replicas.
func available(t try.T) {
	t.Helper()
	try.Eventually(t, func(c try.T) {
		deployment := try.Must(admin.AppsV1().Deployments(system).Get(c.Context(), "headroom", metav1.GetOptions{}))(c)
		require.EqualValues(c, 2, deployment.Status.ReadyReplicas)
		require.True(c, slices.ContainsFunc(deployment.Status.Conditions, func(condition appsv1.DeploymentCondition) bool {
			return condition.Type == appsv1.DeploymentAvailable && condition.Status == "True"
		}))
	})
}

// The pods of the chart pass the priority class and all other admission.
func TestDeploymentIsAvailable(t *testing.T) { available(t) }

// The steps of the demo that need no kind cluster.
func TestDemo(t *testing.T) {
	const demo = "examples/kind/demo process guard machine refused rescued clean stop"
	output, err := stage.Shell(t, root, demo, "TMPDIR="+t.TempDir())
	if err != nil {
		try.Must(stage.Shell(t, root, "examples/kind/demo stop"))(t)
	}
	require.NoError(t, err)
	require.Contains(t, output, "quota refuses the target pod")
	require.Contains(t, output, "and nothing is left")
}
