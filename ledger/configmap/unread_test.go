package configmap_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/quota"
)

// unread are what a ConfigMap may have beside its entries, by what the error says of it.
var unread = map[string]struct{ key, value, says string }{
	"prose":           {"README", "see the wiki", "not an entry of the ledger"},
	"a foreign key":   {"kube.conf", `{"a": 1}`, "not an entry of the ledger"},
	"a corrupt entry": {"bad", `{"version": 1, "uid": "bad", "state": "Blocked", "surge": {"pods": "many"}}`, `pods "many"`},
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

// TestUnread holds for everything that cannot be read that it hides nothing, is told
// each time, and survives all.
func TestUnread(t *testing.T) {
	ctx := context.Background()
	for name, c := range unread {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			l := configmap.New(s.CoreV1(), system)
			good := blocked("1", "a", "z")
			require.NoError(t, l.Replace(ctx, tenant, good))
			s.put(t, tenant, func(m *corev1.ConfigMap) { m.Data[c.key] = c.value })
			s.ClearActions()

			read := func(want []quota.Migration) {
				t.Helper()
				got, err := l.Migrations(ctx, tenant)
				requirePartial(t, err, c.key, c.says)
				require.True(t, ledger.Equal(want, got), "the good ones: %v", got)
				require.Equal(t, c.value, s.get(t, tenant).Data[c.key])
			}
			read(good)
			requirePartial(t, l.Replace(ctx, tenant, good), c.key, c.says)
			require.Zero(t, s.writes(), "nothing has changed")

			// The migration whose entry it may be is not recorded over it.
			others := blocked("2", "b", "c")
			requirePartial(t, l.Replace(ctx, tenant, append(blocked("2", "bad", "new", "copy"), others...)), c.key, c.says)
			want := others
			for _, m := range blocked("2", "bad", "new", "copy") {
				if string(m.UID) != c.key {
					want = append(want, m)
				}
			}
			read(want)
			require.Equal(t, 1, s.writes())

			// The ConfigMap is not deleted with it.
			requirePartial(t, l.Replace(ctx, tenant, nil), c.key, c.says)
			read(nil)
			requirePartial(t, l.Replace(ctx, tenant, nil), c.key, c.says)
			require.Equal(t, 2, s.writes())

			// Until somebody removes it.
			s.put(t, tenant, func(m *corev1.ConfigMap) { delete(m.Data, c.key) })
			requireMigrations(t, l, nil)
			require.NoError(t, l.Replace(ctx, tenant, nil))
			require.False(t, s.has(tenant))
		})
	}
}

// TestUnreadAll names each key, in order.
func TestUnreadAll(t *testing.T) {
	ctx, s := context.Background(), newServer(t)
	l := configmap.New(s.CoreV1(), system)
	require.NoError(t, l.Replace(ctx, tenant, blocked("1", "a")))
	s.put(t, tenant, func(m *corev1.ConfigMap) {
		m.Data["z.txt"], m.Data["b"] = "z", "b"
		m.BinaryData = map[string][]byte{"c.bin": {0xff}}
	})
	got, err := l.Migrations(ctx, tenant)
	require.True(t, ledger.Equal(blocked("1", "a"), got))
	var at []int
	for _, key := range []string{`"b"`, `"c.bin"`, `"z.txt"`} {
		at = append(at, strings.Index(err.Error(), "key "+key))
	}
	require.IsIncreasing(t, at)
	require.NotContains(t, at, -1)

	require.ErrorIs(t, l.Replace(ctx, tenant, nil), ledger.ErrPartial)
	s.put(t, tenant, func(m *corev1.ConfigMap) { delete(m.Data, "z.txt"); delete(m.Data, "b") })
	require.ErrorIs(t, l.Replace(ctx, tenant, nil), ledger.ErrPartial)
	require.Equal(t, map[string][]byte{"c.bin": {0xff}}, s.get(t, tenant).BinaryData)
	require.Empty(t, s.get(t, tenant).Data)
}
