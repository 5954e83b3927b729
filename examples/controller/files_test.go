package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// manifests returns the objects that the kustomization names, by kind. Unknown fields are
// errors.
func manifests(t *testing.T) map[string]runtime.Object {
	t.Helper()
	var kustomization struct{ Resources []string }
	decode(t, read(t, "deploy/kustomization.yaml"), &kustomization)
	files, err := filepath.Glob("deploy/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, len(kustomization.Resources)+1, "every file is named by the kustomization")

	found := map[string]runtime.Object{}
	for _, name := range kustomization.Resources {
		reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(read(t, "deploy/"+name))))
		for {
			document, err := reader.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			var kind metav1.TypeMeta
			require.NoError(t, yaml.Unmarshal(document, &kind))
			object := map[string]runtime.Object{
				"Namespace": &corev1.Namespace{}, "ServiceAccount": &corev1.ServiceAccount{}, "Service": &corev1.Service{},
				"ClusterRole": &rbacv1.ClusterRole{}, "ClusterRoleBinding": &rbacv1.ClusterRoleBinding{},
				"Role": &rbacv1.Role{}, "RoleBinding": &rbacv1.RoleBinding{},
				"Deployment": &appsv1.Deployment{}, "PodDisruptionBudget": &policyv1.PodDisruptionBudget{}, "NetworkPolicy": &networkingv1.NetworkPolicy{},
			}[kind.Kind]
			require.NotNil(t, object, "%s has a %s", name, kind.Kind)
			require.NoError(t, yaml.UnmarshalStrict(document, object), name)
			require.Nil(t, found[kind.Kind], "one %s", kind.Kind)
			found[kind.Kind] = object
		}
	}
	return found
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	return data
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	require.NoError(t, yaml.Unmarshal(data, into))
}

// The pod is what the restricted Pod Security Standard asks for, its arguments are flags
// that there are, and its probes and ports are where it listens.
func TestDeployment(t *testing.T) {
	objects := manifests(t)
	deployment := objects["Deployment"].(*appsv1.Deployment)
	pod := deployment.Spec.Template.Spec
	require.EqualValues(t, 2, *deployment.Spec.Replicas)
	require.Equal(t, "restricted", objects["Namespace"].(*corev1.Namespace).Labels["pod-security.kubernetes.io/enforce"])
	require.True(t, *pod.SecurityContext.RunAsNonRoot)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
	require.Len(t, pod.Containers, 1)
	container := pod.Containers[0]
	require.False(t, *container.SecurityContext.AllowPrivilegeEscalation)
	require.True(t, *container.SecurityContext.ReadOnlyRootFilesystem)
	require.Equal(t, []corev1.Capability{"ALL"}, container.SecurityContext.Capabilities.Drop)
	require.False(t, pod.HostNetwork)
	require.Empty(t, pod.Volumes)

	variables := map[string]string{}
	for _, variable := range container.Env {
		variables[variable.Name] = "set"
	}
	o, err := parseOptions(container.Args, func(name string) string { return variables[name] })
	require.NoError(t, err)
	require.True(t, o.leaderElect)
	require.Less(t, o.drainTime.Seconds(), float64(*pod.TerminationGracePeriodSeconds), "it ends before it is killed")
	ports := map[string]int32{}
	for _, port := range container.Ports {
		ports[port.Name] = port.ContainerPort
	}
	require.Equal(t, map[string]int32{"metrics": 8080, "health": 8081}, ports)
	require.Equal(t, ":8080", o.metricsAddress)
	require.Equal(t, ":8081", o.healthAddress)

	labels := deployment.Spec.Template.Labels
	for _, selector := range []map[string]string{
		deployment.Spec.Selector.MatchLabels,
		objects["PodDisruptionBudget"].(*policyv1.PodDisruptionBudget).Spec.Selector.MatchLabels,
		objects["NetworkPolicy"].(*networkingv1.NetworkPolicy).Spec.PodSelector.MatchLabels,
		objects["Service"].(*corev1.Service).Spec.Selector,
	} {
		require.NotEmpty(t, selector)
		for name, value := range selector {
			require.Equal(t, value, labels[name])
		}
	}
}

// requireAllowed holds the roles to what is called: all of it is allowed, and nothing else but
// watching claims, which is for machines with backend storage, and ResourceClaims and their
// classes, which is for machines with devices.
// Each call is a verb, a group and a resource, such as "update /resourcequotas".
func requireAllowed(t *testing.T, called []string) {
	t.Helper()
	objects := manifests(t)
	var allowed []string
	for _, rules := range [][]rbacv1.PolicyRule{
		objects["ClusterRole"].(*rbacv1.ClusterRole).Rules, objects["Role"].(*rbacv1.Role).Rules,
	} {
		for _, rule := range rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						allowed = append(allowed, verb+" "+group+"/"+resource)
					}
				}
			}
		}
	}
	require.ElementsMatch(t, allowed, append(called, "watch /persistentvolumeclaims",
		"list resource.k8s.io/resourceclaims", "watch resource.k8s.io/resourceclaims",
		"list resource.k8s.io/deviceclasses", "watch resource.k8s.io/deviceclasses"))
}

var metricName = regexp.MustCompile(`\bheadroom_[a-z_]+`)

// names are those of our metrics that exist, histograms with their suffixes.
func names(m *metrics) []string { return slices.Sorted(maps.Keys(labels(m))) }

// labels are those of each of our metrics, in their order.
func labels(m *metrics) map[string][]string {
	descs := make(chan *prometheus.Desc, 1000)
	m.registry.Describe(descs)
	close(descs)
	found := map[string][]string{}
	for desc := range descs {
		parts := regexp.MustCompile(`fqName: "(headroom_[a-z_]+)".*variableLabels: \{([a-z,]*)\}`).FindStringSubmatch(desc.String())
		if parts != nil {
			found[parts[1]] = strings.FieldsFunc(parts[2], func(r rune) bool { return r == ',' })
		}
	}
	return found
}

// The README explains each flag and each metric, with its labels.
func TestREADME(t *testing.T) {
	readme := string(read(t, "README.md"))
	for name, labels := range labels(newMetrics()) {
		require.Contains(t, readme, strings.ReplaceAll("| `"+name+"` | "+strings.Join(labels, ", ")+" | ", "|  |", "| |"))
	}
	for _, name := range metricName.FindAllString(readme, -1) {
		require.Contains(t, names(newMetrics()), name)
	}
}

// The runbook says of each metric and of each event what to do, and names no others.
func TestRunbook(t *testing.T) {
	runbook := string(read(t, "RUNBOOK.md"))
	for _, name := range names(newMetrics()) {
		require.Contains(t, runbook, "`"+name+"`")
	}
	for _, name := range metricName.FindAllString(runbook, -1) {
		require.Contains(t, names(newMetrics()), name)
	}

	// In the code, reasons are the string literals that look like this.
	literal := regexp.MustCompile(`"(Headroom[A-Z][A-Za-z]+|Nudged)"`)
	reasons := map[string]bool{}
	for _, pattern := range []string{"*.go", "../../migration/*.go", "../../ledger/applier/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, match := range literal.FindAllStringSubmatch(string(read(t, file)), -1) {
				reasons[match[1]] = true
			}
		}
	}
	require.Greater(t, len(reasons), 5)
	for reason := range reasons {
		require.Contains(t, runbook, "| `"+reason+"` |")
	}
	for _, match := range regexp.MustCompile("`(Headroom[A-Z][A-Za-z]+)`").FindAllStringSubmatch(runbook, -1) {
		require.Contains(t, reasons, match[1])
	}
}
