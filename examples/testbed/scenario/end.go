package scenario

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// An End is how a scenario ended, without names and times that differ each time.
type End struct {
	Migrations map[string]string            // phases; see Expectation
	Pods       map[string][]corev1.PodPhase // phases by VM, sorted; of all VMs together after a drain
	Hard       map[string]string            // spec.hard by quota, to the byte
	Enforced   map[string]string            // status.hard by quota, to the byte
	Used       map[string]map[string]string // status.used by quota, in plain numbers
	Traces     map[string][]string          // the library's annotations by quota
	Recorded   bool                         // the ledger has something about the namespace
	Gone       bool                         // the namespace
	Writes     int                          // to the status of quotas; -1 where that depends on the order of events
}

// amounts are quantities, to the byte.
func amounts(list corev1.ResourceList) string {
	text, _ := json.Marshal(list) // which never fails
	return string(text)
}

// numbers are quantities without the binary suffixes that they were added up with.
func numbers(list corev1.ResourceList) map[string]string {
	written := map[string]string{}
	for name, q := range list {
		plain := resource.Quantity{}
		plain.Add(q)
		plain.Format = resource.DecimalSI
		written[string(name)] = plain.String()
	}
	return written
}

// String implements fmt.Stringer, for messages.
func (s State) String() string { return fmt.Sprintf("%+v", s.end()) }

// end describes a State.
func (s State) end() End {
	e := End{
		Migrations: map[string]string{}, Pods: map[string][]corev1.PodPhase{},
		Hard: map[string]string{}, Enforced: map[string]string{}, Used: map[string]map[string]string{}, Traces: map[string][]string{},
		Recorded: s.Ledger != nil, Gone: s.Namespace == nil, Writes: -1,
	}
	kinds := map[string][]string{}
	for _, m := range s.Migrations {
		// KubeVirt deletes the migrations of a VM that is gone when it reconciles them next.
		// If they were final before the VM was gone, nothing makes it do so.
		if _, exists := named(s.VMIs, m.Spec.VMIName); !exists && m.IsFinal() {
			continue
		}
		if kind := kindOf(m); kind != "" {
			kinds[kind] = append(kinds[kind], phaseOf(m))
		} else {
			e.Migrations[m.Name] = phaseOf(m)
		}
	}
	for kind, phases := range kinds {
		slices.Sort(phases)
		for i, phase := range phases {
			e.Migrations[fmt.Sprintf("%s%d", kind, i+1)] = phase
		}
	}
	_, drained := kinds["evacuation"]
	for _, pod := range s.Pods {
		owner := s.owner(pod)
		if drained { // which of them were on the node is left to chance
			owner = "all"
		}
		e.Pods[owner] = append(e.Pods[owner], pod.Status.Phase)
	}
	for _, phases := range e.Pods {
		slices.Sort(phases)
	}
	for _, rq := range s.Quotas {
		e.Hard[rq.Name], e.Enforced[rq.Name], e.Used[rq.Name] = amounts(rq.Spec.Hard), amounts(rq.Status.Hard), numbers(rq.Status.Used)
		if left := traces(rq); len(left) > 0 {
			e.Traces[rq.Name] = left
		}
	}
	return e
}

// kindOf says what made a migration whose name is made up; empty: a step.
func kindOf(m *kubevirtv1.VirtualMachineInstanceMigration) string {
	switch {
	case m.GenerateName == "":
		return ""
	case metav1.HasAnnotation(m.ObjectMeta, kubevirtv1.EvacuationMigrationAnnotation):
		return "evacuation"
	case metav1.HasAnnotation(m.ObjectMeta, kubevirtv1.WorkloadUpdateMigrationAnnotation):
		return "update"
	default:
		return ""
	}
}

// differences are what is not as it should be, each with what it is.
func (p *play) differences(e End) []string {
	var found []string
	differs := func(what string, is, should any) {
		if a, b := fmt.Sprint(is), fmt.Sprint(should); a != b {
			found = append(found, fmt.Sprintf("%s: is %s, should be %s", what, a, b))
		}
	}
	want := p.scenario.End
	differs("the namespace is gone", e.Gone, want.NoNamespace)
	differs("the ledger has a record", e.Recorded, false)
	if want.NoNamespace {
		return found
	}
	for name := range p.static {
		differs("spec.hard of quota "+name, e.Hard[name], amounts(p.static[name]))
		differs("status.hard of quota "+name, e.Enforced[name], amounts(p.static[name]))
		differs("annotations of the library on quota "+name, len(e.Traces[name]), 0)
	}
	differs("quotas", len(e.Hard), len(p.static))
	for name, phase := range want.Migrations {
		differs("migration "+name, cmp.Or(e.Migrations[name], Gone), phase)
	}
	for name, phases := range want.Pods {
		differs("pods of "+name, e.Pods[name], phases)
	}
	for name, used := range want.Used {
		for kind, amount := range numbers(used) {
			differs(fmt.Sprintf("%s used of quota %s", kind, name), e.Used[name][kind], amount)
		}
	}
	slices.Sort(found)
	return found
}
