package guard

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
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

// A judge is the API server's admission plugin for policies, with the guard in it. The guard
// is on in the namespace tenant, and off in the namespace other.
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

// A request is what the API server asks the plugin about.
type request struct {
	user        string
	operation   admission.Operation
	object, old runtime.Object
	subresource string
}

func create(user string, object runtime.Object) request {
	return request{user: user, operation: admission.Create, object: object}
}

func update(user string, old, object runtime.Object) request {
	return request{user: user, operation: admission.Update, old: old, object: object}
}

func (j *judge) ask(r request) error {
	j.t.Helper()
	resources := map[string]string{"Pod": "pods", "PersistentVolumeClaim": "persistentvolumeclaims", "ResourceClaim": "resourceclaims", "ConfigMap": "configmaps"}
	kinds, _, err := scheme.Scheme.ObjectKinds(r.object)
	require.NoError(j.t, err)
	object, err := meta.Accessor(r.object)
	require.NoError(j.t, err)
	var options runtime.Object = &metav1.CreateOptions{}
	if r.operation == admission.Update {
		options = &metav1.UpdateOptions{}
	}
	gvr := kinds[0].GroupVersion().WithResource(resources[kinds[0].Kind])
	attributes := admission.NewAttributesRecord(r.object, r.old, kinds[0], object.GetNamespace(), object.GetName(), gvr, r.subresource,
		r.operation, options, false, &user.DefaultInfo{Name: r.user})
	return j.plugin.Validate(context.Background(), attributes, admission.NewObjectInterfacesFromScheme(scheme.Scheme))
}

func (j *judge) requireAllowed(r request) {
	j.t.Helper()
	require.NoError(j.t, j.ask(r))
}

func (j *judge) requireRefused(r request) {
	j.t.Helper()
	err := j.ask(r)
	require.True(j.t, apierrors.IsForbidden(err), "%v", err)
	require.ErrorContains(j.t, err, "ValidatingAdmissionPolicy 'headroom-guard'")
	require.ErrorContains(j.t, err, "ResourceQuota q has room for a live migration at the moment, and for nothing else: try again in a moment")
	require.NotContains(j.t, err.Error(), "exceeded quota", "KubeVirt would take it for a refusal by quota")
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

// offer returns a quota with an open offer, and these static and enforced limits.
func offer(static, enforced string) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "q", Annotations: map[string]string{applier.OfferAnnotation: "m"}},
		Spec:       corev1.ResourceQuotaSpec{Hard: list(static)},
		Status:     corev1.ResourceQuotaStatus{Hard: list(enforced), Used: list(static)},
	}
}

// open is a quota that regular pods have used up, with room for one migration.
func open() *corev1.ResourceQuota { return offer("limits.cpu=4", "limits.cpu=5") }

func named(labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "tenant", Name: "o", Labels: labels}
}

func pod(labels map[string]string) *corev1.Pod {
	container := corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Limits: list("cpu=1")}}
	return &corev1.Pod{ObjectMeta: named(labels), Spec: corev1.PodSpec{Containers: []corev1.Container{container}}}
}

func volume(labels map[string]string, storage string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: named(labels),
		Spec:       corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: list("storage=" + storage)}},
	}
}

// What KubeVirt creates for a migration.
var (
	target     = map[string]string{"kubevirt.io": "virt-launcher", "kubevirt.io/migrationJobUID": "u"}
	attachment = map[string]string{"kubevirt.io": "hotplug-disk", "kubevirt.io/migrationJobUID": "u"}
	state      = map[string]string{"kubevirt.io/migrationName": "m"}
)

// While an offer is open, whatever quota may charge is refused.
func TestRegular(t *testing.T) {
	j := newJudge(t, open())
	j.requireRefused(create(tenant, pod(nil)))
	j.requireRefused(create(tenant, volume(nil, "1Gi")))
	j.requireRefused(create(tenant, &resourcev1.ResourceClaim{ObjectMeta: named(nil)}))
	j.requireRefused(update(tenant, volume(nil, "1Gi"), volume(nil, "2Gi")))
	resize := update(tenant, pod(nil), pod(nil))
	resize.subresource = "resize"
	j.requireRefused(resize)
}

// What quota does not charge passes: labels and status of a pod, and a claim that is bound,
// or that goes.
func TestUncharged(t *testing.T) {
	j := newJudge(t, open())
	j.requireAllowed(create(tenant, &corev1.ConfigMap{ObjectMeta: named(nil)}))
	j.requireAllowed(update(tenant, pod(nil), pod(target)))
	status := update(tenant, pod(nil), pod(nil))
	status.subresource = "status"
	j.requireAllowed(status)

	bound := volume(nil, "1Gi")
	bound.Spec.VolumeName = "pv"
	j.requireAllowed(update(tenant, volume(nil, "1Gi"), bound))
	gone := bound.DeepCopy()
	gone.Finalizers = nil
	bound.Finalizers = []string{"kubernetes.io/pvc-protection"}
	j.requireAllowed(update(tenant, bound, gone))

	// A quota may have a class of volumes as its scope.
	gold := "gold"
	modified := gone.DeepCopy()
	modified.Spec.VolumeAttributesClassName = &gold
	j.requireRefused(update(tenant, gone, modified))
}

// Who creates an object, and what for, has to be right.
func TestWho(t *testing.T) {
	j := newJudge(t, open())
	j.requireAllowed(create(virtController, pod(target)))
	j.requireAllowed(create(virtController, pod(attachment)))
	j.requireAllowed(create(virtController, volume(state, "10Mi")))

	for _, labels := range []map[string]string{nil, {"kubevirt.io": "virt-launcher"}, {"kubevirt.io": "hotplug-disk"}, state} {
		j.requireRefused(create(virtController, pod(labels)))
	}
	for _, labels := range []map[string]string{nil, {"persistent-state-for": "vm"}, target} {
		j.requireRefused(create(virtController, volume(labels, "10Mi")))
	}
	j.requireRefused(update(virtController, volume(state, "10Mi"), volume(state, "20Mi")))
	for _, forger := range []string{tenant, "system:admin", "kubevirt-controller", "system:serviceaccount:tenant:kubevirt-controller"} {
		j.requireRefused(create(forger, pod(target)))
		j.requireRefused(create(forger, pod(attachment)))
		j.requireRefused(create(forger, volume(state, "10Mi")))
	}
}

// An offer is open if the quota says so, and its enforced limit is above the static one.
func TestOffer(t *testing.T) {
	for static, enforced := range map[string]string{
		"limits.cpu=4":                      "limits.cpu=4001m",
		"limits.memory=4Gi":                 "limits.memory=4294967297",
		"limits.memory=1Gi":                 "limits.memory=1100M",
		"limits.cpu=0":                      "limits.cpu=1m",
		"limits.cpu=4 limits.memory=1Gi":    "limits.cpu=4 limits.memory=2Gi",
		"pods=9 requests.nvidia.com/gpu=1":  "pods=9 requests.nvidia.com/gpu=2",
		"limits.memory=5 limits.cpu=2":      "limits.memory=4 limits.cpu=3",
		"limits.memory=1e30":                "limits.memory=2e30",
		"requests.storage=1Gi limits.cpu=2": "requests.storage=2Gi",
	} {
		t.Run(enforced, func(t *testing.T) {
			newJudge(t, offer(static, enforced)).requireRefused(create(tenant, pod(nil)))
		})
	}

	// Crashed: kube-controller-manager has set the limits back, and nobody removes the
	// annotation.
	for name, static := range map[string]string{
		"equal":                          "limits.cpu=4 limits.memory=1Gi",
		"written differently":            "limits.cpu=4000m limits.memory=1024Mi",
		"a raised static limit":          "limits.cpu=5 limits.memory=2Gi",
		"a key that is static no more":   "limits.cpu=4",
		"a key that nobody enforces yet": "limits.cpu=4 limits.memory=1Gi pods=1",
		"none at all":                    "",
	} {
		t.Run(name, func(t *testing.T) {
			newJudge(t, offer(static, "limits.cpu=4 limits.memory=1Gi")).requireAllowed(create(tenant, pod(nil)))
		})
	}
	newJudge(t, offer("limits.cpu=4", "")).requireAllowed(create(tenant, pod(nil)))

	charged := open() // room that is in use, and nothing is waited for
	charged.Annotations = map[string]string{"headroom.vmquota.io/disabled": "true"}
	newJudge(t, charged).requireAllowed(create(tenant, pod(nil)))
	charged.Annotations = nil
	newJudge(t, charged).requireAllowed(create(tenant, pod(nil)))
	newJudge(t).requireAllowed(create(tenant, pod(nil)))
}

// One open quota of several is enough, whatever its scopes. Those of other namespaces do
// not count.
func TestQuotas(t *testing.T) {
	closed := offer("limits.cpu=4", "limits.cpu=4")
	closed.Name = "closed"
	scoped := open()
	scoped.Spec.Scopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeTerminating}
	newJudge(t, closed, scoped).requireRefused(create(tenant, pod(nil)))

	elsewhere := open()
	elsewhere.Namespace = "other"
	j := newJudge(t, closed, elsewhere)
	j.requireAllowed(create(tenant, pod(nil)))
	unguarded := pod(nil)
	unguarded.Namespace = "other"
	j.requireAllowed(create(tenant, unguarded))
}

// A quota of many names is judged within the API server's limits of cost.
func TestCost(t *testing.T) {
	limits := make([]string, 1000)
	for i := range limits {
		limits[i] = fmt.Sprintf("count/%s%d.example.com=1", strings.Repeat("x", 40), i)
	}
	static := strings.Join(limits, " ")
	newJudge(t, offer("zzz="+"4 "+static, "zzz="+"5 "+static)).requireRefused(create(tenant, pod(nil)))
	newJudge(t, offer(static, static)).requireAllowed(create(tenant, pod(nil)))
}

// Each overlay says what its name says. The test of the proof applies them.
func TestOverlays(t *testing.T) {
	for overlay, policy := range map[string]string{"fail-open": "Ignore", "fail-closed": "Fail"} {
		require.Contains(t, read(t, overlay), "path: /spec/failurePolicy\n      value: "+policy)
		require.Contains(t, read(t, overlay+"-all"), "resources:\n- ../"+overlay+"\ncomponents:\n- ../all-namespaces\n")
	}
}

func read(t *testing.T, folder string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(folder, "kustomization.yaml"))
	require.NoError(t, err)
	return string(data)
}

// A nobody is an authorizer that allows nothing: the policy asks it nothing.
type nobody struct{}

// Authorize implements authorizer.Authorizer.
func (nobody) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", nil
}
