package rancher_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/watch"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/rancher"
)

func TestNewNeedsALedger(t *testing.T) {
	_, err := rancher.New(rancher.Config{})
	require.ErrorContains(t, err, "Ledger")
}

func TestReadsShowStatic(t *testing.T) {
	s := newStore(t)
	s.create(raised("limits.cpu=4 pods=0", "limits.cpu=5 pods=1"))
	plain := quotaOf("limits.cpu=7")
	plain.Name = "plain"
	s.create(plain)

	shown := s.shown()
	require.Equal(t, "limits.cpu=4 pods=0", amounts(shown.Spec.Hard), "a zero is a limit")
	require.Equal(t, s.stored().ResourceVersion, shown.ResourceVersion)
	require.Equal(t, s.stored().Annotations, shown.Annotations, "so that they survive what is written back")
	all, err := s.decorated.List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, all.Items, 2)
	require.Equal(t, "limits.cpu=7", amounts(all.Items[0].Spec.Hard))
	require.Equal(t, "limits.cpu=4 pods=0", amounts(all.Items[1].Spec.Hard))
}

// An edit by somebody else, beside a raise, is the new static limit.
func TestReadsShowWhatOthersEdited(t *testing.T) {
	s := newStore(t)
	rq := raised("limits.cpu=4 pods=9", "limits.cpu=5 pods=10")
	rq.Spec.Hard["limits.cpu"] = list("x=6")["x"]
	require.Equal(t, "limits.cpu=6 pods=9", amounts(s.shim.Shown(rq).Spec.Hard))
}

func TestReadsShowAnUnreadableRaiseAsItIs(t *testing.T) {
	s := newStore(t)
	rq := raised("limits.cpu=4", "limits.cpu=5")
	rq.Annotations[applier.StaticAnnotation] = "null"
	require.Same(t, rq, s.shim.Shown(rq))
}

func TestShownTwiceIsShownOnce(t *testing.T) {
	s := newStore(t)
	once := s.shim.Shown(raised("limits.cpu=4", "limits.cpu=5"))
	require.Equal(t, jsonOf(t, once), jsonOf(t, s.shim.Shown(once)))
}

// caches are the read sides of one cache: decorated ones, and what is inside.
func caches(t *testing.T, s *store, quotas ...*corev1.ResourceQuota) (listers.ResourceQuotaLister, cache.Indexer, cache.Indexer) {
	raw := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for _, rq := range quotas {
		require.NoError(t, raw.Add(rq))
	}
	return s.shim.Lister(listers.NewResourceQuotaLister(raw)), s.shim.Indexer(raw), raw
}

func TestCachedObjectsAreNotModified(t *testing.T) {
	s := newStore(t)
	rq := raised("limits.cpu=4", "limits.cpu=5")
	before := jsonOf(t, rq)
	lister, indexer, raw := caches(t, s, rq)
	require.NoError(t, indexer.AddIndexers(cache.Indexers{"cpu": func(o any) ([]string, error) {
		return []string{amounts(o.(*corev1.ResourceQuota).Spec.Hard)}, nil
	}}))
	see := func(o any) {
		t.Helper()
		shown := o.(*corev1.ResourceQuota)
		require.Equal(t, "limits.cpu=4", amounts(shown.Spec.Hard))
		shown.Spec.Hard["limits.cpu"] = list("x=99")["x"]
		shown.Annotations["x"] = "y"
		shown.Labels["x"] = "y"
	}
	one := func(list []any, err error) any {
		t.Helper()
		require.NoError(t, err)
		require.Len(t, list, 1)
		return list[0]
	}

	quotas, err := lister.List(labels.Everything())
	require.NoError(t, err)
	see(quotas[0])
	quotas, err = lister.ResourceQuotas("tenant").List(labels.Everything())
	require.NoError(t, err)
	see(quotas[0])
	got, err := lister.ResourceQuotas("tenant").Get("q")
	require.NoError(t, err)
	see(got)
	see(one(indexer.List(), nil))
	see(one(indexer.ByIndex("cpu", "limits.cpu=4")))
	see(one(indexer.Index("cpu", rq)))
	item, exists, err := indexer.GetByKey("tenant/q")
	require.NoError(t, err)
	require.True(t, exists)
	see(item)
	item, exists, err = indexer.Get(rq)
	require.NoError(t, err)
	require.True(t, exists)
	see(item)
	none, err := raw.ByIndex("cpu", "limits.cpu=5")
	require.NoError(t, err)
	require.Empty(t, none, "what is shown is indexed")

	require.Equal(t, before, jsonOf(t, rq))
}

// What is missing is missing.
func TestCachesPassErrorsOn(t *testing.T) {
	s := newStore(t)
	lister, indexer, _ := caches(t, s)
	_, err := lister.ResourceQuotas("tenant").Get("q")
	require.ErrorContains(t, err, "not found")
	item, exists, err := indexer.GetByKey("tenant/q")
	require.NoError(t, err)
	require.False(t, exists)
	require.Nil(t, item)
	_, err = indexer.ByIndex("none", "")
	require.Error(t, err)
	quotas, err := lister.List(labels.Everything())
	require.NoError(t, err)
	require.Empty(t, quotas)
}

func TestQuotasWithoutMigrationsAreNotCopied(t *testing.T) {
	s := newStore(t)
	rq := quotaOf("limits.cpu=4")
	rq.Annotations = map[string]string{"other": "x"}
	lister, indexer, _ := caches(t, s, rq)
	require.Same(t, rq, s.shim.Shown(rq))
	got, err := lister.ResourceQuotas("tenant").Get("q")
	require.NoError(t, err)
	require.Same(t, rq, got)
	item, _, err := indexer.GetByKey("tenant/q")
	require.NoError(t, err)
	require.Same(t, rq, item)
	require.Same(t, rq, indexer.List()[0])
	all := []*corev1.ResourceQuota{rq, rq}
	require.Same(t, &all[0], &s.shim.ShownAll(all)[0], "nor is the slice")
	answer := &corev1.ResourceQuotaList{Items: []corev1.ResourceQuota{*rq}}
	require.Same(t, answer, s.shim.ShownList(answer))
	stored, err := s.shim.Stored(ctx, rq)
	require.NoError(t, err)
	require.Same(t, rq, stored, "nor what is written")
	require.Zero(t, testing.AllocsPerRun(100, func() { s.shim.ShownAll(all) }))
}

// A slice that has one raised quota is not written to either.
func TestSharedSlicesAreNotModified(t *testing.T) {
	s := newStore(t)
	plain, high := quotaOf("limits.cpu=4"), raised("limits.cpu=4", "limits.cpu=5")
	all := []*corev1.ResourceQuota{plain, high, high}
	shown := s.shim.ShownAll(all)
	require.Same(t, plain, shown[0])
	require.Equal(t, "limits.cpu=4", amounts(shown[2].Spec.Hard))
	require.Same(t, high, all[1])
	require.Same(t, high, all[2])
	answer := &corev1.ResourceQuotaList{Items: []corev1.ResourceQuota{*plain, *high}}
	require.Equal(t, "limits.cpu=4", amounts(s.shim.ShownList(answer).Items[1].Spec.Hard))
	require.Equal(t, "limits.cpu=5", amounts(answer.Items[1].Spec.Hard))
}

func TestNothingIsShownOfNothing(t *testing.T) {
	s := newStore(t)
	require.Nil(t, s.shim.Shown(nil))
	require.Nil(t, s.shim.ShownAll(nil))
	require.Nil(t, s.shim.ShownList(nil))
	require.Nil(t, s.shim.ShownObject(nil))
	require.Nil(t, s.shim.Watch(nil))
	pod := &corev1.Pod{}
	require.Same(t, pod, s.shim.ShownObject(pod))
	stored, err := s.shim.Stored(ctx, nil)
	require.NoError(t, err)
	require.Nil(t, stored)
}

func TestWatchShowsStatic(t *testing.T) {
	s := newStore(t)
	inner := watch.NewFake()
	shown := s.shim.Watch(inner)
	go inner.Modify(raised("limits.cpu=4", "limits.cpu=5"))
	event := <-shown.ResultChan()
	require.Equal(t, watch.Modified, event.Type)
	require.Equal(t, "limits.cpu=4", amounts(event.Object.(*corev1.ResourceQuota).Spec.Hard))
	gone := &metav1.Status{Reason: metav1.StatusReasonExpired}
	go inner.Error(gone)
	event = <-shown.ResultChan()
	require.Equal(t, watch.Event{Type: watch.Error, Object: gone}, event)
	shown.Stop()
	shown.Stop()
	require.True(t, inner.IsStopped())
	_, open := <-shown.ResultChan()
	require.False(t, open)
}

// Nobody takes the event, and the watch is stopped all the same.
func TestWatchStopsWithAnEventInHand(t *testing.T) {
	s := newStore(t)
	inner := watch.NewFakeWithChanSize(1, false)
	inner.Add(quotaOf("limits.cpu=4"))
	shown := s.shim.Watch(inner)
	shown.Stop()
	for range shown.ResultChan() { // until it is closed
	}
}

func TestHandlersSeeStatic(t *testing.T) {
	s := newStore(t)
	var seen []string
	note := func(what string, o any) {
		if tombstone, ok := o.(cache.DeletedFinalStateUnknown); ok {
			what, o = what+" unseen "+tombstone.Key, tombstone.Obj
		}
		seen = append(seen, what+" "+amounts(o.(*corev1.ResourceQuota).Spec.Hard))
	}
	handler := s.shim.Handler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc:    func(o any, initial bool) { note(map[bool]string{true: "first", false: "add"}[initial], o) },
		UpdateFunc: func(before, after any) { note("from", before); note("to", after) },
		DeleteFunc: func(o any) { note("delete", o) },
	})
	before, after := raised("limits.cpu=4", "limits.cpu=5"), raised("limits.cpu=6", "limits.cpu=7")
	handler.OnAdd(before, true)
	handler.OnUpdate(before, after)
	handler.OnDelete(after)
	handler.OnDelete(cache.DeletedFinalStateUnknown{Key: "tenant/q", Obj: after})
	require.Equal(t, []string{
		"first limits.cpu=4", "from limits.cpu=4", "to limits.cpu=6", "delete limits.cpu=6", "delete unseen tenant/q limits.cpu=6",
	}, seen)
}
