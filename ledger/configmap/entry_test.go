package configmap

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/quota"
)

const uid = "0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0a001"

// whole is an entry with all fields, and what is written for the migration in it.
const whole = `{
  "version": 1,
  "uid": "0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0a001",
  "vmi": "database",
  "state": "Charged",
  "since": "2026-08-03T14:05:06Z",
  "priority": -7,
  "surge": {
    "limits.cpu": "1015m",
    "limits.memory": "4952Mi"
  },
  "held": {},
  "growth": {
    "limits.cpu": "2"
  },
  "node": "node-1",
  "over": true,
  "refusedBy": "q",
  "shares": [
    {
      "traits": {
        "terminating": true,
        "bestEffort": true,
        "priorityClass": "high",
        "crossNamespacePodAffinity": true,
        "claim": true,
        "volumeAttributesClass": "gold",
        "currentVolumeAttributesClass": "silver",
        "targetVolumeAttributesClass": "gold"
      },
      "surge": {
        "limits.cpu": "1015m"
      },
      "held": {}
    },
    {}
  ]
}`

// TestFormat pins the bytes: other processes, and later versions, read them.
func TestFormat(t *testing.T) {
	value, _, err := encode(quota.Migration{
		UID:       uid,
		VMI:       "database",
		State:     quota.Charged,
		Created:   metav1.NewTime(time.Date(2026, time.August, 3, 16, 5, 6, 7, time.FixedZone("", 2*60*60))),
		Priority:  -7,
		Surge:     corev1.ResourceList{"limits.memory": resource.MustParse("4952Mi"), "limits.cpu": resource.MustParse("1015m")},
		Held:      corev1.ResourceList{},
		Growth:    corev1.ResourceList{"limits.cpu": resource.MustParse("2")},
		Node:      "node-1",
		Over:      true,
		RefusedBy: "q",
		Shares: []quota.Share{
			{
				Traits: quota.Traits{
					Terminating: true, BestEffort: true, PriorityClass: "high", CrossNamespacePodAffinity: true, Claim: true,
					VolumeAttributesClass: "gold", CurrentVolumeAttributesClass: "silver", TargetVolumeAttributesClass: "gold",
				},
				Surge: corev1.ResourceList{"limits.cpu": resource.MustParse("1015m")},
				Held:  corev1.ResourceList{},
			},
			{},
		},
	})
	require.NoError(t, err)
	require.Equal(t, whole, value)

	m, err := decode(uid, value)
	require.NoError(t, err)
	require.NotNil(t, m.Held)
	require.Nil(t, m.Shares[1].Held)
	require.Equal(t, time.UTC, m.Created.Location())

	value, _, err = encode(quota.Migration{UID: "a"})
	require.NoError(t, err)
	require.Equal(t, "{\n  \"version\": 1,\n  \"uid\": \"a\",\n  \"state\": \"Queued\"\n}", value)
}

// malformed are values under the key uid that are no entry, with what the error says.
var malformed = map[string]struct{ value, says string }{
	"nothing":             {``, "not an entry of the ledger"},
	"prose":               {`see the wiki`, "not an entry of the ledger"},
	"null":                {`null`, "it has no version"},
	"a list":              {`[1]`, "not an entry of the ledger"},
	"another object":      {`{"a": 1}`, "it has no version"},
	"a cut entry":         {whole[:len(whole)-2], "not an entry of the ledger"},
	"two entries":         {whole + whole, "not an entry of the ledger"},
	"a later version":     {strings.Replace(whole, `"version": 1`, `"version": 2`, 1), "version 2, which is not understood"},
	"version zero":        {strings.Replace(whole, `"version": 1`, `"version": 0`, 1), "version 0, which is not understood"},
	"a version in quotes": {strings.Replace(whole, `"version": 1`, `"version": "1"`, 1), "not an entry of the ledger"},
	"another uid":         {strings.Replace(whole, uid, "other", 1), `corrupt entry: its uid "other" belongs to the key "other"`},
	"no uid":              {`{"version": 1, "state": "Blocked"}`, "corrupt entry: its uid"},
	"no state":            {`{"version": 1, "uid": "` + uid + `"}`, `unknown state ""`},
	"an unknown state":    {strings.Replace(whole, "Charged", "Done", 1), `unknown state "Done"`},
	"an unknown field":    {strings.Replace(whole, `"vmi"`, `"vm"`, 1), `corrupt entry: unknown field "vm"`},
	"a field in capitals": {strings.Replace(whole, `"vmi"`, `"VMI"`, 1), `corrupt entry: unknown field "VMI"`},
	"a field twice":       {strings.Replace(whole, `"vmi"`, `"vmi": "x", "vmi"`, 1), `corrupt entry: duplicate field "vmi"`},
	"a resource twice":    {strings.Replace(whole, `"limits.cpu"`, `"limits.cpu": "1", "limits.cpu"`, 1), "duplicate field"},
	"an unknown trait":    {strings.Replace(whole, `"claim"`, `"Claim"`, 1), "corrupt entry: unknown field"},
	"no amount":           {strings.Replace(whole, "4952Mi", "4952MB", 1), `limits.memory "4952MB"`},
	"an empty amount":     {strings.Replace(whole, "4952Mi", "", 1), `limits.memory ""`},
	"a number":            {strings.Replace(whole, `"4952Mi"`, `4952`, 1), "corrupt entry"},
	"a huge exponent":     {strings.Replace(whole, "4952Mi", "1e999999999", 1), "the exponent is out of range"},
	"a tiny exponent":     {strings.Replace(whole, "4952Mi", "1E-0999999999", 1), "the exponent is out of range"},
	"a long amount":       {strings.Replace(whole, "4952Mi", strings.Repeat("9", 1000), 1), "more than 64 characters"},
	"a bad growth":        {strings.Replace(whole, `"2"`, `"two"`, 1), `limits.cpu "two"`},
	"a bad share":         {strings.Replace(whole, `"surge": {`+"\n        ", `"surge": {"pods": "x", `, 1), `pods "x"`},
	"no time":             {strings.Replace(whole, "2026-08-03T", "yesterday", 1), "corrupt entry"},
	"a time after 9999":   {strings.Replace(whole, "2026-08-03T14:05:06Z", "9999-12-31T23:59:59-01:00", 1), "out of range"},
	"a time before 0":     {strings.Replace(whole, "2026-08-03T14:05:06Z", "0000-01-01T00:00:00+01:00", 1), "out of range"},
	"a great priority":    {strings.Replace(whole, "-7", "4294967296", 1), "corrupt entry"},
}

func TestDecodeRefuses(t *testing.T) {
	for name, c := range malformed {
		t.Run(name, func(t *testing.T) {
			_, err := decode(uid, c.value)
			require.ErrorContains(t, err, c.says)
		})
	}
	_, err := decode("other", whole)
	require.ErrorContains(t, err, `belongs to the key "`+uid+`"`)
}

// TestEncodeRefuses holds that nothing is written that could not be read.
func TestEncodeRefuses(t *testing.T) {
	for name, m := range map[string]quota.Migration{
		"UIDs that are not UTF-8": {UID: "\xff"},
		"the year 10000":          {Created: metav1.NewTime(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))},
	} {
		_, _, err := encode(m)
		require.Error(t, err, name)
	}
}

func TestEveryState(t *testing.T) {
	for _, state := range []quota.State{quota.Queued, quota.Blocked, quota.Charged, 3, -1, math.MaxInt, math.MinInt} {
		_, read, err := encode(quota.Migration{State: state})
		require.NoError(t, err)
		require.Equal(t, state, read.State)
	}
	for _, s := range []string{"State(1)", "State(007)", "State(7", "State()", "blocked", "Blocked "} {
		_, err := parseState(s)
		require.Error(t, err, s)
	}
}

func TestKeyOf(t *testing.T) {
	for uid, key := range map[types.UID]string{
		uid:             uid,
		"":              "_",
		"_":             "_5f",
		"a/b":           "a_2fb",
		"..":            "_2e_2e",
		"sha256.":       "sha256_2e",
		"ä":             "_c3_a4",
		uidOf("x", 253): strings.Repeat("x", 253),
	} {
		require.Equal(t, key, keyOf(uid))
	}
	require.Regexp(t, `^sha256\.[0-9a-f]{64}$`, keyOf(uidOf("x", 254)))
	draw := rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.RuneFrom([]rune("a_./2f")), 0, 8, -1), rapid.StringN(200, 400, -1))
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		if faults := validation.IsConfigMapKey(keyOf(types.UID(a))); len(faults) > 0 {
			t.Fatalf("%q is no key: %v", keyOf(types.UID(a)), faults)
		}
		if a != b && keyOf(types.UID(a)) == keyOf(types.UID(b)) {
			t.Fatalf("%q and %q have the same key", a, b)
		}
	})
}

func uidOf(s string, n int) types.UID { return types.UID(strings.Repeat(s, n)) }

func TestLabel(t *testing.T) { require.Empty(t, validation.IsQualifiedName(Label)) }

// FuzzDecode holds that decoding is total, and that what it takes for an entry is
// written and read again without a change.
func FuzzDecode(f *testing.F) {
	f.Add(uid, whole)
	f.Add("a", `{"version":1,"uid":"a","state":"Queued","surge":{"pods":"1e-9"}}`)
	f.Add("_", `{"version":1,"uid":"","state":"State(7)","since":null,"held":null}`)
	for _, c := range malformed {
		f.Add(uid, c.value)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		m, err := decode(key, value)
		if err != nil {
			return
		}
		text, read, err := encode(m)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if !same(m, read) {
			t.Fatalf("written under %q as\n%s", key, text)
		}
	})
}
