package configmap_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/ledger/configmap"
)

// TestOnChange listens on client-go's informer.
func TestOnChange(t *testing.T) {
	ctx, s := context.Background(), newServer(t)
	require.NoError(t, configmap.New(s.CoreV1(), system).Replace(ctx, "early", blocked("1", "a")))
	l := configmap.New(s.CoreV1(), system, configmap.WithInformer(startInformer(t, s)))
	changed := make(chan string, 100)
	registration, err := l.OnChange(func(namespace string) { changed <- namespace })
	require.NoError(t, err)
	require.Equal(t, "early", <-changed)
	require.Eventually(t, registration.HasSynced, time.Minute, time.Millisecond)

	theirs := configmap.New(s.CoreV1(), system)
	require.NoError(t, theirs.Replace(ctx, tenant, blocked("1", "a")))
	require.Equal(t, tenant, <-changed)
	requireMigrations(t, l, blocked("1", "a"))
	require.NoError(t, theirs.Replace(ctx, tenant, blocked("2", "a")))
	require.Equal(t, tenant, <-changed)
	requireMigrations(t, l, blocked("2", "a"))
	require.NoError(t, l.Replace(ctx, "headroom-x", blocked("1", "a")))
	require.Equal(t, "headroom-x", <-changed)
	require.NoError(t, theirs.Replace(ctx, tenant, nil))
	require.Equal(t, tenant, <-changed)
	requireMigrations(t, l, nil)
	require.Empty(t, changed)
}

// TestOnChangeTellsNoOthers calls the handler with what an informer may have beside
// the record.
func TestOnChangeTellsNoOthers(t *testing.T) {
	i := newInformer(newServer(t))
	l := configmap.New(nil, system, configmap.WithInformer(i))
	var changed []string
	_, err := l.OnChange(func(namespace string) { changed = append(changed, namespace) })
	require.NoError(t, err)

	object := func(namespace, name, version string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: version}}
	}
	ours := object(system, "headroom-a", "1")
	i.handler.OnAdd(object(system, "kube-root-ca.crt", "1"), false)
	i.handler.OnAdd(object("other", "headroom-a", "1"), false)
	i.handler.OnUpdate(ours, ours) // a resync
	i.handler.OnDelete("nonsense")
	require.Empty(t, changed)

	i.handler.OnAdd(ours, true)
	i.handler.OnUpdate(ours, object(system, "headroom-a", "2"))
	i.handler.OnDelete(object(system, "headroom-b", "2"))
	i.handler.OnDelete(cache.DeletedFinalStateUnknown{Key: system + "/headroom-c"})
	require.Equal(t, []string{"a", "a", "b", "c"}, changed)

	_, err = configmap.New(nil, system).OnChange(func(string) {})
	require.Error(t, err)
}
