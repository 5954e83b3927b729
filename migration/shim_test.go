package migration_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"

	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// Rancher's shim enforces these migrations where nobody keeps a ledger. Once somebody does,
// it enforces what the ledger says, and no Controller runs.
func TestOwnMigrationsOfRancherShim(t *testing.T) {
	s := serve(t, "basic", 2*time.Second)
	s.core.Resources = append(s.core.Resources, &metav1.APIResourceList{GroupVersion: vmimResource.GroupVersion().String()})
	var running atomic.Int32
	shim, err := rancher.Start(t.Context(), rancher.Config{Client: s.core, Now: time.Now, Probe: time.Millisecond, Own: func(ctx context.Context) error {
		running.Add(1)
		defer running.Add(-1)
		return s.controller(t, migration.Options{Recorder: &record.FakeRecorder{}}).Run(ctx)
	}})
	require.NoError(t, err)
	t.Cleanup(shim.Stop)
	enforces := func(bytes string) {
		t.Helper()
		require.Eventually(t, func() bool { return s.hard(t) == bytes }, time.Minute, time.Millisecond)
	}
	enforces("5547429376")

	keeper := configmap.New(s.core.CoreV1(), rancher.DefaultNamespace)
	require.NoError(t, keeper.Replace(t.Context(), s.namespace, []quota.Migration{
		{UID: "another", State: quota.Charged, Surge: corev1.ResourceList{"limits.memory": resource.MustParse("1Gi")}},
	}))
	require.NoError(t, s.core.Tracker().Add(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: rancher.DefaultNamespace}}))
	enforces("3847456512")
	require.Zero(t, running.Load())
}

// A Controller that is stopped before its caches have synced leaves nothing behind.
func TestRunThatCannotStart(t *testing.T) {
	s := serve(t, "basic", 2*time.Second)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	before := runtime.NumGoroutine()
	for range 3 {
		require.ErrorIs(t, s.controller(t, migration.Options{}).Run(ctx), context.Canceled)
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, time.Minute, time.Millisecond) // Eventually has one
}
