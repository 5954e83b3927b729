//go:build unix

package main

import (
	"context"
	"encoding/pem"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
)

// What the program counts is that of migrations that end with everything as it was.
func TestMigrations(t *testing.T) {
	p, err := readPattern("../../migration/testdata/recordings/basic.jsonl")
	require.NoError(t, err)
	api := start(newServer(p, size{namespaces: 9, machines: 2, large: 3, kept: 1}))
	defer api.Close()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	b, err := newBench(&rest.Config{Host: api.URL, TLSClientConfig: rest.TLSClientConfig{CAData: certificate}}, 4)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	require.NoError(t, b.Start(ctx))
	go b.Work(ctx)

	counted, err := b.migrate(1, 4, 0, 2)
	require.NoError(t, err)
	require.Equal(t, 4, counted.Over)
	require.Zero(t, counted.Raised, "quotas that are not as they were")
	require.Len(t, counted.Delays, 4)
	require.Equal(t, 12.0, counted.of("GET"), "for each one list of migrations, of VMIs and of pods")
	require.Equal(t, 12.0, counted.of("WATCH"))
	require.GreaterOrEqual(t, counted.of("PUT"), 4.0)

	counted, err = b.migrate(1, 4, 1, 4)
	require.NoError(t, err)
	require.Zero(t, counted.Raised)
	require.Zero(t, counted.of("GET")+counted.of("WATCH"), "what is watched already is not read")
}
