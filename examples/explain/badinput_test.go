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

const goodPod = `apiVersion: v1
kind: Pod
metadata: {name: p, labels: {kubevirt.io: virt-launcher}}
spec: {containers: [{name: c, resources: {limits: {cpu: 1}}}]}
`

// Each fault is an error that names the object and the field, and nothing else is printed.
func TestBadObjects(t *testing.T) {
	for name, test := range map[string]struct{ content, want string }{
		"misspelt field":     {strings.Replace(goodQuota, "spec: {hard:", "spec: {hardd:", 1), `ResourceQuota tenant/q: unknown field "spec.hardd"`},
		"stored by a server": {strings.Replace(strings.Replace(goodQuota, "spec: {hard:", "spec: {hardd:", 1), "name: q", `name: q, resourceVersion: "7"`, 1), `ResourceQuota tenant/q: unknown field "spec.hardd"`},
		"misspelt in a VMIM": {strings.Replace(pendingMigration, "vmiName", "vmName", 1), `VirtualMachineInstanceMigration tenant/m1: unknown field "spec.vmName"`},
		"misspelt in a pod":  {strings.Replace(goodPod, "limits", "limit", 1), `Pod default/p: unknown field "spec.containers[0].resources.limit"`},
		"malformed quantity": {strings.Replace(goodQuota, "8Gi", "8Gx", 1), `ResourceQuota tenant/q: spec.hard[limits.memory]: "8Gx" is not a quantity, as 500m and 2Gi are`},
		"malformed used":     {strings.Replace(goodQuota, `"0"`, "none", 1), `ResourceQuota tenant/q: status.used[limits.memory]: "none" is not a quantity, as 500m and 2Gi are`},
		"negative quantity":  {strings.Replace(goodQuota, "8Gi", "-8Gi", 1), `ResourceQuota tenant/q: spec.hard[limits.memory]: "-8Gi" is negative`},
		"huge quantity":      {strings.Replace(goodQuota, "8Gi", "1e99999999", 1), `ResourceQuota tenant/q: spec.hard[limits.memory]: "1e99999999" is out of range`},
		"tiny quantity":      {strings.Replace(goodPod, "cpu: 1", `cpu: "1e-99999999"`, 1), `Pod default/p: spec.containers[0].resources.limits.cpu: "1e-99999999" is out of range`},
		"list for an object": {strings.Replace(goodQuota, "{limits.memory: 8Gi}", "[limits.memory]", 1), `ResourceQuota tenant/q: spec.hard: array where map belongs`},
		"malformed in a pod": {strings.Replace(goodPod, "cpu: 1", "cpu: x", 1), `Pod default/p: spec.containers[0].resources.limits.cpu: "x" is not a quantity, as 500m and 2Gi are`},
		"wrong scalar":       {strings.Replace(goodPod, "spec: {", "spec: {priority: high, ", 1), `Pod default/p: spec.priority: string where int32 belongs`},
		"no name":            {strings.Replace(goodQuota, "name: q, ", "", 1), "ResourceQuota tenant: it has no name"},
		"twice, different":   {goodQuota + "---\n" + strings.Replace(goodQuota, "8Gi", "9Gi", 1), `ResourceQuota tenant/q: it was read twice, and differs`},
		"nothing to explain": {goodPod, "-: no ResourceQuota and no VirtualMachineInstanceMigration in it"},
		"of another group":   {strings.Replace(goodQuota, "v1", "example.com/v1", 1), "-: no ResourceQuota and no VirtualMachineInstanceMigration in it"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, test.want, test.content, "explain", "-f", "-") })
	}
}

// What is no Kubernetes object is an error if it was named, in the words of cli-runtime.
func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"cut.json": `{"kind": "List",`, "text.yaml": "hello\n", "nokind.yaml": "metadata: {name: q}\n", "broken.yaml": "a: b: c\n",
		"empty.yaml": "", "line.jsonl": `{"t":1,"type":"ADDED"}`, "unknown.jsonl": `{"t":1,"type":"ADDED","object":{"kind":"Node","apiVersion":"v1"}}`,
		"empty.jsonl": "", "missing.yaml": "",
	} {
		file := filepath.Join(dir, name)
		if name != "missing.yaml" {
			require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		}
		got := runWith(t, "", "-f", file)
		require.Equal(t, exitError, got.code, name)
		require.Empty(t, got.stdout, name)
		require.Contains(t, got.stderr, name)
		require.Less(t, strings.Count(got.stderr, "\n"), 4, got.stderr)
	}
}

func TestBadRequests(t *testing.T) {
	basic := recordings + "basic.jsonl"
	for args, want := range map[string]string{
		"--nope":                        "unknown flag: --nope",
		"more":                          `unknown command "more" for "kubectl headroom"`,
		"-f x --context c":              "if any flags in the group [filename context] are set none of the others can be; [context filename] were all set",
		"-f testdata/list.yaml --at 1s": "--at is a moment of a recording, and testdata/list.yaml is none",
		"--at 1s":                       "--at is a moment of a recording: name one with -f",
		"-o svg":                        "-o svg draws a whole recording: name one with -f, and leave out --at",
		"-f testdata/list.yaml -o svg":  "testdata/list.yaml: -o svg draws a recording (.jsonl)",
		"-f testdata/list.yaml -n typo": "testdata/list.yaml: no ResourceQuota and no VirtualMachineInstanceMigration in it of namespace typo",
		"-f testdata/list.yaml --budget pods=1,limits.cpu=-1": `--budget: limits.cpu: "-1" is not an amount, as 500m and 2Gi are`,
		"-f testdata/list.yaml --budget foo=1":                `--budget: no ResourceQuota limits "foo", but limits.cpu and limits.memory`,
		"-f " + basic + " --at 8s":                            basic + ": --at 8s is not in it: it begins at 0s and ends at 7.482s",
		"-f " + basic + " -n typo":                            basic + ": nothing of namespace typo in it, but of basic-p8zd5",
		"-f " + basic + " -f x.yaml":                          basic + " is a recording: name it alone",
		"-f " + basic + " -o svg --resource pods":             basic + ": no ResourceQuota in it that limits what --resource names",
		"forecast -f x --parallel 0":                          "--parallel: 0 is less than 1",
	} {
		refused(t, want, "", strings.Fields(args)...)
	}
	for _, args := range []string{"-f x --budget 8Gi", "-f x --at soon", "forecast -f x --overhead many", "-f testdata/list.yaml -o png"} {
		require.Equal(t, exitError, runWith(t, "", strings.Fields(args)...).code, args)
	}
}

// A folder such as a must-gather has much in it that has nothing to do with quota.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	}
	write("version.json", `{"major": 1}`)
	write("notes.yaml", "a: b: c\n")
	write("pod.log", "hello\n")
	write("core/nodes/node1.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: node1}\n")
	write("core/services.yaml", "apiVersion: v1\nkind: ServiceList\nitems: null\n")
	for i, item := range objectsOf(t, contents(t, "testdata/list.yaml")) {
		write("namespaces/tenant/"+string(rune('a'+i))+".json", mustJSON(t, item))
	}
	got := runWith(t, "", "explain", "-R", "-f", dir)
	require.Equal(t, exitOK, got.code, got.stderr)
	require.Equal(t, body(contents(t, "testdata/list.golden")), body(got.stdout))
	require.Equal(t, "passed over 3 that have nothing to do with the quota of migrations: 1 Node, 2 no Kubernetes object\n", got.stderr)
	require.Equal(t, exitError, runWith(t, "", "explain", "-f", dir).code, "without -R only its own files")

	write("namespaces/tenant/z.yaml", strings.Replace(goodQuota, "spec: {hard:", "spec: {hardd:", 1))
	refused(t, `ResourceQuota tenant/q: unknown field "spec.hardd"`, "", "explain", "-R", "-f", dir)
}

// A folder may have an object twice, read at different times.
func TestLaterStateCounts(t *testing.T) {
	at := func(version, limit string) string {
		return strings.NewReplacer("name: q", `name: q, resourceVersion: "`+version+`"`, "8Gi", limit).Replace(goodQuota)
	}
	for _, input := range []string{at("9", "7Gi") + "---\n" + at("10", "8Gi"), at("10", "8Gi") + "---\n" + at("9", "7Gi")} {
		require.Contains(t, runWith(t, input, "-f", "-").stdout, "8 GiB")
	}
}

// A newer server may know fields that this program does not.
func TestNewerFields(t *testing.T) {
	pod := strings.NewReplacer("name: p,", `name: p, namespace: tenant, resourceVersion: "7",`, "spec: {", "spec: {fromTheFuture: 1, ").Replace(goodPod)
	got := runWith(t, goodQuota+"---\n"+pod, "-f", "-")
	require.Equal(t, exitOK, got.code)
	require.Equal(t, "1 objects have fields that this version does not know, such as Pod tenant/p: unknown field \"spec.fromTheFuture\"\n", got.stderr)
}

func TestWhatIsMissing(t *testing.T) {
	got := runWith(t, goodQuota+"---\n"+pendingMigration, "-f", "-")
	require.Contains(t, got.stdout, "Migration m1 of VM vm1: over\n  VirtualMachineInstance vm1 does not exist, so there is nothing to move.\n")
	require.Contains(t, got.stdout, "There are no Pods of virtual machines of namespace tenant")
	got = runWith(t, goodQuota+"---\n"+strings.Replace(pendingMigration, "Pending", "Succeeded", 1), "-f", "-")
	require.Contains(t, got.stdout, "Over, and charged no more: m1 (Succeeded).")
	bare := strings.Replace(goodQuota, ", namespace: tenant", "", 1)
	require.Contains(t, runWith(t, bare, "-f", "-").stdout, "NAMESPACE default\n")
	require.Contains(t, runWith(t, bare, "-f", "-", "-n", "mine").stdout, "NAMESPACE mine\n")
}

// FuzzInput: whatever comes in, there is output or an error, never both.
func FuzzInput(f *testing.F) {
	f.Add(goodQuota + "---\n" + pendingMigration)
	f.Add(`{"kind":"PodList","apiVersion":"v1","items":[{}]}`)
	f.Add(`{"t":2,"type":"ADDED","object":{"kind":"ResourceQuota","apiVersion":"v1","spec":{"hard":{"pods":"1"}}}}`)
	f.Add("--- a\n---\n...\n%YAML 1.2\n---\n- 1\n")
	f.Fuzz(func(t *testing.T, stdin string) {
		for _, args := range []string{"explain -f -", "explain -f - -o json", "explain -f - -o svg", "forecast -f -"} {
			got := runWith(t, stdin, strings.Fields(args)...)
			require.Equal(t, got.code != exitError, got.stdout != "", got.stderr)
		}
	})
}
