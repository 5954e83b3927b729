package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/ledger/applier"
)

// raisedByApplier is a quota of which the applier has raised the limits.
const raisedByApplier = `
apiVersion: v1
kind: ResourceQuota
metadata:
  name: q
  namespace: tenant
  annotations:
    headroom.vmquota.io/static: '{"limits.cpu":"4"}'
    headroom.vmquota.io/applied: '{"limits.cpu":"5"}'
spec: {hard: {limits.cpu: "5"}}
status: {hard: {limits.cpu: "5"}, used: {limits.cpu: "3"}}
`

func TestStaticOfARaisedQuota(t *testing.T) {
	got := explainWith(t, raisedByApplier, "-f", "-")
	require.Equal(t, exitOK, got.code, got.stderr)
	require.Contains(t, got.stdout, "ResourceQuota q: spec.hard must come down: no migration needs the room.")
	require.Regexp(t, `limits\.cpu +4 +3 +3 +0 +1 +5 +4\n`, got.stdout)

	got = explainWith(t, strings.Replace(raisedByApplier, `"limits.cpu":"4"`, `"limits.cpu":"four"`, 1), "-f", "-")
	require.Equal(t, exitOK, got.code, got.stderr)
	require.Regexp(t, `limits\.cpu +5 +3 +3 +0 +2 +5\n`, got.stdout)
	require.Contains(t, got.stdout, "ResourceQuota tenant/q: annotation headroom.vmquota.io/static: ")
	require.Contains(t, strings.Join(strings.Fields(got.stdout), " "), "STATIC is spec.hard.")
}

// What a quota says goes before what its history looks like.
func TestStaticOfARaiseInARecording(t *testing.T) {
	events, err := recording.Read(strings.NewReader(read(t, recordings+"basic.jsonl")))
	require.NoError(t, err)
	namespace := events[0].Object.GetNamespace()
	r := newReplay()
	write := func(at float64, hard string, annotated bool) corev1.ResourceList {
		rq := &corev1.ResourceQuota{}
		rq.Namespace, rq.Name, rq.Spec.Hard = namespace, "q", limits(hard)
		if annotated {
			rq = applier.WithLimits(rq, limits("limits.cpu=4"), limits(hard))
		}
		r.apply(recording.Event{At: time.Duration(at * float64(time.Second)), Type: watch.Modified, Object: rq})
		return r.tenant(namespace).static["q"]
	}
	require.True(t, sameLimits(limits("limits.cpu=4"), write(1, "limits.cpu=6", true)), "also if that is the first that is seen of it")
	require.Len(t, r.notes(namespace), 1)
	require.Contains(t, r.notes(namespace)[0], "at 1s")
	write(2, "limits.cpu=6", true)
	require.Contains(t, r.notes(namespace)[0], "at 1s")
	require.True(t, sameLimits(limits("limits.cpu=4"), write(3, "limits.cpu=4", false)))
	require.Empty(t, r.notes(namespace))
}

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
