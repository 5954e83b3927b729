package configmap_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	k8stesting "k8s.io/client-go/testing"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/quota"
)

const tenant = "tenant"

// blocked returns a migration for each UID, all of which ask for cpu.
func blocked(cpu string, uids ...types.UID) []quota.Migration {
	var migrations []quota.Migration
	for _, uid := range uids {
		migrations = append(migrations, quota.Migration{
			UID: uid, State: quota.Blocked, Surge: corev1.ResourceList{"limits.cpu": resource.MustParse(cpu)},
		})
	}
	return migrations
}

func requireMigrations(t *testing.T, l ledger.Ledger, want []quota.Migration) {
	t.Helper()
	got, err := l.Migrations(context.Background(), tenant)
	require.NoError(t, err)
	require.True(t, ledger.Equal(want, got), cmp.Diff(want, got))
}

// TestOneWritePerChange counts all calls, without a cache and with one.
func TestOneWritePerChange(t *testing.T) {
	steps := []struct {
		name       string
		migrations []quota.Migration
		want       []string
	}{
		{"none as before", nil, nil},
		{"the first", blocked("1", "a"), []string{"create"}},
		{"the same", blocked("1000m", "a"), nil},
		{"50 at once", blocked("1", uids(50)...), []string{"update"}},
		{"the same in another order", blocked("1", append(uids(50)[25:], uids(50)[:25]...)...), nil},
		{"all of them changed", blocked("2", uids(50)...), []string{"update"}},
		{"none", nil, []string{"delete"}},
		{"none again", nil, nil},
	}
	for _, withCache := range []bool{false, true} {
		t.Run(fmt.Sprintf("with a cache: %t", withCache), func(t *testing.T) {
			s := newServer(t)
			l := configmap.New(s.CoreV1(), system)
			if withCache {
				i := newInformer(s)
				s.changed = func() { i.sync(t) }
				l = configmap.New(s.CoreV1(), system, configmap.WithInformer(i))
			}
			for _, step := range steps {
				require.NoError(t, l.Replace(context.Background(), tenant, step.migrations))
				want := step.want
				if !withCache {
					want = append([]string{"get"}, want...)
				}
				require.Equal(t, want, s.verbs(), step.name)
				requireMigrations(t, l, step.migrations)
				s.ClearActions()
			}
		})
	}
}

func uids(n int) []types.UID {
	var uids []types.UID
	for i := range n {
		uids = append(uids, types.UID(fmt.Sprintf("uid-%02d", i)))
	}
	return uids
}

// TestReplicas has processes that have all read the same before the first of them
// writes. They have an annotation of somebody else to keep.
func TestReplicas(t *testing.T) {
	const replicas = 8
	s := newServer(t)
	s.put(t, tenant, note)
	var haveRead, group sync.WaitGroup
	haveRead.Add(replicas)
	errs := make([]error, replicas)
	for r := range replicas {
		group.Add(1)
		go func() {
			defer group.Done()
			client := &together{ConfigMapInterface: s.CoreV1().ConfigMaps(system), haveRead: &haveRead}
			l := configmap.New(client, system)
			errs[r] = l.Replace(context.Background(), tenant, blocked("1", types.UID(fmt.Sprint("a", r)), types.UID(fmt.Sprint("b", r))))
		}()
	}
	group.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.GreaterOrEqual(t, s.writes(), 2*replicas-1, "all but one of the first writes are conflicts")
	stored := s.get(t, tenant)
	require.Equal(t, "keep me", stored.Annotations["note"])
	require.Len(t, stored.Data, 2, "the migrations of one replica, whole")
}

// note is what somebody else writes to a ConfigMap of the ledger.
func note(c *corev1.ConfigMap) { c.Annotations = map[string]string{"note": "keep me"} }

// TestOneProcess has callers in one process, who take turns: there are no conflicts.
func TestOneProcess(t *testing.T) {
	const callers = 16
	s := newServer(t)
	l := configmap.New(&slow{ConfigMapInterface: s.CoreV1().ConfigMaps(system), afterGet: runtime.Gosched}, system)
	var group sync.WaitGroup
	errs := make([]error, callers)
	for c := range callers {
		group.Add(1)
		go func() {
			defer group.Done()
			errs[c] = l.Replace(context.Background(), tenant, blocked("1", types.UID(fmt.Sprint(c))))
		}()
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, callers, s.writes())
}

// together is the client of one of several processes that wait for each other after
// their first read.
type together struct {
	typedcorev1.ConfigMapInterface
	haveRead *sync.WaitGroup
	once     sync.Once
}

func (c *together) ConfigMaps(string) typedcorev1.ConfigMapInterface { return c }

func (c *together) Get(ctx context.Context, name string, options metav1.GetOptions) (*corev1.ConfigMap, error) {
	configMap, err := c.ConfigMapInterface.Get(ctx, name, options)
	c.once.Do(c.haveRead.Done)
	c.haveRead.Wait()
	return configMap, err
}

// TestRetriesOnFreshData has somebody else write between our read and our write.
func TestRetriesOnFreshData(t *testing.T) {
	theirs := func(s *server, edit func(c *corev1.ConfigMap)) {
		done := false
		s.fault = func(action k8stesting.Action) (before, after error) {
			if action.GetVerb() == "get" || done {
				return nil, nil
			}
			done = true
			return nil, s.edit(tenant, edit)
		}
	}
	for name, c := range map[string]struct {
		record  []quota.Migration
		replace []quota.Migration
		edit    func(c *corev1.ConfigMap)
		verbs   []string
	}{
		"before a create":  {nil, blocked("1", "a"), note, []string{"get", "create", "get", "update"}},
		"before an update": {blocked("1", "a"), blocked("1", "b"), note, []string{"get", "update", "get", "update"}},
		"before a delete":  {blocked("1", "a"), nil, note, []string{"get", "delete", "get", "delete"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			l := configmap.New(s.CoreV1(), system)
			require.NoError(t, l.Replace(context.Background(), tenant, c.record))
			s.ClearActions()
			theirs(s, c.edit)
			require.NoError(t, l.Replace(context.Background(), tenant, c.replace))
			require.Equal(t, c.verbs, s.verbs())
			requireMigrations(t, l, c.replace)
			if c.replace != nil {
				require.Equal(t, "keep me", s.get(t, tenant).Annotations["note"])
			}
		})
	}

	t.Run("deleted before an update", func(t *testing.T) {
		s := newServer(t)
		l := configmap.New(s.CoreV1(), system)
		require.NoError(t, l.Replace(context.Background(), tenant, blocked("1", "a")))
		s.ClearActions()
		s.fault = func(action k8stesting.Action) (before, after error) {
			if action.GetVerb() == "update" {
				return nil, s.Tracker().Delete(configMaps, system, configmap.Name(tenant))
			}
			return nil, nil
		}
		require.NoError(t, l.Replace(context.Background(), tenant, blocked("1", "b")))
		require.Equal(t, []string{"get", "update", "get", "create"}, s.verbs())
	})
}

// TestGivesUp holds that a conflict that never ends is an error that says so, and that
// a context that ends meanwhile is noticed.
func TestGivesUp(t *testing.T) {
	before := *configmap.PausesAfterConflicts
	defer func() { *configmap.PausesAfterConflicts = before }()
	configmap.PausesAfterConflicts.Duration = time.Microsecond
	s := newServer(t)
	l := configmap.New(s.CoreV1(), system)
	s.fault = func(action k8stesting.Action) (before, after error) {
		if action.GetVerb() == "get" {
			return nil, nil
		}
		return apierrors.NewAlreadyExists(groupResource, "x"), nil
	}
	err := l.Replace(context.Background(), tenant, blocked("1", "a"))
	require.True(t, apierrors.IsAlreadyExists(err), err)
	require.Greater(t, s.writes(), 10)
	require.Less(t, s.writes(), 30)

	s.ClearActions()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	conflict := s.fault
	s.fault = func(action k8stesting.Action) (before, after error) {
		if action.GetVerb() == "create" {
			cancel()
		}
		return conflict(action)
	}
	require.ErrorIs(t, l.Replace(ctx, tenant, blocked("1", "a")), context.Canceled)
	require.Equal(t, 1, s.writes())
}

// failing is a fault: err is the answer to all calls of that verb.
func failing(verb string, err error) func(action k8stesting.Action) (before, after error) {
	return func(action k8stesting.Action) (before, after error) {
		if action.GetVerb() == verb {
			before = err
		}
		return before, nil
	}
}

// TestErrors holds that an error of the API server comes at once, can be told by what
// it is, and says where.
func TestErrors(t *testing.T) {
	forbidden := apierrors.NewForbidden(groupResource, configmap.Name(tenant), errors.New("no"))
	for _, verb := range []string{"get", "create", "update", "delete"} {
		t.Run(verb, func(t *testing.T) {
			s := newServer(t)
			l := configmap.New(s.CoreV1(), system)
			migrations := blocked("1", "a")
			if verb == "update" || verb == "delete" {
				require.NoError(t, l.Replace(context.Background(), tenant, blocked("2", "a")))
			}
			if verb == "delete" {
				migrations = nil
			}
			s.ClearActions()
			s.fault = failing(verb, forbidden)
			err := l.Replace(context.Background(), tenant, migrations)
			require.True(t, apierrors.IsForbidden(err), err)
			var typed *configmap.Error
			require.ErrorAs(t, err, &typed)
			require.Equal(t, configmap.Error{Namespace: tenant, ConfigMap: "headroom/headroom-tenant", Err: forbidden}, *typed)
			require.LessOrEqual(t, len(s.Actions()), 2, "no retry")
		})
	}
	t.Run("no system namespace", func(t *testing.T) {
		s := newServer(t)
		s.fault = failing("create", apierrors.NewNotFound(corev1.Resource("namespaces"), system))
		err := configmap.New(s.CoreV1(), system).Replace(context.Background(), tenant, blocked("1", "a"))
		require.True(t, apierrors.IsNotFound(err), err)
		require.Equal(t, []string{"get", "create"}, s.verbs())
	})
	t.Run("what is no namespace", func(t *testing.T) {
		s := newServer(t)
		l := configmap.New(s.CoreV1(), system)
		for _, namespace := range []string{"a/b", "a.b", "A", "-", "..", strings.Repeat("x", 64)} {
			var typed *configmap.Error
			_, err := l.Migrations(context.Background(), namespace)
			require.ErrorAs(t, err, &typed)
			require.ErrorAs(t, l.Replace(context.Background(), namespace, nil), &typed)
			require.Equal(t, namespace, typed.Namespace)
		}
		require.Empty(t, s.Actions())
	})
}

// TestTooLarge holds that what does not fit is left out: first what has not come far, of that
// the last in turn.
func TestTooLarge(t *testing.T) {
	s := newServer(t)
	l := configmap.New(s.CoreV1(), system)
	large := blocked("1", uids(99)...)
	var want []quota.Migration
	for i := range large {
		large[i].VMI = strings.Repeat("x", 11_000)
		large[i].Priority = int32(i % 10)
		switch {
		case i%11 == 0:
			large[i].State = quota.Charged
		case i%10 == 0:
			continue // the last in turn
		}
		want = append(want, large[i])
	}
	for range 2 {
		err := l.Replace(context.Background(), tenant, large)
		require.ErrorIs(t, err, configmap.ErrTooLarge)
		var typed *configmap.Error
		require.ErrorAs(t, err, &typed)
		require.Equal(t, tenant, typed.Namespace)
		require.Equal(t, 1, s.writes(), "the second time nothing has changed")
	}
	got, err := l.Migrations(context.Background(), tenant)
	require.NoError(t, err)
	require.Subset(t, names(got), names(want))
	require.Less(t, len(got), len(large))

	// To the byte. The server of these tests refuses one more, too.
	fits := blocked("1", "a", "b")
	require.NoError(t, l.Replace(context.Background(), tenant, fits))
	rest := 1<<20 - len(s.get(t, tenant).Data["a"]) - len(s.get(t, tenant).Data["b"]) - len("  \"vmi\": \"\",\n")
	fits[1].VMI = strings.Repeat("x", rest)
	require.NoError(t, l.Replace(context.Background(), tenant, fits))
	fits[1].VMI += "x"
	require.ErrorIs(t, l.Replace(context.Background(), tenant, fits), configmap.ErrTooLarge)

	// Where the API server has a lower limit.
	s.fault = failing("update", apierrors.NewRequestEntityTooLargeError("limit is 1"))
	require.ErrorIs(t, l.Replace(context.Background(), tenant, blocked("2", "a")), configmap.ErrTooLarge)
}

func names(migrations []quota.Migration) []types.UID {
	var names []types.UID
	for _, m := range migrations {
		names = append(names, m.UID)
	}
	return names
}

// TestKeepsBytes holds that entries which do not change keep their bytes.
func TestKeepsBytes(t *testing.T) {
	ctx, s := context.Background(), newServer(t)
	one, two := configmap.New(s.CoreV1(), system), configmap.New(s.CoreV1(), system)
	require.NoError(t, one.Replace(ctx, tenant, blocked("1", "a", "b")))
	before := s.get(t, tenant).Data
	s.ClearActions()

	require.NoError(t, two.Replace(ctx, tenant, blocked("1000m", "b", "a")))
	require.Zero(t, s.writes())
	require.NoError(t, two.Replace(ctx, tenant, append(blocked("1", "a"), blocked("2", "b", "c")...)))
	after := s.get(t, tenant).Data
	require.Equal(t, before["a"], after["a"])
	require.NotEqual(t, before["b"], after["b"])
	require.Len(t, after, 3)
}

// TestLostLabel holds that a write brings a label back, and that one is made for it.
func TestLostLabel(t *testing.T) {
	ctx, s := context.Background(), newServer(t)
	l := configmap.New(s.CoreV1(), system)
	require.NoError(t, l.Replace(ctx, tenant, blocked("1", "a")))
	require.Equal(t, map[string]string{configmap.Label: tenant}, s.get(t, tenant).Labels)
	s.put(t, tenant, func(c *corev1.ConfigMap) { c.Labels = map[string]string{"their": "label"} })
	require.NoError(t, l.Replace(ctx, tenant, blocked("1", "a")))
	require.Equal(t, map[string]string{configmap.Label: tenant, "their": "label"}, s.get(t, tenant).Labels)
}

// TestAmountsBeyondKubernetes holds that an amount which Kubernetes cannot express is
// not written again and again, by writers that take turns.
func TestAmountsBeyondKubernetes(t *testing.T) {
	ctx, s := context.Background(), newServer(t)
	one, two := configmap.New(s.CoreV1(), system), configmap.New(s.CoreV1(), system)
	for _, q := range []*resource.Quantity{
		resource.NewScaledQuantity(1, -12),
		resource.NewQuantity(1<<62, resource.BinarySI),
	} {
		q.Add(*q)
		q.Add(*q)
		migrations := []quota.Migration{{UID: "a", Surge: corev1.ResourceList{"pods": *q}}}
		require.NoError(t, one.Replace(ctx, tenant, migrations))
		s.ClearActions()
		require.NoError(t, two.Replace(ctx, tenant, migrations))
		require.Zero(t, s.writes(), q.String())
		if q.Format == resource.BinarySI { // Kubernetes reads what it spells as something less
			requireMigrations(t, one, migrations)
		}
	}
}
