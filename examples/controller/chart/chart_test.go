package chart

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"helm.sh/helm/v3/pkg/releaseutil"
	"helm.sh/helm/v3/pkg/strvals"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// objects are by kind and name.
type objects map[string]map[string]any

func (o objects) add(t *testing.T, document string) {
	t.Helper()
	object := map[string]any{}
	require.NoError(t, yaml.UnmarshalStrict([]byte(document), &object))
	name := object["kind"].(string) + " " + object["metadata"].(map[string]any)["name"].(string)
	require.NotContains(t, o, name)
	o[name] = object
}

// without returns the objects of o that are not in others by name.
func (o objects) without(others objects) objects {
	rest := maps.Clone(o)
	maps.DeleteFunc(rest, func(name string, _ map[string]any) bool { return others[name] != nil })
	return rest
}

// values are what --set gives.
func values(t *testing.T, set string) map[string]any {
	t.Helper()
	v, err := strvals.Parse(set)
	require.NoError(t, err)
	return v
}

// render is "helm template headroom . --namespace NAMESPACE --set SET".
func render(t *testing.T, namespace, set string) objects {
	t.Helper()
	c, err := loader.Load(".")
	require.NoError(t, err)
	for _, file := range append(c.Files, c.Templates...) {
		require.Contains(t, []string{".yaml", ".helmignore"}, filepath.Ext(file.Name), "in the package")
	}
	v, err := chartutil.ToRenderValues(c, values(t, set), chartutil.ReleaseOptions{Name: "headroom", Namespace: namespace, IsInstall: true}, nil)
	require.NoError(t, err)
	files, err := engine.Engine{Strict: true}.Render(c, v)
	require.NoError(t, err)
	found := objects{}
	for _, file := range files {
		for _, document := range releaseutil.SplitManifests(file) {
			found.add(t, document)
		}
	}
	return found
}

// kustomize is "kubectl kustomize FOLDER".
func kustomize(t *testing.T, folder string) objects {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	require.NoError(t, err)
	found := objects{}
	for _, r := range resources.Resources() {
		document, err := r.AsYAML()
		require.NoError(t, err)
		found.add(t, string(document))
	}
	return found
}

const image = "image.repository=headroom-controller,image.tag=latest"

// What the release builds is what the chart installs. The rest of .goreleaser.yaml is checked
// by "goreleaser check", which takes too long to build for CI.
func TestRelease(t *testing.T) {
	data, err := os.ReadFile("../../../.goreleaser.yaml")
	require.NoError(t, err)
	var release struct {
		Builds []struct{ ID, Dir, Binary string }
		Kos    []struct {
			Build, BaseImage   string
			Repositories, Tags []string
		}
		Krews []struct {
			Name string
			IDs  []string
		}
	}
	require.NoError(t, yaml.Unmarshal(data, &release))
	binaries := map[string]string{}
	for _, build := range release.Builds {
		main, err := os.ReadFile(filepath.Join("../../..", build.Dir, "main.go"))
		require.NoError(t, err)
		require.Contains(t, string(main), "package main")
		binaries[build.ID] = build.Binary
	}
	require.Len(t, release.Kos, 1)
	require.Equal(t, "headroom-controller", binaries[release.Kos[0].Build])
	image := container(t, render(t, "headroom", ""))["image"]
	require.Equal(t, release.Kos[0].Repositories[0]+":v0.1.0", image)
	require.Equal(t, []string{"{{ .Tag }}"}, release.Kos[0].Tags)
	require.FileExists(t, "../../../.github/release-notes/v0.1.0.md")

	// kubectl finds the plugin NAME as kubectl-NAME.
	require.Len(t, release.Krews, 1)
	require.Equal(t, "kubectl-"+release.Krews[0].Name, binaries[release.Krews[0].IDs[0]])
}

func TestLint(t *testing.T) {
	for _, set := range []string{"", "replicas=1,serviceMonitor=true,guard.enabled=true,args={--strict}"} {
		for _, message := range lint.All(".", values(t, set), "headroom", true).Messages {
			require.True(t, message.Severity == support.InfoSev && strings.Contains(message.Error(), "icon"), message)
		}
	}
}

// The chart makes what kustomize makes, but for the namespace, which helm creates.
func TestSameAsKustomize(t *testing.T) {
	want := kustomize(t, "../deploy")
	require.Contains(t, want, "Namespace headroom")
	delete(want, "Namespace headroom")
	require.Equal(t, want, render(t, "headroom", image))
}

func TestGuardSameAsKustomize(t *testing.T) {
	for folder, set := range map[string]string{
		"fail-closed":     "",
		"fail-open":       ",guard.failurePolicy=Ignore",
		"fail-closed-all": ",guard.allNamespaces=true",
		"fail-open-all":   ",guard.failurePolicy=Ignore,guard.allNamespaces=true",
	} {
		t.Run(folder, func(t *testing.T) {
			without := render(t, "headroom", image)
			with := render(t, "headroom", image+",guard.enabled=true"+set)
			require.Equal(t, kustomize(t, "../guard/"+folder), with.without(without))
			require.Equal(t, []any{"--logging-format=json", "--guard"}, container(t, with)["args"])
		})
	}
}

func container(t *testing.T, o objects) map[string]any {
	t.Helper()
	deployment := o["Deployment headroom"]
	for _, field := range []string{"spec", "template", "spec"} {
		deployment = deployment[field].(map[string]any)
	}
	containers := deployment["containers"].([]any)
	require.Len(t, containers, 1)
	return containers[0].(map[string]any)
}

func TestValues(t *testing.T) {
	o := render(t, "elsewhere", "replicas=1,serviceMonitor=true,args={--strict,--budget=limits.memory=64Gi},guard.enabled=true,guard.virtController=system:serviceaccount:harvester-system:kubevirt-controller")
	require.NotContains(t, o, "PodDisruptionBudget headroom", "it would block a drain")
	require.Contains(t, o, "ServiceMonitor headroom")
	require.Equal(t, "ghcr.io/vmquota/headroom-controller:v0.1.0", container(t, o)["image"])
	require.Equal(t, []any{"--logging-format=json", "--guard", "--strict", "--budget=limits.memory=64Gi"}, container(t, o)["args"])
	text, err := yaml.Marshal(o)
	require.NoError(t, err)
	require.NotContains(t, string(text), "namespace: headroom\n")
	require.Contains(t, string(text), `'system:serviceaccount:harvester-system:kubevirt-controller'`)
}
