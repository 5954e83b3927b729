package ledgertest

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

const (
	tenant = "tenant"
	first  = types.UID("0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0a001")
	second = types.UID("0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0a002")
)

var moment = time.Date(2026, time.August, 3, 14, 5, 6, 0, time.UTC)

// amount parses one of the constants below.
func amount(s string) resource.Quantity {
	q, err := resource.ParseQuantity(s)
	if err != nil {
		panic(err)
	}
	return q
}

// list returns a ResourceList of pairs: a name, then an amount.
func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = amount(pairs[i+1])
	}
	return l
}

// blocked returns a small migration.
func blocked(uid types.UID) quota.Migration {
	return quota.Migration{
		UID:     uid,
		VMI:     "vm-" + string(uid),
		State:   quota.Blocked,
		Surge:   list("limits.cpu", "1015m", "limits.memory", "2773714688"),
		Created: metav1.NewTime(moment),
	}
}

// full returns a migration in which no field is zero, and which has quantities of
// all formats: an inf.Dec inside, and int64 ones.
func full(uid types.UID) quota.Migration {
	return quota.Migration{
		UID:   uid,
		VMI:   "database-0",
		State: quota.Charged,
		Surge: list(
			"limits.cpu", "4015m", "limits.memory", "4952Mi", "requests.storage", "12345678901234567890",
			"requests.nvidia.com/gpu", "2", "pods", "1e3", "requests.cpu", "1n", "requests.memory", "100E",
			"count/pods", "9223372036854775807", "hugepages-2Mi", "0",
		),
		Held:      list("limits.cpu", "1015m", "limits.memory", "1267028Ki", "requests.storage", "12345678901234567890"),
		Priority:  -7,
		Growth:    list("limits.cpu", "2", "limits.memory", "1Gi", "requests.storage", "12345678901234567890"),
		Node:      "node-1",
		Over:      true,
		RefusedBy: "q",
		Created:   metav1.NewTime(moment),
		Shares: []quota.Share{
			{
				Traits: quota.Traits{
					Terminating: true, BestEffort: true, PriorityClass: "high", CrossNamespacePodAffinity: true,
					Claim: true, VolumeAttributesClass: "gold", CurrentVolumeAttributesClass: "silver", TargetVolumeAttributesClass: "gold",
				},
				Surge: list("limits.cpu", "4015m", "requests.storage", "12345678901234567890"),
				Held:  list("limits.cpu", "1015m"),
			},
			{Surge: list("limits.memory", "4952Mi"), Held: list()},
			{Traits: quota.Traits{PriorityClass: "low"}, Surge: list("pods", "1e3")},
		},
	}
}

// A variant is another way to fill in a migration.
type variant struct {
	name  string
	apply func(m *quota.Migration)
}

// of returns m with v applied to it.
func (v variant) of(m quota.Migration) quota.Migration {
	m = m.DeepCopy()
	v.apply(&m)
	return m
}

// different are variants of full that are another record: each changes what one
// field says.
var different = []variant{
	{"VMI", func(m *quota.Migration) { m.VMI = "database-1" }},
	{"State Queued", func(m *quota.Migration) { m.State = quota.Queued }},
	{"State Blocked", func(m *quota.Migration) { m.State = quota.Blocked }},
	{"Surge greater", func(m *quota.Migration) { m.Surge["limits.cpu"] = amount("4015001u") }},
	{"Surge of an inf.Dec greater", func(m *quota.Migration) {
		m.Surge["requests.storage"] = amount("12345678901234567891")
	}},
	{"Surge of one more resource, zero", func(m *quota.Migration) { m.Surge["services"] = resource.Quantity{} }},
	{"Surge of one resource less", func(m *quota.Migration) { delete(m.Surge, "hugepages-2Mi") }},
	{"Surge nil", func(m *quota.Migration) { m.Surge = nil }},
	{"Held greater", func(m *quota.Migration) { m.Held["limits.cpu"] = amount("1016m") }},
	{"Held of one resource less", func(m *quota.Migration) { delete(m.Held, "limits.cpu") }},
	{"Held empty", func(m *quota.Migration) { m.Held = list() }},
	{"Held nil", func(m *quota.Migration) { m.Held = nil }},
	{"Priority", func(m *quota.Migration) { m.Priority = 1 << 30 }},
	{"Growth greater", func(m *quota.Migration) { m.Growth["limits.cpu"] = amount("2001m") }},
	{"Growth of one resource less", func(m *quota.Migration) { delete(m.Growth, "limits.cpu") }},
	{"Growth nil", func(m *quota.Migration) { m.Growth = nil }},
	{"Node", func(m *quota.Migration) { m.Node = "node-2" }},
	{"Node unknown", func(m *quota.Migration) { m.Node = "" }},
	{"Over", func(m *quota.Migration) { m.Over = false }},
	{"RefusedBy", func(m *quota.Migration) { m.RefusedBy = "" }},
	{"Created a second later", func(m *quota.Migration) { m.Created = metav1.NewTime(moment.Add(time.Second)) }},
	{"Created unknown", func(m *quota.Migration) { m.Created = metav1.Time{} }},
	{"Shares nil", func(m *quota.Migration) { m.Shares = nil }},
	{"Shares empty", func(m *quota.Migration) { m.Shares = []quota.Share{} }},
	{"Shares one less", func(m *quota.Migration) { m.Shares = m.Shares[:2] }},
	{"Traits.Terminating", func(m *quota.Migration) { m.Shares[0].Traits.Terminating = false }},
	{"Traits.BestEffort", func(m *quota.Migration) { m.Shares[0].Traits.BestEffort = false }},
	{"Traits.PriorityClass", func(m *quota.Migration) { m.Shares[0].Traits.PriorityClass = "" }},
	{"Traits.CrossNamespacePodAffinity", func(m *quota.Migration) { m.Shares[0].Traits.CrossNamespacePodAffinity = false }},
	{"Traits.Claim", func(m *quota.Migration) { m.Shares[0].Traits.Claim = false }},
	{"Traits.VolumeAttributesClass", func(m *quota.Migration) { m.Shares[0].Traits.VolumeAttributesClass = "tin" }},
	{"Traits.CurrentVolumeAttributesClass", func(m *quota.Migration) { m.Shares[0].Traits.CurrentVolumeAttributesClass = "" }},
	{"Traits.TargetVolumeAttributesClass", func(m *quota.Migration) { m.Shares[0].Traits.TargetVolumeAttributesClass = "tin" }},
	{"Share.Surge", func(m *quota.Migration) { m.Shares[1].Surge["limits.memory"] = amount("4953Mi") }},
	{"Share.Held", func(m *quota.Migration) { m.Shares[0].Held["limits.cpu"] = amount("1016m") }},
	{"Share.Held nil", func(m *quota.Migration) { m.Shares[1].Held = nil }},
	{"Share.Held empty", func(m *quota.Migration) { m.Shares[2].Held = list() }},
}

// same are variants of full that are the same record.
var same = []variant{
	{"a copy", func(*quota.Migration) {}},
	{"an amount in another unit", func(m *quota.Migration) {
		m.Surge["limits.memory"] = amount("5192548352") // 4952Mi
		m.Surge["requests.nvidia.com/gpu"] = amount("2000m")
		m.Surge["pods"] = amount("1k")
		m.Held["limits.memory"] = amount("1297436672000m") // 1267028Ki
		m.Growth["limits.memory"] = amount("1048576Ki")
		m.Shares[1].Surge["limits.memory"] = amount("5070848Ki")
	}},
	{"a fraction of a second", func(m *quota.Migration) { m.Created = metav1.NewTime(moment.Add(999 * time.Millisecond)) }},
	{"another time zone", func(m *quota.Migration) {
		m.Created = metav1.NewTime(moment.In(time.FixedZone("", 2*60*60)))
	}},
}
