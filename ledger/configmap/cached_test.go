package configmap_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	k8stesting "k8s.io/client-go/testing"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/quota"
)

// cached returns a ledger whose cache shows what is there when the test calls sync.
func cached(t *testing.T) (*configmap.Ledger, *server, *informer) {
	s := newServer(t)
	i := newInformer(s)
	return configmap.New(s.CoreV1(), system, configmap.WithInformer(i)), s, i
}

// another writes as another process does.
func another(t *testing.T, s *server, migrations []quota.Migration) {
	t.Helper()
	require.NoError(t, configmap.New(s.CoreV1(), system).Replace(context.Background(), tenant, migrations))
	s.ClearActions()
}

func mustReplace(t *testing.T, l ledger.Ledger, migrations []quota.Migration) {
	t.Helper()
	require.NoError(t, l.Replace(context.Background(), tenant, migrations))
}

func requireStored(t *testing.T, s *server, want []quota.Migration) {
	t.Helper()
	requireMigrations(t, configmap.New(s.CoreV1(), system), want)
	s.ClearActions()
}

// TestCacheSeesOldEvents lets the cache show, late, states that this process has
// already replaced, one after the other.
func TestCacheSeesOldEvents(t *testing.T) {
	a, b := blocked("1", "a"), blocked("2", "a")
	l, s, i := cached(t)
	var states []*corev1.ConfigMap
	for _, migrations := range [][]quota.Migration{a, b, nil, a, b, nil} {
		mustReplace(t, l, migrations)
		if migrations != nil {
			states = append(states, s.get(t, tenant))
		}
	}
	requireMigrations(t, l, nil)
	for _, state := range states {
		require.NoError(t, i.store.Add(state))
		s.ClearActions()
		requireMigrations(t, l, nil)
		mustReplace(t, l, nil)
		require.Empty(t, s.Actions(), "what this process knows is enough")
	}
	mustReplace(t, l, a)
	requireMigrations(t, l, a)
	requireStored(t, s, a)
}

// TestCacheSeesWhatIsGone lets the cache show, late, what somebody else has deleted
// meanwhile, as a live read has told.
func TestCacheSeesWhatIsGone(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, l *configmap.Ledger, s *server, i *informer) *corev1.ConfigMap{
		"of this process": func(t *testing.T, l *configmap.Ledger, s *server, _ *informer) *corev1.ConfigMap {
			mustReplace(t, l, blocked("1", "a"))
			state := s.get(t, tenant)
			another(t, s, nil)
			requireMigrations(t, l, nil) // live: the cache does not have it
			return state
		},
		"of another one": func(t *testing.T, l *configmap.Ledger, s *server, i *informer) *corev1.ConfigMap {
			another(t, s, blocked("1", "a"))
			state := s.get(t, tenant)
			i.sync(t)
			another(t, s, nil)
			mustReplace(t, l, nil) // a delete of what is not there, and then live
			return state
		},
		"before a write that failed": func(t *testing.T, l *configmap.Ledger, s *server, _ *informer) *corev1.ConfigMap {
			mustReplace(t, l, blocked("1", "a"))
			state := s.get(t, tenant)
			mustReplace(t, l, nil)
			s.fault = func(k8stesting.Action) (before, after error) { return errors.New("no route"), nil }
			require.Error(t, l.Replace(context.Background(), tenant, blocked("2", "a")))
			s.fault = nil
			requireMigrations(t, l, nil) // live: the write may have been carried out
			return state
		},
		"of a version that cannot be compared": func(t *testing.T, l *configmap.Ledger, s *server, i *informer) *corev1.ConfigMap {
			another(t, s, blocked("1", "a"))
			state := s.get(t, tenant)
			state.ResourceVersion = "odd"
			require.NoError(t, i.store.Add(state))
			another(t, s, nil)
			mustReplace(t, l, nil)
			return state
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, s, i := cached(t)
			state := prepare(t, l, s, i)
			require.NoError(t, i.store.Add(state))
			requireMigrations(t, l, nil)
			mustReplace(t, l, nil)
			mustReplace(t, l, blocked("1", "a")) // what the cache shows
			requireStored(t, s, blocked("1", "a"))
		})
	}
}

// TestLaterCacheWins holds that a cache which has caught up goes before what this
// process wrote.
func TestLaterCacheWins(t *testing.T) {
	a, b := blocked("1", "a"), blocked("2", "b")
	l, s, i := cached(t)
	mustReplace(t, l, a)
	another(t, s, b)
	i.sync(t)
	requireMigrations(t, l, b)

	mustReplace(t, l, a)
	another(t, s, nil)
	i.sync(t)
	requireMigrations(t, l, nil)
	mustReplace(t, l, nil)

	another(t, s, b)
	i.sync(t)
	s.ClearActions()
	requireMigrations(t, l, b)
	mustReplace(t, l, b)
	require.Empty(t, s.Actions())
}

// TestStaleCacheOfAnotherWriter holds that a write that was computed from a stale cache
// is a conflict, not a loss: what the other one wrote beside it survives.
func TestStaleCacheOfAnotherWriter(t *testing.T) {
	a, b := blocked("1", "a"), blocked("2", "a")
	for name, c := range map[string]struct {
		cached, theirs, ours []quota.Migration
		verbs                []string
	}{
		"update":                      {a, b, blocked("3", "c"), []string{"update", "get", "update"}},
		"delete":                      {a, b, nil, []string{"delete", "get", "delete"}},
		"create, where there is one":  {nil, b, a, []string{"create", "get", "update"}},
		"update, where there is none": {a, nil, b, []string{"update", "get", "create"}},
		"delete, where there is none": {a, nil, nil, []string{"delete", "get"}},
		"what they wrote, by chance":  {a, b, b, []string{"update", "get"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, s, i := cached(t)
			another(t, s, c.cached)
			i.sync(t)
			another(t, s, c.theirs)
			mustReplace(t, l, c.ours)
			require.Equal(t, c.verbs, s.verbs())
			requireMigrations(t, l, c.ours)
			requireStored(t, s, c.ours)
		})
	}
}

// TestDoubt holds that after a write whose answer was lost the API server is asked what
// is there: it may have been carried out, or not.
func TestDoubt(t *testing.T) {
	a, b := blocked("1", "a"), blocked("2", "a")
	timeout := apierrors.NewTimeoutError("no answer", 1)
	for name, c := range map[string]struct{ before, lost, after []quota.Migration }{
		"update":           {a, b, a},
		"update and again": {a, b, b},
		"create":           {nil, a, nil},
		"delete":           {a, nil, a},
	} {
		for _, carriedOut := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				l, s, i := cached(t)
				mustReplace(t, l, c.before)
				i.sync(t)
				s.fault = func(action k8stesting.Action) (before, after error) {
					switch {
					case action.GetVerb() == "get":
						return nil, nil
					case carriedOut:
						return nil, timeout
					}
					return timeout, nil
				}
				err := l.Replace(context.Background(), tenant, c.lost)
				require.True(t, apierrors.IsTimeout(err), err)
				s.fault = nil
				is := c.before
				if carriedOut {
					is = c.lost
				}
				s.ClearActions()
				for range 3 {
					requireMigrations(t, l, is)
				}
				if c.before != nil && c.lost != nil { // otherwise the cache does not have what is there
					require.Equal(t, []string{"get"}, s.verbs(), "one read is enough")
				}
				mustReplace(t, l, c.after)
				requireMigrations(t, l, c.after)
				requireStored(t, s, c.after)
				i.sync(t)
				requireMigrations(t, l, c.after)
				require.Empty(t, s.Actions(), "the doubt is over")
			})
		}
	}
}

// TestCacheCostsNothing holds that a cache that is good enough is all that is asked.
func TestCacheCostsNothing(t *testing.T) {
	l, s, i := cached(t)
	requireMigrations(t, l, nil)
	mustReplace(t, l, nil)
	require.Empty(t, s.Actions())
	mustReplace(t, l, blocked("1", "a"))
	require.Equal(t, []string{"create"}, s.verbs())
	i.sync(t)
	for range 3 {
		requireMigrations(t, l, blocked("1", "a"))
		mustReplace(t, l, blocked("1", "a"))
	}
	mustReplace(t, l, blocked("2", "a")) // not yet in the cache
	require.Equal(t, []string{"update"}, s.verbs())
	for range 3 {
		requireMigrations(t, l, blocked("2", "a"))
		mustReplace(t, l, blocked("2", "a"))
	}
	require.Empty(t, s.Actions())
	mustReplace(t, l, nil)
	require.Equal(t, []string{"delete"}, s.verbs())
	for range 2 { // before the cache has seen it, and after
		requireMigrations(t, l, nil)
		mustReplace(t, l, nil)
		i.sync(t)
	}
	require.Empty(t, s.Actions())
}

// TestRemembersLittle holds that namespaces which are only read, or whose ConfigMap the
// cache shows, cost no memory of their own.
func TestRemembersLittle(t *testing.T) {
	ctx := context.Background()
	l, _, i := cached(t)
	i.synced = false
	for _, namespace := range []string{"a", "b", "c"} {
		_, err := l.Migrations(ctx, namespace)
		require.NoError(t, err)
	}
	require.Zero(t, l.Remembered())
	i.synced = true
	mustReplace(t, l, blocked("1", "a"))
	require.Equal(t, 1, l.Remembered())
	i.sync(t)
	requireMigrations(t, l, blocked("1", "a"))
	require.Zero(t, l.Remembered())
}

// TestUnsyncedCache holds that an empty cache which is not synced says nothing.
func TestUnsyncedCache(t *testing.T) {
	l, s, i := cached(t)
	another(t, s, blocked("1", "a"))
	i.synced = false
	requireMigrations(t, l, blocked("1", "a"))
	mustReplace(t, l, blocked("1", "a"))
	require.Equal(t, []string{"get", "get"}, s.verbs())
}

// TestOddVersions has resourceVersions that cannot be compared, which Kubernetes does
// not rule out. Then what is in the cache may be later than what this process wrote.
func TestOddVersions(t *testing.T) {
	l, s, i := cached(t)
	mustReplace(t, l, blocked("1", "a"))
	another(t, s, blocked("2", "a"))
	odd := s.get(t, tenant)
	odd.ResourceVersion = "odd"
	require.NoError(t, s.Tracker().Update(configMaps, odd, system))
	i.sync(t)
	requireMigrations(t, l, blocked("2", "a"))
	mustReplace(t, l, blocked("1", "a"))
	requireMigrations(t, l, blocked("1", "a"))
	requireStored(t, s, blocked("1", "a"))
}

// TestOvertaken has calls whose answer comes after that of a later one.
func TestOvertaken(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, l *configmap.Ledger, s *server, i *informer, client *slow){
		"an update by a read of what came after it": func(t *testing.T, l *configmap.Ledger, s *server, i *informer, client *slow) {
			another(t, s, blocked("1", "a"))
			i.sync(t)
			client.afterUpdate = func() {
				another(t, s, blocked("3", "a"))
				i.synced = false // so that the read is live
				requireMigrations(t, l, blocked("3", "a"))
				i.synced = true
			}
			mustReplace(t, l, blocked("2", "a"))
			requireMigrations(t, l, blocked("3", "a"))
		},
		"a read by a create": func(t *testing.T, l *configmap.Ledger, _ *server, i *informer, client *slow) {
			i.synced = false
			client.afterGet = func() {
				client.afterGet = nil
				mustReplace(t, l, blocked("1", "a"))
			}
			_, err := l.Migrations(context.Background(), tenant) // none, or one: both are right
			require.NoError(t, err)
			i.sync(t)
			i.synced = true
			requireMigrations(t, l, blocked("1", "a"))
		},
		"a read by a create that the cache has seen": func(t *testing.T, l *configmap.Ledger, s *server, i *informer, client *slow) {
			i.synced = false
			client.afterGet = func() {
				client.afterGet = nil
				another(t, s, blocked("1", "a"))
				i.sync(t)
			}
			requireMigrations(t, l, nil)
			i.synced = true
			requireMigrations(t, l, blocked("1", "a"))
		},
		"a read by an update": func(t *testing.T, l *configmap.Ledger, s *server, i *informer, client *slow) {
			another(t, s, blocked("1", "a"))
			i.sync(t)
			i.synced = false
			client.afterGet = func() {
				client.afterGet = nil
				i.synced = true
				mustReplace(t, l, blocked("2", "a"))
			}
			_, err := l.Migrations(context.Background(), tenant)
			require.NoError(t, err)
			requireMigrations(t, l, blocked("2", "a"))
			mustReplace(t, l, blocked("1", "a"))
			requireStored(t, s, blocked("1", "a"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			i, client := newInformer(s), &slow{ConfigMapInterface: s.CoreV1().ConfigMaps(system)}
			test(t, configmap.New(client, system, configmap.WithInformer(i)), s, i, client)
		})
	}
}

// slow is a client whose answers are on the way while a test does something.
type slow struct {
	typedcorev1.ConfigMapInterface
	afterGet, afterUpdate func()
}

func (c *slow) ConfigMaps(string) typedcorev1.ConfigMapInterface { return c }

func (c *slow) Get(ctx context.Context, name string, options metav1.GetOptions) (*corev1.ConfigMap, error) {
	configMap, err := c.ConfigMapInterface.Get(ctx, name, options)
	if c.afterGet != nil {
		c.afterGet()
	}
	return configMap, err
}

func (c *slow) Update(ctx context.Context, configMap *corev1.ConfigMap, options metav1.UpdateOptions) (*corev1.ConfigMap, error) {
	configMap, err := c.ConfigMapInterface.Update(ctx, configMap, options)
	if c.afterUpdate != nil {
		c.afterUpdate()
	}
	return configMap, err
}

// TestReadsLeaveTheCacheAlone holds that nothing from the cache is written to.
func TestReadsLeaveTheCacheAlone(t *testing.T) {
	l, s, i := cached(t)
	another(t, s, blocked("1", "a", "b"))
	i.sync(t)
	object, exists, err := i.store.GetByKey(system + "/" + configmap.Name(tenant))
	require.NoError(t, err)
	require.True(t, exists)
	before := object.(*corev1.ConfigMap).DeepCopy()
	mustReplace(t, l, blocked("2", "b"))
	mustReplace(t, l, nil)
	require.Equal(t, before, object)
}

// TestReadFails holds that there are no migrations beside an error of the API server.
func TestReadFails(t *testing.T) {
	l, s, i := cached(t)
	another(t, s, blocked("1", "a"))
	i.synced = false
	s.fault = func(k8stesting.Action) (before, after error) { return errors.New("no route"), nil }
	got, err := l.Migrations(context.Background(), tenant)
	require.ErrorContains(t, err, `ledger of namespace "tenant" in configmap headroom/headroom-tenant: no route`)
	require.Nil(t, got)
}
