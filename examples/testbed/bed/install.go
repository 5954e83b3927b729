package bed

import (
	"bytes"
	_ "embed" // for the policies that stand in for virt-api
	"encoding/json"
	"errors"
	"io"
	"os/exec"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/ledger/rancher"
)

//go:embed virt-api.yaml
var virtAPIPolicies []byte

// KubeVirtNamespace is where KubeVirt is installed, and its KubeVirt object.
const KubeVirtNamespace = "kubevirt"

// The resources that are written and read untyped.
var (
	definitionResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	kubevirtResource   = kubevirtv1.SchemeGroupVersion.WithResource("kubevirts")
	migrationResource  = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstancemigrations")
)

// install installs what virt-operator would: KubeVirt's kinds, the rights of
// virt-controller and the KubeVirt object; and what stands in for virt-api.
func (b *Bed) install(t try.T) {
	b.Create(t, []byte(`{apiVersion: v1, kind: Namespace, metadata: {name: kubevirt}}`))
	b.create(t, b.manifests(t))
	b.Create(t, []byte(storageClass))
	policies := parseYAML(t, virtAPIPolicies)
	for _, policy := range policies {
		policy.SetAPIVersion("admissionregistration.k8s.io/" + b.versions.policyVersion())
	}
	b.create(t, policies)
	b.awaitDefinitions(t)
	b.createKubeVirt(t)
	controller := b.ServiceAccount(t, KubeVirtNamespace, "kubevirt-controller")
	require.NoError(t, WriteKubeconfig(b.path("virt-controller.kubeconfig"), controller))
	b.awaitPolicy(t)
}

// manifests returns what virt-operator generates.
func (b *Bed) manifests(t try.T) []*unstructured.Unstructured {
	var list struct {
		Items []*unstructured.Unstructured `json:"items"`
	}
	output := try.Must(exec.CommandContext(t.Context(), b.binaries[kubevirt], "manifests").Output())(t)
	require.NoError(t, json.Unmarshal(output, &list))
	return list.Items
}

func parseYAML(t try.T, content []byte) (objects []*unstructured.Unstructured) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		require.NoError(t, err)
		objects = append(objects, object)
	}
}

// Create creates the objects of a YAML stream, except those that are there already.
func (b *Bed) Create(t try.T, content []byte) {
	t.Helper()
	b.create(t, parseYAML(t, content))
}

func (b *Bed) create(t try.T, objects []*unstructured.Unstructured) {
	t.Helper()
	for _, object := range objects {
		resource, _ := meta.UnsafeGuessKindToResource(object.GroupVersionKind())
		unstructured.RemoveNestedField(object.Object, "status")
		_, err := b.objects.Resource(resource).Namespace(object.GetNamespace()).Create(t.Context(), object, metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			require.NoError(t, err, "%s %s", object.GetKind(), object.GetName())
		}
	}
}

// awaitDefinitions waits until all kinds that are defined are served.
func (b *Bed) awaitDefinitions(t try.T) {
	try.Eventually(t, func(t try.T) {
		for _, definition := range try.Must(b.objects.Resource(definitionResource).List(t.Context(), metav1.ListOptions{}))(t).Items {
			var crd struct {
				Status struct {
					Conditions []metav1.Condition `json:"conditions"`
				} `json:"status"`
			}
			require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(definition.Object, &crd))
			require.True(t, meta.IsStatusConditionTrue(crd.Status.Conditions, "Established"), "%s is not established", definition.GetName())
		}
	})
}

// storageClass is that of claims that name none. KubeVirt takes one that has no volume for ready,
// because the scheduler is to choose that.
const storageClass = `{
  apiVersion: storage.k8s.io/v1, kind: StorageClass, provisioner: kubernetes.io/no-provisioner, volumeBindingMode: WaitForFirstConsumer,
  metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}},
}`

// kubeVirt is the KubeVirt object, which virt-controller reads its configuration from.
const kubeVirt = `{apiVersion: kubevirt.io/v1, kind: KubeVirt, metadata: {name: kubevirt, namespace: kubevirt}, spec: {}}`

// createKubeVirt creates the KubeVirt object, and says of it what virt-operator would say. Its
// kind is served a moment after it is established.
func (b *Bed) createKubeVirt(t try.T) {
	try.Eventually(t, func(t try.T) {
		b.Create(t, []byte(kubeVirt))
		try.Must(b.objects.Resource(kubevirtResource).Namespace(KubeVirtNamespace).Patch(t.Context(), "kubevirt", types.MergePatchType,
			[]byte(`{"status":{"phase":"Deployed"}}`), metav1.PatchOptions{}, "status"))(t)
	})
}

// trial is a migration.
const trial = `{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstanceMigration, metadata: {generateName: trial-}, spec: {vmiName: trial}}`

// awaitPolicy waits until the API server does for virt-api what the policies say.
func (b *Bed) awaitPolicy(t try.T) {
	try.Eventually(t, func(t try.T) {
		created := try.Must(b.objects.Resource(migrationResource).Namespace(metav1.NamespaceDefault).Create(t.Context(),
			parseYAML(t, []byte(trial))[0], metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}))(t)
		require.Equal(t, "trial", created.GetLabels()[kubevirtv1.MigrationSelectorLabel], "the policies for migrations are not in force")
	})
}

// UnlockedLabel is on namespaces in which [Bed.LockQuotas] locks nothing, as with a Rancher
// from before its write lock.
const UnlockedLabel = "testbed.headroom.vmquota.io/unlocked"

// RancherUser, in the group system:masters, is who the lock lets through.
const RancherUser = "system:serviceaccount:cattle-system:rancher-webhook-sudo"

//go:embed lock.yaml
var lockYAML []byte

// LockQuotas installs the write lock of Rancher 2.14.6 and 2.15.2 on the quotas that it
// manages, as a policy, and returns when the lock is in force.
func (b *Bed) LockQuotas(t try.T) {
	t.Helper()
	b.Create(t, lockYAML)
	probe := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "probe", Labels: map[string]string{rancher.QuotaLabel: "true"}}}
	try.Eventually(t, func(t try.T) {
		_, err := b.client.CoreV1().ResourceQuotas("default").Create(t.Context(), probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.True(t, apierrors.IsForbidden(err), "anybody may create a quota of Rancher's: %v", err)
	})
}
