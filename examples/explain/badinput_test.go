package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const goodQuota = `apiVersion: v1
kind: ResourceQuota
metadata: {name: q, namespace: tenant}
spec: {hard: {limits.memory: 8Gi}}
status: {hard: {limits.memory: 8Gi}, used: {limits.memory: "0"}}
`

const pendingMigration = `apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceMigration
metadata: {name: m1, namespace: tenant, uid: u1}
spec: {vmiName: vm1}
status: {phase: Pending}
`

// TestBadFiles has one file with each fault.
func TestBadFiles(t *testing.T) {
	firstLines := strings.Join(strings.SplitAfter(read(t, recordings+"basic.jsonl"), "\n")[:4], "")
	for name, test := range map[string]struct{ file, content, want string }{
		"no YAML":            {"q.yaml", "kind: ResourceQuota\nspec: {hard: [\n", "q.yaml:2: not YAML: did not find expected node content"},
		"no YAML, later":     {"q.yaml", goodQuota + "---\na: b\nc: d: e\n", "q.yaml:8: not YAML: mapping values are not allowed in this context"},
		"key twice":          {"q.yaml", strings.Replace(goodQuota, "spec:", "spec: {}\nspec:", 1), `q.yaml:5: not YAML: key "spec" already set in map`},
		"no JSON":            {"q.json", "{\"kind\": \"List\",\n\"items\": [}", "q.json:2: invalid character '}' looking for beginning of value"},
		"JSON cut off":       {"q.json", "{\"kind\": \"List\",\n\n\"items\": [", "q.json:3: unexpected EOF"},
		"empty":              {"q.yaml", " \n", "q.yaml: it is empty"},
		"comments only":      {"q.yaml", "# nothing\n---\n# here\n", "q.yaml: no object in it"},
		"text":               {"q.yaml", "hello\n", "q.yaml: not a Kubernetes object"},
		"no kind":            {"q.yaml", "metadata: {name: q}\n", "q.yaml: not a Kubernetes object: it has no kind"},
		"odd metadata":       {"q.yaml", "kind: Pod\nmetadata: 7\n", "q.yaml: not a Kubernetes object: its metadata is a number"},
		"unknown kind":       {"q.yaml", goodQuota + "---\nkind: Widget\napiVersion: example.com/v1\n", `q.yaml: document 2 (line 6): unknown kind "Widget" of apiVersion "example.com/v1"`},
		"misspelt kind":      {"q.yaml", strings.Replace(goodQuota, "ResourceQuota", "ResourceQuotas", 1), `q.yaml: unknown kind "ResourceQuotas" of apiVersion "v1"`},
		"other group":        {"q.yaml", strings.Replace(goodQuota, "v1", "example.com/v1", 1), `q.yaml: unknown kind "ResourceQuota" of apiVersion "example.com/v1"`},
		"unknown in a list":  {"q.json", `{"kind": "List", "apiVersion": "v1", "items": [{"kind": "Widget", "apiVersion": "example.com/v1"}]}`, `q.json: items[0]: unknown kind "Widget" of apiVersion "example.com/v1"`},
		"no list":            {"q.json", `{"kind": "PodList", "apiVersion": "v1", "items": 3}`, `q.json: PodList: items is not a list`},
		"no name":            {"q.yaml", strings.Replace(goodQuota, "name: q, ", "", 1), "q.yaml: a ResourceQuota without a name"},
		"malformed quantity": {"q.yaml", strings.Replace(goodQuota, "8Gi", "8Gx", 1), `q.yaml: ResourceQuota tenant/q: spec.hard[limits.memory]: "8Gx" is not a quantity, as 500m and 2Gi are`},
		"malformed used":     {"q.yaml", strings.Replace(goodQuota, `"0"`, "none", 1), `q.yaml: ResourceQuota tenant/q: status.used[limits.memory]: "none" is not a quantity, as 500m and 2Gi are`},
		"negative quantity":  {"q.yaml", strings.Replace(goodQuota, "8Gi", "-8Gi", 1), `q.yaml: ResourceQuota tenant/q: spec.hard[limits.memory]: "-8Gi" is negative`},
		"endless quantity":   {"q.yaml", strings.Replace(goodQuota, "8Gi", "1e9999999", 1), `q.yaml: ResourceQuota tenant/q: spec.hard[limits.memory]: "1e9999999" is out of range`},
		"list for an object": {"q.yaml", strings.Replace(goodQuota, "{limits.memory: 8Gi}", "[limits.memory]", 1), `q.yaml: ResourceQuota tenant/q: spec.hard: a list where an object belongs`},
		"malformed in a pod": {"p.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, resources: {limits: {cpu: x}}}]}\n", `p.yaml: Pod p: spec.containers[0].resources.limits[cpu]: "x" is not a quantity, as 500m and 2Gi are`},
		"wrong scalar":       {"p.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {priority: high}\n", `p.yaml: Pod p: spec.priority: string where a whole number belongs`},
		"no VMI":             {"m.yaml", goodQuota + "---\n" + pendingMigration, `m.yaml: document 2 (line 6): VirtualMachineInstanceMigration tenant/m1: its VirtualMachineInstance "vm1" is not in the input`},
		"twice, different":   {"q.yaml", goodQuota + "---\n" + strings.Replace(goodQuota, "8Gi", "9Gi", 1), `q.yaml: document 2 (line 6): ResourceQuota tenant/q is also in q.yaml: document 1 (line 1), and they differ`},
		"nothing to explain": {"p.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n", "p.yaml: no ResourceQuota and no VirtualMachineInstanceMigration in it"},
		"line cut off":       {"r.jsonl", firstLines[:len(firstLines)-9], "r.jsonl:4: unexpected end of JSON input"},
		"no time":            {"r.jsonl", firstLines + `{"type":"ADDED","object":{}}`, "r.jsonl:5: not an event of a recording: it has no time t"},
		"negative time":      {"r.jsonl", firstLines + `{"t":-1,"type":"ADDED","object":{}}`, "r.jsonl:5: time t: -1 is not a number of seconds since the first event"},
		"no object":          {"r.jsonl", firstLines + `{"t":1,"type":"ADDED"}`, "r.jsonl:5: not an event of a recording: it has no object"},
		"no type":            {"r.jsonl", firstLines + `{"t":1,"type":"BOOKMARK","object":{}}`, `r.jsonl:5: unknown event type "BOOKMARK"`},
		"unknown recorded":   {"r.jsonl", firstLines + `{"t":1,"type":"ADDED","object":{"kind":"Node","apiVersion":"v1"}}`, `r.jsonl:5: unknown kind "Node" of apiVersion "v1"`},
		"bad recorded":       {"r.jsonl", strings.Replace(firstLines, `"limits.memory":"20Gi"`, `"limits.memory":"20Gx"`, 1), `r.jsonl:1: ResourceQuota basic-p8zd5/q: spec.hard[limits.memory]: "20Gx" is not a quantity, as 500m and 2Gi are`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			require.NoError(t, os.WriteFile(test.file, []byte(test.content), 0o600))
			refused(t, exitInput, "explain: "+test.want+"\n", "", "-f", test.file)
		})
	}
}

// TestBadRequests asks for what the input does not have.
func TestBadRequests(t *testing.T) {
	basic := recordings + "basic.jsonl"
	dir := t.TempDir()
	empty, noFiles := filepath.Join(dir, "empty"), filepath.Join(dir, "nofiles")
	require.NoError(t, os.MkdirAll(empty, 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(noFiles, "sub.yaml"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(noFiles, ".hidden.yaml"), []byte("x"), 0o600))
	copied := filepath.Join(dir, "copy.jsonl")
	require.NoError(t, os.WriteFile(copied, []byte(read(t, basic)), 0o600))
	orphan := filepath.Join(dir, "orphan.jsonl")
	require.NoError(t, os.WriteFile(orphan, []byte(withoutVMIs(read(t, basic))), 0o600))

	for name, test := range map[string]struct {
		stdin string
		args  []string
		want  string
	}{
		"no file":             {"", []string{"-f", filepath.Join(dir, "no.yaml")}, filepath.Join(dir, "no.yaml") + ": no such file or directory"},
		"empty folder":        {"", []string{"-f", empty}, empty + ": no .yaml, .yml, .json, .jsonl file in it"},
		"folders only":        {"", []string{"-f", noFiles}, noFiles + ": no .yaml, .yml, .json, .jsonl file in it"},
		"empty stdin":         {"", []string{"-f", "-"}, "standard input: it is empty"},
		"after the end":       {"", []string{"-f", basic, "--at", "8s"}, basic + ": --at 8s is after it ends, at 7.482s"},
		"before it begins":    {`{"t":2,"type":"ADDED","object":` + strings.TrimSpace(asJSON(t, []byte(goodQuota))) + "}", []string{"-f", "-", "--at", "1"}, "standard input: --at 1s is before it begins, at 2s"},
		"at of no recording":  {"", []string{"-f", "testdata/list.yaml", "--at", "1s"}, "--at is a moment of a recording, and testdata/list.yaml is none"},
		"svg of no recording": {"", []string{"-f", "testdata/list.yaml", "-o", "svg"}, "testdata/list.yaml: -o svg draws one recording (.jsonl) at a time"},
		"svg of several":      {"", []string{"-f", recordings, "-o", "svg"}, recordings + "abort.jsonl: -o svg draws one recording (.jsonl) at a time"},
		"svg of nothing":      {"", []string{"-f", basic, "-o", "svg", "--resource", "pods"}, basic + ": no quota limits what --resource names"},
		"svg elsewhere":       {"", []string{"-f", basic, "-o", "svg", "-n", "x"}, basic + ": no ResourceQuota of namespace x in it"},
		"mixed":               {"", []string{"-f", "testdata/list.yaml", "-f", basic}, basic + " is a recording and cannot be mixed with other files"},
		"namespace twice":     {"", []string{"-f", copied, "-f", basic}, basic + ": it shows namespace basic-p8zd5, as " + copied + " does"},
		"other namespace":     {"", []string{"-f", "testdata/list.yaml", "-n", "x"}, "testdata/list.yaml: nothing of namespace x in it, but of tenant"},
		"VMI never recorded":  {"", []string{"-f", orphan}, orphan + `: at 1.317s: VirtualMachineInstanceMigration basic-p8zd5/m1: its VirtualMachineInstance "vm1" is not in the recording`},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, exitInput, "explain: "+test.want+"\n", test.stdin, test.args...)
		})
	}
}

func TestBadUsage(t *testing.T) {
	for args, want := range map[string]string{
		"--nope":                             "flag provided but not defined: -nope",
		"-f x more":                          `unexpected argument "more"`,
		"-f x -o png":                        `unknown output format "png": it is table, json, yaml or svg`,
		"-n a -A":                            "-n names one namespace and -A asks for all",
		"-f x --context c":                   "-f reads files, --kubeconfig and --context a cluster: use one of them",
		"-o svg":                             "-o svg draws a recording: name one with -f",
		"-f x -o svg --at 1":                 "-o svg draws the whole recording: leave out --at",
		"--at 1":                             "--at is a moment of a recording: name one with -f",
		"-f x --resource pods":               "--resource chooses what -o svg draws",
		"-f x --at soon":                     `invalid value "soon" for flag -at: not a time such as 3.5s`,
		"-f x --at -1s":                      `invalid value "-1s" for flag -at: before the recording begins`,
		"-f x --at NaN":                      `invalid value "NaN" for flag -at: not a time such as 3.5s`,
		"-f x --budget 8Gi":                  `invalid value "8Gi" for flag -budget: "8Gi" is not of the form limits.memory=8Gi`,
		"-f x --budget limits.cpu=x":         `invalid value "limits.cpu=x" for flag -budget: limits.cpu: "x" is not a quantity, as 500m and 2Gi are`,
		"-f x --budget pods=1,limits.cpu=-1": `invalid value "pods=1,limits.cpu=-1" for flag -budget: limits.cpu: "-1" is negative`,
	} {
		refused(t, exitUsage, "explain: "+want+"\nexplain -h shows how it is used\n", "", strings.Fields(args)...)
	}
}

// refused runs the program and wants the error and nothing else.
func refused(t *testing.T, code int, want, stdin string, args ...string) {
	t.Helper()
	require.Equal(t, result{code: code, stderr: want}, explainWith(t, stdin, args...))
}

// TestFinishedMigrationWithoutVMI is no error: migrations outlive their machines.
func TestFinishedMigrationWithoutVMI(t *testing.T) {
	got := explainWith(t, goodQuota+"---\n"+strings.Replace(pendingMigration, "Pending", "Succeeded", 1), "-f", "-")
	require.Equal(t, exitOK, got.code, got.stderr)
	require.Contains(t, got.stdout, "Over, and charged no more: m1 (Succeeded).")
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

func withoutVMIs(recording string) string {
	var kept []string
	for _, line := range strings.SplitAfter(recording, "\n") {
		if !strings.Contains(line, `"kind":"VirtualMachineInstance",`) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// FuzzInput: whatever comes in, there is output or an error, never both.
func FuzzInput(f *testing.F) {
	f.Add(goodQuota + "---\n" + pendingMigration)
	f.Add(`{"kind":"PodList","apiVersion":"v1","items":[{}]}`)
	f.Add(`{"t":2,"type":"ADDED","object":{"kind":"ResourceQuota","apiVersion":"v1","spec":{"hard":{"pods":"1"}}}}`)
	f.Add("--- a\n---\n...\n%YAML 1.2\n---\n- 1\n")
	f.Fuzz(func(t *testing.T, stdin string) {
		for _, output := range []string{"table", "json", "svg"} {
			got := explainWith(t, stdin, "-f", "-", "-o", output)
			require.Equal(t, got.code == exitOK, got.stdout != "", got.stderr)
			require.Contains(t, []int{exitOK, exitInput}, got.code)
		}
	})
}
