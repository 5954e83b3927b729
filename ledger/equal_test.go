package ledger_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/quota"
)

var moment = time.Date(2026, time.August, 3, 14, 5, 6, 0, time.UTC)

func TestEqual(t *testing.T) {
	surge := func(s string) []quota.Migration {
		return []quota.Migration{{Surge: corev1.ResourceList{"limits.cpu": resource.MustParse(s)}}}
	}
	created := func(at time.Time) []quota.Migration { return []quota.Migration{{Created: metav1.NewTime(at)}} }
	one, two := quota.Migration{UID: "1"}, quota.Migration{UID: "2"}
	advanced := quota.Migration{UID: "1", State: quota.Charged}
	empty := corev1.ResourceList{}
	for name, c := range map[string]struct {
		a, b []quota.Migration
		want bool
	}{
		"none":                         {nil, []quota.Migration{}, true},
		"one and none":                 {[]quota.Migration{one}, nil, false},
		"another order":                {[]quota.Migration{one, two}, []quota.Migration{two, one}, true},
		"one of two":                   {[]quota.Migration{one, two}, []quota.Migration{two}, false},
		"listed twice":                 {[]quota.Migration{one, two, one}, []quota.Migration{one, two}, true},
		"a duplicate that counts":      {[]quota.Migration{one, advanced}, []quota.Migration{one}, false},
		"a duplicate that does not":    {[]quota.Migration{one, advanced}, []quota.Migration{advanced}, true},
		"1 and 1000m":                  {surge("1"), surge("1000m"), true},
		"1 and 1001m":                  {surge("1"), surge("1001m"), false},
		"100E and more":                {surge("100E"), surge("100000000000000000001"), false},
		"100E and 1e20":                {surge("100E"), surge("1e20"), true},
		"a part of a second":           {created(moment), created(moment.Add(999 * time.Millisecond)), true},
		"a second":                     {created(moment), created(moment.Add(time.Second)), false},
		"another zone":                 {created(moment), created(moment.In(time.FixedZone("", 3600))), true},
		"nil and empty Surge":          {[]quota.Migration{{Surge: nil}}, []quota.Migration{{Surge: empty}}, true},
		"nil and empty Growth":         {[]quota.Migration{{Growth: nil}}, []quota.Migration{{Growth: empty}}, true},
		"nil and empty Held":           {[]quota.Migration{{Held: nil}}, []quota.Migration{{Held: empty}}, false},
		"nil and empty Shares":         {[]quota.Migration{{Shares: nil}}, []quota.Migration{{Shares: []quota.Share{}}}, false},
		"nil and empty Held of shares": {[]quota.Migration{{Shares: []quota.Share{{Held: nil}}}}, []quota.Migration{{Shares: []quota.Share{{Held: empty}}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, ledger.Equal(c.a, c.b))
			require.Equal(t, c.want, ledger.Equal(c.b, c.a))
		})
	}
}

// TestCanonical holds what Canonical does beyond quota.Sorted.
func TestCanonical(t *testing.T) {
	require.Nil(t, ledger.Canonical([]quota.Migration{}))
	late := metav1.NewTime(moment.Add(999 * time.Millisecond).In(time.FixedZone("", 3600)))
	given := []quota.Migration{{UID: "b", Created: late}, {UID: "a"}, {UID: "b"}}
	canonical := ledger.Canonical(given)
	require.Equal(t, []quota.Migration{{UID: "a"}, {UID: "b"}}, canonical, "the one without a time is older")
	require.Equal(t, late, given[0].Created, "it is read only")
	require.Equal(t, moment, ledger.Canonical(given[:1])[0].Created.Time)
}
