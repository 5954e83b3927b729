package bed

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/try"
)

func TestVersionsAreThoseOfTheModules(t *testing.T) {
	for _, versions := range []Versions{Newest, Oldest} {
		controlPlane, kubectl := readModfile(t, "controlplane", versions), readModfile(t, "kubectl", versions)
		require.Equal(t, versions.Kubernetes, controlPlane["k8s.io/kubernetes"])
		require.Equal(t, versions.Etcd, controlPlane["go.etcd.io/etcd/server/v3"])
		library := "v0" + strings.TrimPrefix(versions.Kubernetes, "v1")
		require.Equal(t, library, kubectl["k8s.io/kubectl"])
		for _, required := range []map[string]string{controlPlane, kubectl} {
			for module, version := range required {
				if strings.HasPrefix(module, "k8s.io/") && strings.HasPrefix(version, "v0.3") && !strings.Contains(version, "-") && module != "k8s.io/kube-openapi" {
					require.Equal(t, library, version, module)
				}
			}
		}
		kubevirt := readModfile(t, "kubevirt", versions)
		for _, module := range []string{"kubevirt.io/kubevirt", "kubevirt.io/api", "kubevirt.io/client-go"} {
			require.Equal(t, versions.KubeVirt, kubevirt[module], module)
		}
	}
}

// readModfile returns the versions that a nested module requires or, where it replaces
// a module by another version, those.
func readModfile(t *testing.T, module string, versions Versions) map[string]string {
	t.Helper()
	output := try.Must(exec.Command("go", "mod", "edit", "-json", filepath.Join("..", module, versions.modfile())).Output())(t)
	var file struct {
		Require []struct{ Path, Version string }
		Replace []struct {
			Old, New struct{ Path, Version string }
		}
	}
	require.NoError(t, json.Unmarshal(output, &file))
	result := map[string]string{}
	for _, r := range file.Require {
		result[r.Path] = r.Version
	}
	for _, r := range file.Replace {
		if r.New.Version != "" {
			result[r.Old.Path] = r.New.Version
		}
	}
	return result
}

func TestChooseVersions(t *testing.T) {
	t.Setenv(VersionsVariable, "")
	for name, want := range map[string]Versions{"": Newest, "newest": Newest, "oldest": Oldest} {
		got := try.Must(ChooseVersions(name))(t)
		require.Equal(t, want, got)
	}
	_, err := ChooseVersions("v1.2.3")
	require.ErrorContains(t, err, `"v1.2.3"`)
	t.Setenv(VersionsVariable, "oldest")
	got := try.Must(ChooseVersions(""))(t)
	require.Equal(t, Oldest, got)
	got = try.Must((Config{Versions: Newest}).versions())(t)
	require.Equal(t, Newest, got)
}

func TestVersionFlags(t *testing.T) {
	require.Equal(t, " -X k8s.io/component-base/version.gitVersion=v1.36.3"+
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36", versionFlags("v1.36.3"))
}
