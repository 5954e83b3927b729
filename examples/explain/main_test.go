package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"

	"github.com/vmquota/headroom/quota"
)

var update = flag.Bool("update", false, "write the golden files anew")

const recordings = "../../migration/testdata/recordings/"

// A result is what the program left behind.
type result struct {
	code           int
	stdout, stderr string
}

func runWith(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(context.Background(), genericiooptions.IOStreams{In: strings.NewReader(stdin), Out: &stdout, ErrOut: &stderr}, args)
	return result{code: code, stdout: stdout.String(), stderr: stderr.String()}
}

// refused runs the program and wants the error and nothing else.
func refused(t *testing.T, want, stdin string, args ...string) {
	t.Helper()
	require.Equal(t, result{code: exitError, stderr: "error: " + want + "\n"}, runWith(t, stdin, args...))
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	if diff := cmp.Diff(contents(t, path), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func contents(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

// body is the output without its first line, which names the source.
func body(output string) string {
	_, rest, _ := strings.Cut(output, "\n")
	return rest
}

func TestGolden(t *testing.T) {
	for name, args := range map[string]string{
		"basic-free":        "-f " + recordings + "basic.jsonl --at 0.5s",
		"basic-queued":      "-f " + recordings + "basic.jsonl --at 1.33s",
		"basic-refused":     "-f " + recordings + "basic.jsonl --at 2s",
		"basic-raised":      "-f " + recordings + "basic.jsonl --at 3375ms",
		"basic-enforced":    "-f " + recordings + "basic.jsonl --at 3382ms",
		"basic-running":     "-f " + recordings + "basic.jsonl --at 4.2s",
		"basic-succeeded":   "-f " + recordings + "basic.jsonl --at 5s",
		"basic-end":         "-f " + recordings + "basic.jsonl",
		"basic-budget":      "-f " + recordings + "basic.jsonl --at 2s --budget limits.memory=1Gi",
		"basic-json":        "-f " + recordings + "basic.jsonl --at 2s -o json",
		"basic-yaml":        "-f " + recordings + "basic.jsonl --at 2s -o yaml",
		"abort-refused":     "-f " + recordings + "abort.jsonl --at 2.2s",
		"abort-vmim-gone":   "-f " + recordings + "abort.jsonl --at 4s",
		"fail-failed":       "-f " + recordings + "fail.jsonl --at 2.45s",
		"vmidelete-both":    "-f " + recordings + "vmidelete.jsonl --at 2.6s",
		"vmidelete-vmi":     "-f " + recordings + "vmidelete.jsonl --at 2.82s",
		"autolimits-no":     "-f " + recordings + "autolimits.jsonl --at 2s",
		"list":              "-f testdata/list.yaml",
		"drain":             "-f testdata/drain",
		"drain-budget":      "-f testdata/drain --budget limits.memory=6Gi",
		"drain-budget-json": "-f testdata/drain --budget limits.memory=6Gi,limits.cpu=8 -o json",
		"over-static":       "-f testdata/over-static.yaml",
		"over-strict":       "-f testdata/over-static.yaml --strict",
		"rescued-open":      "-f testdata/rescued.jsonl --at 3420ms",
		"rescued-charged":   "-f testdata/rescued.jsonl --at 5s",
	} {
		t.Run(name, func(t *testing.T) {
			got := runWith(t, "", append([]string{"explain"}, strings.Fields(args)...)...)
			require.Equal(t, exitOK, got.code, got.stderr)
			golden(t, filepath.Join("testdata", name+".golden"), got.stdout)
		})
	}
}

// The same state in other forms of input is the same answer.
func TestSameInput(t *testing.T) {
	list := contents(t, "testdata/list.yaml")
	file := runWith(t, "", "explain", "-f", "testdata/list.yaml")
	require.Empty(t, file.stderr)
	for what, stdin := range map[string]string{"YAML": list, "JSON": asJSON(t, list), "PodList and so on": typedLists(t, list)} {
		require.Equal(t, body(file.stdout), body(runWith(t, stdin, "explain", "-f", "-").stdout), what)
	}
	require.Equal(t, file.stdout, runWith(t, "", "--filename", "testdata/list.yaml", "-n", "tenant").stdout, "without the subcommand")
	require.Equal(t, body(file.stdout), body(runWith(t, list, "-f", "testdata/list.yaml", "-f", "-").stdout), "the same objects twice")
	at2s := runWith(t, "", "-f", recordings+"basic.jsonl", "--at", "2s")
	require.Equal(t, body(at2s.stdout), body(runWith(t, contents(t, recordings+"basic.jsonl"), "-f", "-", "--at", "2s").stdout))
	require.Equal(t, strings.ReplaceAll(body(at2s.stdout), "basic-p8zd5", "tenant"), body(file.stdout), "the file is the recording at 2 s")
}

// TestReadme holds the README to what the program prints.
func TestReadme(t *testing.T) {
	for _, file := range []string{"README.md", "../../README.md"} {
		blocks := strings.Split(contents(t, file), "$ go -C examples/explain run . ")[1:]
		require.NotEmpty(t, blocks)
		for _, block := range blocks {
			block, _, ok := strings.Cut(block, "```")
			require.True(t, ok)
			args, want, _ := strings.Cut(block, "\n")
			if want != "" { // the others are written into files
				args, _, _ = strings.Cut(args, " || ")
				require.Equal(t, want, runWith(t, "", strings.Fields(args)...).stdout)
			}
		}
	}
}

// -o json and -o yaml have no field that the documented types do not have.
func TestSchema(t *testing.T) {
	for args, into := range map[string]any{
		"explain -f testdata/drain --budget limits.memory=6Gi -o json":  &Explanation{},
		"explain -f testdata/events.yaml -f testdata/list.yaml -o json": &Explanation{},
		"forecast -f testdata/drain -o json":                            &Forecast{},
	} {
		decoder := json.NewDecoder(strings.NewReader(runWith(t, "", strings.Fields(args)...).stdout))
		decoder.DisallowUnknownFields()
		require.NoError(t, decoder.Decode(into), args)
	}
	got := runWith(t, "", "explain", "-f", "testdata/list.yaml", "-o", "jsonpath={.apiVersion} {.kind} {.namespaces[*].migrations[*].state}")
	require.Equal(t, "headroom.vmquota.io/v1alpha1 Explanation blocked", got.stdout, got.stderr)
}

// A migration that KubeVirt keeps waiting does not wait for its quota.
func TestWaitsForKubeVirt(t *testing.T) {
	list := strings.Replace(contents(t, "testdata/list.yaml"), "migrationRejectedByResourceQuota", "migrationBlockedByUtilityVolumes", 1)
	got := runWith(t, list, "explain", "-f", "-")
	require.Contains(t, got.stdout, "KubeVirt waits until the utility volumes of the virtual machine are detached.", got.stderr)
	got = runWith(t, list, "explain", "-f", "-", "-o", "jsonpath={.namespaces[*].migrations[*].waitsFor}")
	require.Equal(t, "UtilityVolumes", got.stdout, got.stderr)
}

// What headroom has told about a quota, and who leads, is read from files as from a cluster.
func TestEventsAndLeader(t *testing.T) {
	got := runWith(t, "", "explain", "-f", "testdata/list.yaml", "-f", "testdata/events.yaml")
	require.Contains(t, got.stdout, "Event HeadroomRefused on ResourceQuota q, last at 2026-11-23 14:05:00 UTC: the API server refuses it\n")
	require.NotContains(t, got.stdout, "an older one")
	require.Contains(t, got.stdout, "headroom-7d9f enforces the limits: it holds Lease headroom/headroom.")
	require.Equal(t, "passed over 1 that have nothing to do with the quota of migrations: 1 Event\n", got.stderr)
	got = runWith(t, contents(t, "testdata/events.yaml"), "explain", "-f", "testdata/list.yaml", "-f", "-")
	require.Contains(t, got.stdout, "headroom-7d9f has not renewed Lease headroom/headroom since 2026-11-23 14:05:00 UTC: no controller\n")
	released := strings.Replace(contents(t, "testdata/events.yaml"), "holderIdentity: headroom-7d9f", `holderIdentity: ""`, 1)
	require.Contains(t, runWith(t, released, "explain", "-f", "testdata/list.yaml", "-f", "-").stdout, "Nobody holds Lease")
}

func TestCobra(t *testing.T) {
	require.Contains(t, runWith(t, "", "--version").stdout, "kubectl headroom version ")
	require.Contains(t, runWith(t, "", "completion", "bash").stdout, "kubectl-headroom")
	require.Contains(t, runWith(t, "", "__complete", "forecast", "--par").stdout, "--parallel")
	help := runWith(t, "", "forecast", "-h")
	for _, flag := range []string{"--filename", "--recursive", "--kubeconfig", "--namespace", "--all-namespaces", "--overhead", "--output"} {
		require.Contains(t, help.stdout, flag)
	}
}

// TestPicture holds the picture that the documentation shows to what is drawn.
func TestPicture(t *testing.T) {
	got := runWith(t, "", "explain", "-f", "testdata/rescued.jsonl", "-o", "svg")
	require.Empty(t, got.stderr)
	golden(t, "rescued.svg", got.stdout)
	for _, name := range []string{"basic", "abort", "fail", "vmidelete", "autolimits"} {
		got := runWith(t, "", "explain", "-f", recordings+name+".jsonl", "-o", "svg", "--resource", "limits.cpu", "--budget", "limits.cpu=1")
		require.Equal(t, exitOK, got.code, got.stderr)
		require.Contains(t, got.stdout, "/q: limits.cpu<")
		require.NotContains(t, got.stdout, "limits.memory")
		require.NotContains(t, got.stdout, "NaN")
	}
	for _, text := range []string{"blocked: quota refuses", "charged: both pods count", "over for KubeVirt"} {
		require.Contains(t, got.stdout, text)
	}
}

func asJSON(t *testing.T, data string) string {
	t.Helper()
	converted, err := yaml.YAMLToJSON([]byte(data))
	require.NoError(t, err)
	return string(converted)
}

// typedLists turns a List into one list for every kind, as the API server has them: the items
// do not say what they are.
func typedLists(t *testing.T, data string) string {
	t.Helper()
	var docs []string
	for _, item := range objectsOf(t, data) {
		kind, version := item["kind"].(string), item["apiVersion"].(string)
		delete(item, "kind")
		delete(item, "apiVersion")
		doc, err := yaml.Marshal(map[string]any{"kind": kind + "List", "apiVersion": version, "items": []any{item}})
		require.NoError(t, err)
		docs = append(docs, string(doc))
	}
	return strings.Join(docs, "---\n")
}

// objectsOf returns the items of a List as JSON values.
func objectsOf(t *testing.T, data string) []map[string]any {
	t.Helper()
	var list struct{ Items []map[string]any }
	require.NoError(t, json.Unmarshal([]byte(asJSON(t, data)), &list))
	return list.Items
}

func TestWhyAClaimThatIsLeftCounts(t *testing.T) {
	left := quota.Migration{UID: "m", State: quota.Charged, Over: true, Shares: []quota.Share{{Traits: quota.Traits{Claim: true}}}}
	require.Contains(t, tenant{}.whyCharged(left), "the claim that it has left still counts")
}
