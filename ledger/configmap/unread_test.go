package configmap_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/quota"
)

// unread are entries that cannot be read, by what is wrong with them, and what the error says.
var unread = map[string]struct{ key, value, says string }{
	"prose":           {"README", "see the wiki", "not an entry of the ledger"},
	"a file":          {"note.txt", "see the wiki", "not an entry of the ledger"},
	"a corrupt entry": {"bad", `{"version": 1, "uid": "bad", "state": "Blocked", "surge": {"pods": "many"}}`, `pods "many"`},
	"a huge amount":   {"bad", `{"version": 1, "uid": "bad", "state": "Blocked", "surge": {"pods": "1e999"}}`, "exponent is out of range"},
	"a cut entry":     {"bad", `{"version": 1, "uid": "ba`, "not an entry of the ledger"},
	"another version": {"new", `{"version": 2, "uid": "new", "claims": []}`, "version 2, which is not understood"},
	"a copied entry":  {"copy", `{"version": 1, "uid": "a", "state": "Charged"}`, `belongs to the key "a"`},
}

// requirePartial requires that err names key, and says what is wrong with it.
func requirePartial(t *testing.T, err error, key, says string) {
	t.Helper()
	require.ErrorIs(t, err, ledger.ErrPartial)
	var typed *configmap.Error
	require.ErrorAs(t, err, &typed)
	require.Equal(t, tenant, typed.Namespace)
	require.Equal(t, "headroom/headroom-tenant", typed.ConfigMap)
	require.Equal(t, key, typed.Key)
	require.ErrorContains(t, err, says)
	require.ErrorContains(t, err, key)
}

// TestUnread holds for every entry that cannot be read that it hides no other, and that it
// does not freeze the record: Replace replaces it, whether it knows the migration or not.
func TestUnread(t *testing.T) {
	ctx := context.Background()
	good := blocked("1", "a", "z")
	for name, c := range unread {
		for next, migrations := range map[string][]quota.Migration{
			"the same": good, "others": blocked("2", "b"), "none": nil, "that one": blocked("2", "bad", "new", "copy", "README"),
		} {
			t.Run(name+", then "+next, func(t *testing.T) {
				s := newServer(t)
				l := configmap.New(s.CoreV1(), system)
				require.NoError(t, l.Replace(ctx, tenant, good))
				s.put(t, tenant, func(m *corev1.ConfigMap) { m.Data[c.key] = c.value })
				s.ClearActions()

				got, err := l.Migrations(ctx, tenant)
				requirePartial(t, err, c.key, c.says)
				require.True(t, ledger.Equal(good, got), "the good ones: %v", got)
				require.Zero(t, s.writes())

				require.NoError(t, l.Replace(ctx, tenant, migrations))
				require.Equal(t, 1, s.writes())
				requireMigrations(t, l, migrations)
				require.Equal(t, len(migrations) > 0, s.has(tenant))
			})
		}
	}
}

// TestUnreadAll names each key, in order.
func TestUnreadAll(t *testing.T) {
	ctx, s := context.Background(), newServer(t)
	l := configmap.New(s.CoreV1(), system)
	require.NoError(t, l.Replace(ctx, tenant, blocked("1", "a")))
	s.put(t, tenant, func(m *corev1.ConfigMap) {
		m.Data["z"], m.Data["b"] = "z", "b"
		m.BinaryData = map[string][]byte{"c": {0xff}}
	})
	got, err := l.Migrations(ctx, tenant)
	require.True(t, ledger.Equal(blocked("1", "a"), got))
	var at []int
	for _, key := range []string{`"b"`, `"c"`, `"z"`} {
		at = append(at, strings.Index(err.Error(), "key "+key))
	}
	require.IsIncreasing(t, at)
	require.NotContains(t, at, -1)

	require.NoError(t, l.Replace(ctx, tenant, blocked("1", "c")))
	requireMigrations(t, l, blocked("1", "c"))
	require.Empty(t, s.get(t, tenant).BinaryData)
}

// TestLeftOut holds that what cannot be recorded keeps nothing else out, and that the error
// names it.
func TestLeftOut(t *testing.T) {
	ctx, huge := context.Background(), resource.MustParse("1e999")
	good := blocked("1", "a", "z")
	bad := blocked("1", "m")[0]
	bad.VMI, bad.Held, bad.Growth = "vm1", corev1.ResourceList{}, corev1.ResourceList{"pods": huge}
	bad.Surge["requests.example.com/x"] = huge
	bad.Shares = []quota.Share{{Surge: bad.Surge.DeepCopy(), Held: corev1.ResourceList{"pods": huge}}}
	recorded := blocked("1", "m")[0]
	recorded.VMI, recorded.Held, recorded.Growth = "vm1", corev1.ResourceList{}, corev1.ResourceList{}
	recorded.Shares = []quota.Share{{Surge: recorded.Surge.DeepCopy(), Held: corev1.ResourceList{}}}
	invalid := blocked("1", "\xff")[0]

	s := newServer(t)
	l := configmap.New(s.CoreV1(), system)
	for range 2 {
		err := l.Replace(ctx, tenant, append([]quota.Migration{bad, invalid}, good...))
		var typed *configmap.Error
		require.ErrorAs(t, err, &typed)
		require.NotErrorIs(t, err, ledger.ErrPartial)
		for _, says := range []string{
			`key "m": migration "m" of VMI "vm1": left out: `, "surge: requests.example.com/x: the exponent", "growth: pods:", "surge of a share: ", "held of a share: ",
			`migration "\xff"`,
		} {
			require.ErrorContains(t, err, says)
		}
		requireMigrations(t, l, append([]quota.Migration{recorded}, good...))
		require.Equal(t, 1, s.writes(), "the second time nothing has changed")
	}
}
