package bed

import (
	"bytes"
	"context"
	_ "embed" // for the policies that stand in for virt-api
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

//go:embed virt-api.yaml
var virtAPIPolicies []byte

// KubeVirtNamespace is where KubeVirt is installed, and its KubeVirt object.
const KubeVirtNamespace = "kubevirt"

var (
	definitionResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	kubevirtResource   = kubevirtv1.SchemeGroupVersion.WithResource("kubevirts")
	migrationResource  = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstancemigrations")
)

// plurals are the names of the resources that objects of the installed kinds are.
var plurals = map[string]string{
	"CustomResourceDefinition":       "customresourcedefinitions",
	"ServiceAccount":                 "serviceaccounts",
	"ClusterRole":                    "clusterroles",
	"ClusterRoleBinding":             "clusterrolebindings",
	"Role":                           "roles",
	"RoleBinding":                    "rolebindings",
	"MutatingAdmissionPolicy":        "mutatingadmissionpolicies",
	"MutatingAdmissionPolicyBinding": "mutatingadmissionpolicybindings",
}

// install installs what virt-operator would: KubeVirt's kinds, the rights of
// virt-controller and the KubeVirt object; and what stands in for virt-api.
func (b *Bed) install(ctx context.Context, configuration *kubevirtv1.KubeVirtConfiguration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := dynamic.NewForConfig(b.config)
	if err != nil {
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: KubeVirtNamespace}}
	if _, err := b.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return err
	}
	objects, err := b.manifests(ctx)
	if err != nil {
		return err
	}
	policies, err := parseYAML(virtAPIPolicies)
	if err != nil {
		return err
	}
	for _, policy := range policies {
		policy.SetAPIVersion("admissionregistration.k8s.io/" + b.versions.policyVersion())
	}
	if err := create(ctx, client, slices.Concat(objects, policies)); err != nil {
		return err
	}
	if err := awaitDefinitions(ctx, client, objects); err != nil {
		return err
	}
	if err := createKubeVirt(ctx, client, configuration); err != nil {
		return err
	}
	controller, err := b.ServiceAccount(ctx, KubeVirtNamespace, "kubevirt-controller")
	if err != nil {
		return err
	}
	if err := writeKubeconfig(b.path("virt-controller.kubeconfig"), controller); err != nil {
		return err
	}
	return awaitPolicy(ctx, client)
}

// manifests returns what virt-operator generates.
func (b *Bed) manifests(ctx context.Context) ([]*unstructured.Unstructured, error) {
	output, err := exec.CommandContext(ctx, b.binaries.kubevirt, "manifests").Output()
	if err != nil {
		return nil, fmt.Errorf("kubevirt manifests: %w", err)
	}
	var list struct {
		Items []*unstructured.Unstructured `json:"items"`
	}
	return list.Items, json.Unmarshal(output, &list)
}

func parseYAML(content []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		object := &unstructured.Unstructured{}
		switch err := decoder.Decode(object); {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, err
		}
		objects = append(objects, object)
	}
}

// create creates objects, some at a time.
func create(ctx context.Context, client dynamic.Interface, objects []*unstructured.Unstructured) error {
	failed := make([]error, len(objects))
	slots := make(chan struct{}, 4)
	var group sync.WaitGroup
	for i, object := range objects {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			kind := object.GroupVersionKind()
			plural, known := plurals[kind.Kind]
			if !known {
				failed[i] = fmt.Errorf("unknown kind %s", kind)
				return
			}
			resource := kind.GroupVersion().WithResource(plural)
			unstructured.RemoveNestedField(object.Object, "status")
			_, err := client.Resource(resource).Namespace(object.GetNamespace()).Create(ctx, object, metav1.CreateOptions{})
			if err != nil {
				failed[i] = fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
			}
		})
	}
	group.Wait()
	return errors.Join(failed...)
}

// awaitDefinitions waits until the kinds that objects define are served.
func awaitDefinitions(ctx context.Context, client dynamic.Interface, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if object.GetKind() != "CustomResourceDefinition" {
			continue
		}
		err := poll(ctx, func(ctx context.Context) error {
			definition, err := client.Resource(definitionResource).Get(ctx, object.GetName(), metav1.GetOptions{})
			if err != nil {
				return err
			}
			conditions, _, err := unstructured.NestedSlice(definition.Object, "status", "conditions")
			if err != nil {
				return err
			}
			for _, condition := range conditions {
				if c, ok := condition.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
					return nil
				}
			}
			return errors.New("it is not established")
		})
		if err != nil {
			return fmt.Errorf("%s: %w", object.GetName(), err)
		}
	}
	return nil
}

// createKubeVirt creates the KubeVirt object, which virt-controller reads its
// configuration from, and says of it what virt-operator would say.
func createKubeVirt(ctx context.Context, client dynamic.Interface, configuration *kubevirtv1.KubeVirtConfiguration) error {
	kubevirt := &kubevirtv1.KubeVirt{
		TypeMeta:   metav1.TypeMeta{APIVersion: kubevirtv1.SchemeGroupVersion.String(), Kind: "KubeVirt"},
		ObjectMeta: metav1.ObjectMeta{Namespace: KubeVirtNamespace, Name: "kubevirt"},
	}
	if configuration != nil {
		kubevirt.Spec.Configuration = *configuration
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(kubevirt)
	if err != nil {
		return err
	}
	unstructured.RemoveNestedField(content, "status")
	kubevirts := client.Resource(kubevirtResource).Namespace(KubeVirtNamespace)
	return poll(ctx, func(ctx context.Context) error { // served a moment after it is established
		_, err := kubevirts.Create(ctx, &unstructured.Unstructured{Object: content}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		phase := []byte(`{"status":{"phase":"Deployed"}}`)
		_, err = kubevirts.Patch(ctx, kubevirt.Name, types.MergePatchType, phase, metav1.PatchOptions{}, "status")
		return err
	})
}

// awaitPolicy waits until the API server does for virt-api what the policies say.
func awaitPolicy(ctx context.Context, client dynamic.Interface) error {
	migration := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": kubevirtv1.SchemeGroupVersion.String(),
		"kind":       "VirtualMachineInstanceMigration",
		"metadata":   map[string]any{"generateName": "trial-"},
		"spec":       map[string]any{"vmiName": "trial"},
	}}
	return poll(ctx, func(ctx context.Context) error {
		created, err := client.Resource(migrationResource).Namespace(metav1.NamespaceDefault).
			Create(ctx, migration, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return err
		}
		if !slices.Contains(created.GetFinalizers(), kubevirtv1.VirtualMachineInstanceMigrationFinalizer) ||
			created.GetLabels()[kubevirtv1.MigrationSelectorLabel] != "trial" {
			return errors.New("the policies for migrations are not in force")
		}
		return nil
	})
}
