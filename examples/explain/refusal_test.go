package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const refusalOfVM1 = `
---
apiVersion: v1
kind: Event
metadata: {name: vm1.1, namespace: tenant}
involvedObject: {kind: VirtualMachineInstance, name: vm1, uid: UID}
reason: FailedCreate
lastTimestamp: "2099-01-01T00:00:00Z"
message: 'Error creating pod: pods "virt-launcher-vm1-x" is forbidden: exceeded quota: q, requested: limits.memory=3000000000, used: limits.memory=2773714688, limited: limits.memory=2773714688'
`

// A target pod that needs more than its source is seen by the event of its refusal, in
// files and in a cluster; other events are skipped with a note.
func TestRefusalsAreRead(t *testing.T) {
	list := read(t, "testdata/list.yaml")
	var uid string
	for _, o := range objectsOf(t, []byte(list)) {
		if o["kind"] == "VirtualMachineInstance" {
			uid = o["metadata"].(map[string]any)["uid"].(string)
		}
	}
	require.NotEmpty(t, uid)
	event := strings.Replace(refusalOfVM1, "UID", uid, 1)
	require.NotContains(t, explainWith(t, list, "-f", "-").stdout, "3000000000")
	got := explainWith(t, list+event, "-f", "-")
	require.Contains(t, got.stdout, "3000000000 bytes")
	require.Empty(t, got.stderr)

	got = explainWith(t, list+strings.Replace(event, "FailedCreate", "Started", 1), "-f", "-")
	require.NotContains(t, got.stdout, "3000000000")
	require.Contains(t, got.stderr, "note: skipped, they say nothing about what migrations charge: 1 Event")

	var object map[string]any
	require.NoError(t, json.Unmarshal([]byte(asJSON(t, []byte(event))), &object))
	server := &apiServer{objects: append(objectsOf(t, []byte(list)), object), pageSize: 500}
	config := server.start(t)
	got = explainWith(t, "", "--kubeconfig", config, "-n", "tenant")
	require.Contains(t, got.stdout, "3000000000 bytes")
	require.Contains(t, strings.Join(server.requests, "\n"), "fieldSelector=reason%3DFailedCreate%2CinvolvedObject.kind%3DVirtualMachineInstance")

	server.status = map[string]int{"events": http.StatusForbidden}
	got = explainWith(t, "", "--kubeconfig", config, "-n", "tenant")
	require.Equal(t, exitOK, got.code, got.stderr)
	require.Contains(t, got.stdout, "Events cannot be listed")
}
