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

// different are variants of full that are another record: each changes what one field says.
var different = differences("", reflect.ValueOf(full("")), func(m *quota.Migration) reflect.Value { return reflect.ValueOf(m).Elem() })

// differences returns variants of what is at v, in which at finds it. Of a slice they change
// the first element, and how many there are.
func differences(name string, v reflect.Value, at func(m *quota.Migration) reflect.Value) (variants []variant) {
	add := func(what string, change func(v reflect.Value)) {
		variants = append(variants, variant{name + " " + what, func(m *quota.Migration) {
			if v := at(m); v.IsValid() {
				change(v)
			}
		}})
	}
	switch v.Interface().(type) {
	case corev1.ResourceList:
		for _, text := range []string{"12345678901234567891", "-1"} {
			add("greater or less", func(v reflect.Value) { setAmount(v, "requests.storage", amount(text)) })
		}
		add("of one resource more, zero", func(v reflect.Value) { setAmount(v, "services", amount("0")) })
		add("of one resource less", func(v reflect.Value) {
			v.SetMapIndex(reflect.ValueOf(corev1.ResourceName("limits.cpu")), reflect.Value{})
		})
		add("nil", reflect.Value.SetZero)
		add("empty", func(v reflect.Value) { v.Set(reflect.ValueOf(list())) })
		return variants
	case metav1.Time:
		add("a second later", func(v reflect.Value) { v.Set(reflect.ValueOf(metav1.NewTime(moment.Add(time.Second)))) })
		add("unknown", reflect.Value.SetZero)
		return variants
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.Name != "UID" {
				variants = append(variants, differences(name+" "+field.Name, v.Field(i), func(m *quota.Migration) reflect.Value {
					if v := at(m); v.IsValid() {
						return v.Field(i)
					}
					return reflect.Value{}
				})...)
			}
		}
	case reflect.Slice:
		add("nil", reflect.Value.SetZero)
		add("empty", func(v reflect.Value) { v.Set(reflect.MakeSlice(v.Type(), 0, 0)) })
		add("one less", func(v reflect.Value) { v.Set(v.Slice(0, max(0, v.Len()-1))) })
		variants = append(variants, differences(name+"[0]", v.Index(0), func(m *quota.Migration) reflect.Value {
			if v := at(m); v.IsValid() && v.Len() > 0 {
				return v.Index(0)
			}
			return reflect.Value{}
		})...)
	case reflect.Bool:
		add("not", func(v reflect.Value) { v.SetBool(!v.Bool()) })
	case reflect.String:
		add("another", func(v reflect.Value) { v.SetString("another") })
		add("none", reflect.Value.SetZero)
	default:
		add("less", func(v reflect.Value) { v.SetInt(v.Int() - 1) })
		add("zero", reflect.Value.SetZero)
	}
	return variants
}

// setAmount sets an amount in the ResourceList l.
func setAmount(l reflect.Value, name corev1.ResourceName, q resource.Quantity) {
	if l.IsNil() {
		l.Set(reflect.ValueOf(list()))
	}
	l.SetMapIndex(reflect.ValueOf(name), reflect.ValueOf(q))
}

// same are variants of any migration that are the same record.
var same = []variant{
	{"a copy", func(*quota.Migration) {}},
	{"amounts in other units", func(m *quota.Migration) {
		for _, l := range []corev1.ResourceList{m.Surge, m.Held, m.Growth} {
			respell(l)
		}
		for _, s := range m.Shares {
			respell(s.Surge)
			respell(s.Held)
		}
	}},
	{"a fraction of a second", func(m *quota.Migration) { m.Created.Time = m.Created.Truncate(time.Second).Add(999 * time.Millisecond) }},
	{"another time zone", func(m *quota.Migration) { m.Created = metav1.NewTime(m.Created.In(time.FixedZone("", 2*60*60))) }},
}

// respell writes the amounts of l in decimals, or in decimals with an exponent.
func respell(l corev1.ResourceList) {
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
