package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

func asJSON(t *testing.T, data []byte) string {
	t.Helper()
	converted, err := yaml.YAMLToJSON(data)
	require.NoError(t, err)
	return string(converted)
}

// typedLists turns a List into one list for every kind, as the API server has them:
// the items do not say what they are.
func typedLists(t *testing.T, data []byte) string {
	t.Helper()
	var list struct{ Items []map[string]any }
	require.NoError(t, yaml.Unmarshal(data, &list))
	var docs []string
	for _, item := range list.Items {
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
func objectsOf(t *testing.T, data []byte) []map[string]any {
	t.Helper()
	var list struct{ Items []map[string]any }
	require.NoError(t, json.Unmarshal([]byte(asJSON(t, data)), &list))
	return list.Items
}
