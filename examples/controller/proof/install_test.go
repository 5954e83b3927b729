package proof

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/vmquota/headroom/examples/testbed/bed"
)

// install installs the controller as its README says: with kubectl, which it removes, and then
// with Helm.
func install(ctx context.Context) error {
	if err := command(ctx, "kubectl apply"); err != nil {
		return err
	}
	if err := wait.PollUntilContextTimeout(ctx, tick, patience, true, available); err != nil {
		return fmt.Errorf("the Deployment of kubectl apply: %w", err)
	}
	if err := command(ctx, "kubectl delete"); err != nil {
		return err
	}
	if err := gone(ctx); err != nil {
		return err
	}
	return command(ctx, "helm install")
}

// uninstall removes what install has left.
func uninstall(ctx context.Context) error {
	if err := command(ctx, "helm uninstall"); err != nil {
		return err
	}
	return gone(ctx)
}

// command runs the command of the README that begins with prefix. It must not warn: an unknown
// field and what Pod Security does not allow are warnings.
func command(ctx context.Context, prefix string) error {
	page, err := os.ReadFile("../README.md")
	if err != nil {
		return err
	}
	kubectl, err := bed.Kubectl(ctx, shared.Versions(), os.Stderr)
	if err != nil {
		return err
	}
	line := regexp.MustCompile("(?m)^    (" + prefix + " .*)$").FindSubmatch(page)
	if line == nil {
		return fmt.Errorf("README.md has no %s", prefix)
	}
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", string(line[1]))
	shell.Dir = root
	shell.Env = append(os.Environ(), "KUBECONFIG="+shared.Kubeconfig(), fmt.Sprintf("PATH=%s%c%s%c%s",
		programs, filepath.ListSeparator, filepath.Dir(kubectl), filepath.ListSeparator, os.Getenv("PATH")))
	output, err := shell.CombinedOutput()
	if err == nil && bytes.Contains(output, []byte("Warning")) {
		err = errors.New("it warns")
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", line[1], err, output)
	}
	return nil
}

// gone checks that nothing of the whole cluster is left.
func gone(ctx context.Context) error {
	_, role := admin.RbacV1().ClusterRoles().Get(ctx, "headroom", metav1.GetOptions{})
	_, binding := admin.RbacV1().ClusterRoleBindings().Get(ctx, "headroom", metav1.GetOptions{})
	_, policy := admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(ctx, "headroom-guard", metav1.GetOptions{})
	_, deployment := admin.AppsV1().Deployments(system).Get(ctx, "headroom", metav1.GetOptions{})
	for _, err := range []error{role, binding, policy, deployment} {
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("an object is left: %w", err)
		}
	}
	return nil
}

// available reports whether the Deployment has both replicas.
func available(ctx context.Context) (bool, error) {
	deployment, err := admin.AppsV1().Deployments(system).Get(ctx, "headroom", metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	return deployment.Status.ReadyReplicas == 2 && slices.ContainsFunc(deployment.Status.Conditions, func(condition appsv1.DeploymentCondition) bool {
		return condition.Type == appsv1.DeploymentAvailable && condition.Status == "True"
	}), nil
}

// The pods of the chart pass the priority class and all other admission.
func TestDeploymentIsAvailable(t *testing.T) {
	eventually(t, func(c *assert.CollectT) {
		is, err := available(t.Context())
		require.NoError(c, err)
		require.True(c, is)
	})
}
