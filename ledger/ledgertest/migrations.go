package ledgertest

import (
	"reflect"
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
					ResourceClaim: true,
				},
				Surge: list("limits.cpu", "4015m", "requests.storage", "12345678901234567890"),
				Held:  list("limits.cpu", "1015m"),
			},
			{Surge: list("limits.memory", "4952Mi"), Held: list()},
			{Traits: quota.Traits{PriorityClass: "low"}, Surge: list("pods", "1e3")},
		},
	}
}

// A variant is a change of a migration.
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

// zeroed are variants of full each of which lacks one field.
var zeroed = func() (variants []variant) {
	sample := full("")
	eachField("", reflect.ValueOf(&sample).Elem(), func(field string, _ reflect.Value) {
		variants = append(variants, variant{"no " + field, func(m *quota.Migration) {
			eachField("", reflect.ValueOf(m).Elem(), func(name string, v reflect.Value) {
				if name == field {
					v.SetZero()
				}
			})
		}})
	})
	return variants
}()

// eachField calls do with each field that v leads to, except UID. Structs are taken apart,
// and of a slice the first element comes after the slice.
func eachField(name string, v reflect.Value, do func(name string, v reflect.Value)) {
	if v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[metav1.Time]() {
		for i := range v.NumField() {
			if field := v.Type().Field(i).Name; field != "UID" {
				eachField(name+"."+field, v.Field(i), do)
			}
		}
		return
	}
	do(name, v)
	if v.Kind() == reflect.Slice && v.Len() > 0 {
		eachField(name+"[0]", v.Index(0), do)
	}
}

// different are variants of full that are another record. Nil and empty stand side by side.
var different = append(zeroed, []variant{
	{"nil Held", func(m *quota.Migration) { m.Held = nil }},
	{"empty Held", func(m *quota.Migration) { m.Held = list() }},
	{"nil Shares", func(m *quota.Migration) { m.Shares = nil }},
	{"empty Shares", func(m *quota.Migration) { m.Shares = []quota.Share{} }},
	{"empty Held of a share", func(m *quota.Migration) { m.Shares = []quota.Share{{Held: list()}} }},
	{"nil Held of a share", func(m *quota.Migration) { m.Shares = []quota.Share{{}} }},
	{"nil Surge", func(m *quota.Migration) { m.Surge = nil }},
	{"empty Surge", func(m *quota.Migration) { m.Surge = list() }},
	{"nil Growth", func(m *quota.Migration) { m.Growth = nil }},
	{"empty Growth", func(m *quota.Migration) { m.Growth = list() }},
	{"one more of a huge amount", func(m *quota.Migration) { m.Surge = list("requests.storage", "12345678901234567891") }},
	{"a negative amount", func(m *quota.Migration) { m.Growth = list("requests.storage", "-1") }},
	{"one more zero", func(m *quota.Migration) { m.Surge = full("").Surge; m.Surge["services"] = amount("0") }},
	{"one amount less", func(m *quota.Migration) { m.Held = list("limits.cpu", "1015m") }},
	{"a second later", func(m *quota.Migration) { m.Created = metav1.NewTime(moment.Add(time.Second)) }},
	{"another state", func(m *quota.Migration) { m.State = quota.Blocked }},
	{"another VMI", func(m *quota.Migration) { m.VMI = "another" }},
}...)

// same are variants of any migration that are the same record.
var same = []variant{
	{"a copy", func(*quota.Migration) {}},
	{"amounts in other units", func(m *quota.Migration) {
		respell(m.Surge, m.Held, m.Growth)
		for _, s := range m.Shares {
			respell(s.Surge, s.Held)
		}
	}},
	{"a fraction of a second", func(m *quota.Migration) { m.Created.Time = m.Created.Truncate(time.Second).Add(999 * time.Millisecond) }},
	{"another time zone", func(m *quota.Migration) { m.Created = metav1.NewTime(m.Created.In(time.FixedZone("", 2*60*60))) }},
}

// respell writes amounts in decimals, or in decimals with an exponent.
func respell(lists ...corev1.ResourceList) {
	for _, l := range lists {
		for name, q := range l {
			q = q.DeepCopy()
			q.Add(resource.Quantity{}) // drops the spelling
			if q.Format == resource.DecimalSI {
				q.Format = resource.DecimalExponent
			} else {
				q.Format = resource.DecimalSI
			}
			l[name] = q
		}
	}
}
