package guard

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/vmquota/headroom/ledger/applier"
)

const (
	virtController = "system:serviceaccount:kubevirt:kubevirt-controller"
	tenant         = "system:serviceaccount:tenant:default"
)

// A judge is the API server's admission plugin for policies with ours in it, and the
// quotas of two namespaces: in one of them the guard is on.
type judge struct {
	t      *testing.T
	plugin *validating.Plugin
}

func newJudge(t *testing.T, quotas ...*corev1.ResourceQuota) *judge {
	t.Helper()
	policy, binding := &admissionregistrationv1.ValidatingAdmissionPolicy{}, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
	for name, object := range map[string]any{"policy/policy.yaml": policy, "policy/binding.yaml": binding} {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, yaml.UnmarshalStrict(data, object))
	}
	equivalent := admissionregistrationv1.Equivalent
	policy.Spec.MatchConstraints.MatchPolicy = &equivalent
	policy.Spec.MatchConstraints.NamespaceSelector, policy.Spec.MatchConstraints.ObjectSelector = &metav1.LabelSelector{}, &metav1.LabelSelector{}
	binding.Spec.MatchResources.MatchPolicy, binding.Spec.MatchResources.ObjectSelector = &equivalent, &metav1.LabelSelector{}

	client := fake.NewClientset(policy, binding,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant", Labels: map[string]string{"headroom.vmquota.io/guard": "enabled"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
	for _, rq := range quotas {
		_, err := client.CoreV1().ResourceQuotas(rq.Namespace).Create(t.Context(), rq, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	plugin, err := validating.NewPlugin(nil)
	require.NoError(t, err)
	plugin.SetExternalKubeClientSet(client)
	plugin.SetExternalKubeInformerFactory(factory)
	plugin.SetDynamicClient(dynamicfake.NewSimpleDynamicClient(scheme.Scheme))
	plugin.SetRESTMapper(testrestmapper.TestOnlyStaticRESTMapper(scheme.Scheme))
	plugin.SetDrainedNotification(t.Context().Done())
	plugin.SetAuthorizer(nobody{})
	require.NoError(t, plugin.ValidateInitialization())
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	require.Eventually(t, plugin.WaitForReady, time.Minute, time.Millisecond)
	return &judge{t: t, plugin: plugin}
}

// create asks for a pod, as the API server does when one is created.
func (j *judge) create(who string, pod *corev1.Pod) error {
	j.t.Helper()
	gvk, gvr := corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithResource("pods")
	attributes := admission.NewAttributesRecord(pod, nil, gvk, pod.Namespace, pod.Name, gvr, "", admission.Create, &metav1.CreateOptions{}, false, &user.DefaultInfo{Name: who})
	return j.plugin.Validate(context.Background(), attributes, admission.NewObjectInterfacesFromScheme(scheme.Scheme))
}

func (j *judge) requireAllowed(who string, pod *corev1.Pod) {
	j.t.Helper()
	require.NoError(j.t, j.create(who, pod))
}

func (j *judge) requireRefused(who string, pod *corev1.Pod, says string) {
	j.t.Helper()
	err := j.create(who, pod)
	require.ErrorContains(j.t, err, "ValidatingAdmissionPolicy 'headroom-guard'")
	require.ErrorContains(j.t, err, says)
}

// list reads "limits.cpu=2 limits.memory=4Gi".
func list(text string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for _, part := range strings.Fields(text) {
		name, amount, _ := strings.Cut(part, "=")
		l[corev1.ResourceName(name)] = resource.MustParse(amount)
	}
	return l
}

// raised is a quota with these static limits and this usage, raised to hard, of which
// regular pods may use as much as most says.
func raised(namespace, static, hard, most, used string) *corev1.ResourceQuota {
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: list(static)}}
	if rq = applier.WithLimits(rq, list(static), list(hard)); rq.Annotations == nil {
		rq.Annotations = map[string]string{}
	}
	var parts []string
	for _, part := range strings.Fields(most) {
		name, amount, _ := strings.Cut(part, "=")
		parts = append(parts, `"`+name+`":"`+amount+`"`)
	}
	rq.Annotations[applier.GuardAnnotation] = "{" + strings.Join(parts, ",") + "}"
	rq.Status = corev1.ResourceQuotaStatus{Hard: list(hard), Used: list(used)}
	return rq
}

// pod has containers with these limits, which are its requests too.
func pod(limits ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "p"}}
	for _, l := range limits {
		p.Spec.Containers = append(p.Spec.Containers, container(l))
	}
	return p
}

func container(limits string) corev1.Container {
	return corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Limits: list(limits), Requests: list(limits)}}
}

// full is a quota that regular pods have used up, with room for one migration.
func full() *corev1.ResourceQuota {
	return raised("tenant", "limits.cpu=4", "limits.cpu=5", "limits.cpu=4", "limits.cpu=4")
}

func TestThief(t *testing.T) {
	j := newJudge(t, full())
	j.requireRefused(tenant, pod("cpu=10m"), "ResourceQuota q is raised for live migrations only: limits.cpu used 4, requested 0.01, regular pods may bring it to 4")
	j.requireAllowed(tenant, pod("memory=1Gi")) // which this quota does not limit
	j.requireAllowed(tenant, pod(""))
}

// Who creates a pod, and what for, has to be right.
func TestWho(t *testing.T) {
	j := newJudge(t, full())
	labelled := func(labels map[string]string) *corev1.Pod {
		p := pod("cpu=1")
		p.Labels = labels
		return p
	}
	target := map[string]string{"kubevirt.io": "virt-launcher", "kubevirt.io/migrationJobUID": "u"}
	attachment := map[string]string{"kubevirt.io": "hotplug-disk"}
	j.requireAllowed(virtController, labelled(target))
	j.requireAllowed(virtController, labelled(attachment))
	j.requireRefused(virtController, labelled(map[string]string{"kubevirt.io": "virt-launcher"}), "limits.cpu used 4")
	j.requireRefused(virtController, labelled(nil), "limits.cpu used 4")
	for _, forger := range []string{tenant, "system:admin", "kubevirt-controller", "system:serviceaccount:tenant:kubevirt-controller"} {
		j.requireRefused(forger, labelled(target), "limits.cpu used 4")
		j.requireRefused(forger, labelled(attachment), "limits.cpu used 4")
	}
}

// Where no quota is raised, or the guard is off, everything passes.
func TestOff(t *testing.T) {
	plain := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: list("limits.cpu=4")}}
	plain.Status = corev1.ResourceQuotaStatus{Hard: list("limits.cpu=4"), Used: list("limits.cpu=4")}
	newJudge(t, plain).requireAllowed(tenant, pod("cpu=1"))
	newJudge(t).requireAllowed(tenant, pod("cpu=1"))

	other := full()
	other.Namespace = "other"
	elsewhere := pod("cpu=1")
	elsewhere.Namespace = "other"
	newJudge(t, other).requireAllowed(tenant, elsewhere)

	scoped := full()
	scoped.Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeNotTerminating}
	newJudge(t, scoped).requireAllowed(tenant, pod("cpu=1"))
}

// What a pod needs is what quota charges for it.
func TestFootprint(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	for name, test := range map[string]struct {
		free  string // of limits.cpu, or of what the name says
		fits  func(p *corev1.Pod)
		large func(p *corev1.Pod)
	}{
		"containers": {
			free: "limits.cpu=300m",
			fits: func(p *corev1.Pod) {
				p.Spec.Containers = []corev1.Container{container("cpu=100m"), container("cpu=200m")}
			},
			large: func(p *corev1.Pod) {
				p.Spec.Containers = []corev1.Container{container("cpu=100m"), container("cpu=201m")}
			},
		},
		"init containers": {
			free: "limits.cpu=300m",
			fits: func(p *corev1.Pod) {
				p.Spec.Containers, p.Spec.InitContainers = []corev1.Container{container("cpu=100m")}, []corev1.Container{container("cpu=300m"), container("cpu=300m")}
			},
			large: func(p *corev1.Pod) {
				p.Spec.Containers, p.Spec.InitContainers = []corev1.Container{container("cpu=100m")}, []corev1.Container{container("cpu=300m"), container("cpu=301m")}
			},
		},
		"sidecars": {
			free: "limits.cpu=300m",
			fits: func(p *corev1.Pod) {
				p.Spec.Containers, p.Spec.InitContainers = []corev1.Container{container("cpu=100m")}, []corev1.Container{container("cpu=200m")}
				p.Spec.InitContainers[0].RestartPolicy = &always
			},
			large: func(p *corev1.Pod) {
				p.Spec.Containers, p.Spec.InitContainers = []corev1.Container{container("cpu=101m")}, []corev1.Container{container("cpu=200m")}
				p.Spec.InitContainers[0].RestartPolicy = &always
			},
		},
		"an init container after a sidecar": {
			free: "limits.cpu=300m",
			fits: func(p *corev1.Pod) {
				p.Spec.Containers, p.Spec.InitContainers = []corev1.Container{container("")}, []corev1.Container{container("cpu=200m"), container("cpu=100m")}
				p.Spec.InitContainers[0].RestartPolicy = &always
			},
			large: func(p *corev1.Pod) {
				p.Spec.Containers, p.Spec.InitContainers = []corev1.Container{container("")}, []corev1.Container{container("cpu=200m"), container("cpu=101m")}
				p.Spec.InitContainers[0].RestartPolicy = &always
			},
		},
		"overhead": {
			free: "limits.cpu=300m",
			fits: func(p *corev1.Pod) {
				p.Spec.Containers, p.Spec.Overhead = []corev1.Container{container("cpu=200m")}, list("cpu=100m")
			},
			large: func(p *corev1.Pod) {
				p.Spec.Containers, p.Spec.Overhead = []corev1.Container{container("cpu=201m")}, list("cpu=100m")
			},
		},
		"pod-level resources": {
			free: "limits.cpu=300m",
			fits: func(p *corev1.Pod) {
				p.Spec.Containers = []corev1.Container{container("cpu=500m")}
				p.Spec.Resources = &corev1.ResourceRequirements{Limits: list("cpu=300m")}
			},
			large: func(p *corev1.Pod) {
				p.Spec.Containers = []corev1.Container{container("cpu=100m")}
				p.Spec.Resources = &corev1.ResourceRequirements{Limits: list("cpu=301m")}
			},
		},
		"memory limits": {
			free:  "limits.memory=1267028Ki",
			fits:  func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{container("memory=1297436672")} },
			large: func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{container("memory=1297436673")} },
		},
		"cpu requests": {
			free:  "requests.cpu=1",
			fits:  func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{container("cpu=1")} },
			large: func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{container("cpu=1001m")} },
		},
		"memory requests": {
			free:  "requests.memory=1Gi",
			fits:  func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{container("memory=1Gi")} },
			large: func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{container("memory=1073741825")} },
		},
		"requests by their short names": {
			free:  "cpu=1 memory=1Gi",
			fits:  func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{container("cpu=1 memory=1Gi")} },
			large: func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{container("cpu=1 memory=1025Mi")} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJudge(t, raised("tenant", test.free, test.free, test.free, ""))
			fits, large := pod(), pod()
			test.fits(fits)
			j.requireAllowed(tenant, fits)
			test.large(large)
			j.requireRefused(tenant, large, "is raised for live migrations only")
		})
	}
	j := newJudge(t, raised("tenant", "pods=2", "pods=4", "pods=2", "pods=2"))
	j.requireRefused(tenant, pod(""), "pods used 2, requested 1, regular pods may bring it to 2")
	newJudge(t, raised("tenant", "pods=2", "pods=4", "pods=3", "pods=2")).requireAllowed(tenant, pod(""))
	j = newJudge(t, raised("tenant", "count/pods=2", "count/pods=4", "count/pods=2", "count/pods=2"))
	j.requireRefused(tenant, pod(""), "count/pods used 2")
}

// What cannot be judged is refused, and let through where the overlay says so.
func TestFailurePolicy(t *testing.T) {
	broken := full()
	broken.Annotations[applier.GuardAnnotation] = `{"limits.cpu":"many"}`
	require.Error(t, newJudge(t, broken).create(tenant, pod("cpu=1")))
	for overlay, policy := range map[string]string{"fail-open": "Ignore", "fail-closed": "Fail"} {
		data, err := os.ReadFile(overlay + "/kustomization.yaml")
		require.NoError(t, err)
		require.Contains(t, string(data), "path: /spec/failurePolicy\n      value: "+policy)
	}
}

// A nobody is an authorizer that allows nothing: the policy asks it nothing.
type nobody struct{}

// Authorize implements authorizer.Authorizer.
func (nobody) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", nil
}
