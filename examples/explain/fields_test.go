package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

func TestCheckFields(t *testing.T) {
	for name, test := range map[string]struct {
		object metav1.Object
		json   string
		want   string
	}{
		"guest":      {&kubevirtv1.VirtualMachineInstance{}, `{"spec":{"domain":{"devices":{},"memory":{"guest":"much"}}}}`, `spec.domain.memory.guest: "much" is not a quantity, as 500m and 2Gi are`},
		"volume":     {&corev1.Pod{}, `{"spec":{"volumes":[{"name":"v","emptyDir":{"sizeLimit":"x"}}]}}`, `spec.volumes[0].emptyDir.sizeLimit: "x" is not a quantity, as 500m and 2Gi are`},
		"time":       {&corev1.Pod{}, `{"metadata":{"creationTimestamp":"now"}}`, `metadata.creationTimestamp: parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006"`},
		"boolean":    {&corev1.ResourceQuota{}, `{"spec":{"hard":{"limits.cpu":true}}}`, `spec.hard[limits.cpu]: "true" is not a quantity, as 500m and 2Gi are`},
		"list":       {&corev1.ResourceQuota{}, `{"spec":[]}`, `spec: array where struct belongs`},
		"object":     {&corev1.ResourceQuota{}, `{"spec":{"scopes":{}}}`, `spec.scopes: object where slice belongs`},
		"number":     {&corev1.ResourceQuota{}, `{"spec":{"scopes":[7]}}`, `spec.scopes: number where string belongs`},
		"annotation": {&corev1.ResourceQuota{}, `{"metadata":{"annotations":3}}`, `metadata.annotations: number where map belongs`},
	} {
		t.Run(name, func(t *testing.T) {
			var tree map[string]any
			require.NoError(t, json.Unmarshal([]byte(test.json), &tree))
			require.EqualError(t, checkFields(test.object, tree, true), test.want)
			require.NoError(t, checkFields(test.object, tree, false))
		})
	}
}

// FuzzCheckFields compares with encoding/json alone: what is not refused can be read.
func FuzzCheckFields(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("testdata", "rescued.jsonl"))
	require.NoError(f, err)
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var raw struct{ Object json.RawMessage }
		require.NoError(f, json.Unmarshal(lines.Bytes(), &raw))
		f.Add([]byte(raw.Object))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var tree map[string]any
		if json.Unmarshal(data, &tree) != nil {
			return
		}
		for _, object := range []metav1.Object{&corev1.ResourceQuota{}, &corev1.Pod{}, &kubevirtv1.VirtualMachineInstance{}} {
			if checkFields(object, tree, true) == nil {
				require.NoError(t, json.Unmarshal(data, object))
			}
		}
	})
}
