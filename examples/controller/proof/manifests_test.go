package proof

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"
)

// folders are the kustomizations that are applied, one after the other.
var folders = []string{"../deploy", "../guard/policy"}

// An installer applies objects as kubectl does, and notes what the API server warns of.
type installer struct {
	client dynamic.Interface
	mapper meta.RESTMapper

	mu       sync.Mutex
	warnings []string
}

func newInstaller() (*installer, error) {
	i := &installer{}
	config := shared.Config()
	config.WarningHandlerWithContext = i
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	served, err := restmapper.GetAPIGroupResources(admin.Discovery())
	if err != nil {
		return nil, err
	}
	i.client, i.mapper = client, restmapper.NewDiscoveryRESTMapper(served)
	return i, nil
}

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (i *installer) HandleWarningHeaderWithContext(_ context.Context, code int, _, text string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if code == 299 { // the code of warnings that count, RFC 7234
		i.warnings = append(i.warnings, text)
	}
}

// apply applies object, also where kubectl owns fields of it. Fields that the API server does
// not know are errors.
func (i *installer) apply(ctx context.Context, object *unstructured.Unstructured) error {
	kind := object.GroupVersionKind()
	mapping, err := i.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	data, err := object.MarshalJSON()
	if err != nil {
		return err
	}
	force := true
	_, err = i.client.Resource(mapping.Resource).Namespace(object.GetNamespace()).Patch(ctx, object.GetName(), types.ApplyPatchType, data,
		metav1.PatchOptions{FieldManager: "proof", FieldValidation: metav1.FieldValidationStrict, Force: &force})
	if err != nil {
		return fmt.Errorf("%s %s: %w", kind.Kind, object.GetName(), err)
	}
	return nil
}

// manifests returns the objects that the kustomization of a folder names, in its order.
func manifests(folder string) (all []*unstructured.Unstructured, err error) {
	data, err := os.ReadFile(path.Join(folder, "kustomization.yaml"))
	if err != nil {
		return nil, err
	}
	var kustomization struct{ Resources []string }
	if err := yaml.Unmarshal(data, &kustomization); err != nil {
		return nil, err
	}
	for _, name := range kustomization.Resources {
		data, err := os.ReadFile(path.Join(folder, name))
		if err != nil {
			return nil, err
		}
		reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
		for {
			document, err := reader.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			object := &unstructured.Unstructured{}
			if err := yaml.UnmarshalStrict(document, &object.Object); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			all = append(all, object)
		}
	}
	return all, nil
}

// install applies all that there is, in order.
func install(ctx context.Context) error {
	i, err := newInstaller()
	if err != nil {
		return err
	}
	for _, folder := range folders {
		all, err := manifests(folder)
		if err != nil {
			return err
		}
		for _, object := range all {
			if err := i.apply(ctx, object); err != nil {
				return err
			}
		}
	}
	return nil
}

// Each object is one that the API server takes, without a warning.
func TestManifestsApply(t *testing.T) {
	i, err := newInstaller()
	require.NoError(t, err)
	for _, folder := range folders {
		all, err := manifests(folder)
		require.NoError(t, err)
		require.NotEmpty(t, all)
		for _, object := range all {
			t.Run(object.GetKind()+" "+object.GetName(), func(t *testing.T) {
				i.warnings = nil
				require.NoError(t, i.apply(t.Context(), object))
				require.Empty(t, i.warnings)

				// The check can fail.
				unknown := object.DeepCopy()
				unknown.Object["spice"] = "pepper"
				require.ErrorContains(t, i.apply(t.Context(), unknown), "spice")
			})
		}
	}
}

// The pods pass Pod Security, the priority class and all other admission, and the
// Deployment has both replicas.
func TestDeploymentIsAvailable(t *testing.T) {
	eventually(t, func(c *assert.CollectT) {
		deployment, err := admin.AppsV1().Deployments(system).Get(t.Context(), "headroom", metav1.GetOptions{})
		require.NoError(c, err)
		require.True(c, slices.ContainsFunc(deployment.Status.Conditions, func(condition appsv1.DeploymentCondition) bool {
			return condition.Type == appsv1.DeploymentAvailable && condition.Status == "True"
		}), "%+v", deployment.Status)
		require.EqualValues(c, 2, deployment.Status.ReadyReplicas)
	})
}
