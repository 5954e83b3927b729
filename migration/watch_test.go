package migration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// While KubeVirt is not installed that is logged once, it is asked for often, and it hides no other
// failure.
func TestWaitsForKubeVirt(t *testing.T) {
	now := time.Now()
	c, err := NewController(Clients{Core: fake.NewClientset(), KubeVirt: dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())},
		Options{Now: func() time.Time { return now }})
	require.NoError(t, err)
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	ctx := klog.NewContext(t.Context(), logger)
	notFound := apierrors.NewNotFound(schema.GroupResource{}, "")
	for range 3 {
		for _, kind := range []string{migrationsKind, instancesKind, podsKind} {
			c.informers.source(kind, "").failed(ctx, notFound)
		}
		now = now.Add(2 * awayLogPause)
	}
	log := logger.GetSink().(ktesting.Underlier).GetBuffer().String()
	require.Equal(t, 1, strings.Count(log, "Waiting for KubeVirt"), log)
	require.Equal(t, 3, strings.Count(log, "Cannot list or watch"), log)

	s := c.informers.source(migrationsKind, "")
	require.LessOrEqual(t, s.spread(maxWatchPause, notFound), 5*time.Second)
	require.GreaterOrEqual(t, s.spread(maxWatchPause, apierrors.NewInternalError(errors.New("down"))), maxWatchPause)
}

// A page of a resourceVersion is of exactly that version, so the list in pages asks for none.
func TestAllMigrationsAreListedOfNoVersion(t *testing.T) {
	var query url.Values
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { query = r.URL.Query() }))
	t.Cleanup(server.Close)
	clients, err := ClientsFor(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	c, err := NewController(clients, Options{})
	require.NoError(t, err)
	s := c.informers.allMigrations()
	require.NotNil(t, s.keeps)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel) // the answer is no list
	_, err = s.ListWithContext(ctx, metav1.ListOptions{
		ResourceVersion: "5", ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, Limit: pageSize,
	})
	require.Error(t, err)
	require.Equal(t, url.Values{"limit": {"1000"}}, query)
}

// The typed client of ClientsFor reads the same as a dynamic one, from the list and from the watch,
// and knows that a watch has expired.
func TestTypedClient(t *testing.T) {
	const one = `{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachineInstance%s","metadata":{"namespace":"tenant","name":"a","uid":"1"},"status":{"phase":"Running"}}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		suffix := map[string]string{
			"/apis/kubevirt.io/v1/namespaces/tenant/virtualmachineinstances":          "",
			"/apis/kubevirt.io/v1/namespaces/tenant/virtualmachineinstancemigrations": "Migration",
		}[r.URL.Path]
		object := fmt.Sprintf(one, suffix)
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") != "" {
			_, _ = fmt.Fprintf(w, `{"type":"MODIFIED","object":%s}`, object)
			_, _ = fmt.Fprint(w, `{"type":"ERROR","object":{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Expired","code":410}}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachineInstance%sList","metadata":{"resourceVersion":"5"},"items":[%s]}`, suffix, object)
	}))
	t.Cleanup(server.Close)
	clients, err := ClientsFor(&rest.Config{Host: server.URL})
	require.NoError(t, err)
	dynamicOnly := clients
	dynamicOnly.Typed = nil
	kept := map[string][]any{}
	for _, clients := range []Clients{clients, dynamicOnly} {
		c, err := NewController(clients, Options{})
		require.NoError(t, err)
		for _, kind := range []string{migrationsKind, instancesKind} {
			s := c.informers.source(kind, "tenant")
			list, err := s.ListWithContext(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			_, isDynamic := list.(*unstructured.UnstructuredList)
			require.Equal(t, clients.Typed == nil, isDynamic)
			listed, err := meta.ExtractList(list)
			require.NoError(t, err)
			require.Len(t, listed, 1)
			w, err := s.WatchWithContext(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			for _, object := range []any{listed[0], (<-w.ResultChan()).Object} {
				object, err = trimmed(object)
				require.NoError(t, err)
				kept[kind] = append(kept[kind], object)
			}
			require.True(t, apierrors.IsResourceExpired(apierrors.FromObject((<-w.ResultChan()).Object)))
		}
	}
	require.Len(t, kept, 2)
	for _, objects := range kept {
		for _, object := range objects {
			require.Empty(t, cmp.Diff(objects[0], object))
		}
	}
	vmim := kept[migrationsKind][0].(*kubevirtv1.VirtualMachineInstanceMigration)
	require.Equal(t, "VirtualMachineInstanceMigration", vmim.Kind, "without it a recorder of another scheme records no event")
	require.EqualValues(t, "1", vmim.UID)
}

// A claim that a migration has left behind may be there for weeks, so its namespace is watched only
// where a quota counts it.
func TestWorthWatching(t *testing.T) {
	storage := corev1.ResourceList{corev1.ResourceRequestsStorage: resource.MustParse("10Mi")}
	counting := []*corev1.ResourceQuota{{Status: corev1.ResourceQuotaStatus{Used: storage}}}
	left := quota.Migration{State: quota.Charged, Over: true, Surge: storage, Shares: []quota.Share{{Traits: quota.Traits{Claim: true}}}}
	require.False(t, worthWatching(nil, counting))
	require.False(t, worthWatching([]quota.Migration{left}, []*corev1.ResourceQuota{{}}))
	require.True(t, worthWatching([]quota.Migration{left}, counting))
	require.True(t, worthWatching([]quota.Migration{left, {State: quota.Queued}}, nil))
}
