package migration_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// forge makes objects such as a tenant can create in his namespace: with any label, name of an
// object that is gone, and age, but controlled by nothing that KubeVirt has made.
func forge(t *rapid.T, s migration.Snapshot) (pods []*corev1.Pod, claims []*corev1.PersistentVolumeClaim) {
	next := func() drawer { return drawer{dice: seededDice(rapid.Uint64().Draw(t, "seed"))} }
	taken := map[string]bool{}
	for _, pod := range s.Pods {
		taken[pod.Name] = true
	}
	for _, pvc := range s.PVCs {
		taken[pvc.Name] = true
	}
	own := func(d drawer, o metav1.Object, i int) {
		if taken[o.GetName()] || d.flip() {
			o.SetName(fmt.Sprintf("forged-%s%d", o.GetName(), i))
		}
		taken[o.GetName()] = true
		o.SetUID(types.UID("uid-forged-" + o.GetName()))
		o.SetOwnerReferences(forgedOwners(d))
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "pods") {
		d := next()
		pods = append(pods, d.pod(pick(d.dice, "p0", "p1", "p2", "p3", "p4", "p5")))
		own(d, pods[i], i)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "claims") {
		d := next()
		claims = append(claims, d.pvc(pick(d.dice, "c0", "c1", "c2")))
		own(d, claims[i], i)
	}
	return pods, claims
}

func forgedOwners(d drawer) []metav1.OwnerReference {
	owner := metav1.OwnerReference{APIVersion: "kubevirt.io/v1", Kind: "VirtualMachineInstance", Name: "vm0", UID: types.UID("uid-" + d.vmiName())}
	if yes := true; d.rarely() {
		owner.Controller, owner.Kind, owner.UID = &yes, "Foo", "uid-of-a-foo"
	}
	return pick(d.dice, nil, []metav1.OwnerReference{owner})
}

// TestTenantForgesPodsAndClaims: nothing that a tenant creates, and that neither a VMI nor what
// it belongs to controls, changes what is in flight.
func TestTenantForgesPodsAndClaims(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := stored.Draw(t, "snapshot").Snapshot
		keepSources(s)
		want := migration.InFlight(s)
		pods, claims := forge(t, s)
		s.Pods, s.PVCs = append(s.Pods, pods...), append(s.PVCs, claims...)
		if diff := cmp.Diff(want, migration.InFlight(s), same); diff != "" {
			t.Fatalf("what a tenant forged counts:\n%s", diff)
		}
	})
}

// keepSources takes names of claims that are not there out of what statuses say of sources: the
// claim of a virtual machine that runs is there.
func keepSources(s migration.Snapshot) {
	there := map[string]bool{"": true}
	for _, pvc := range s.PVCs {
		there[pvc.Name] = true
	}
	clean := func(state *kubevirtv1.VirtualMachineInstanceMigrationState) {
		if state != nil && !there[state.SourcePersistentStatePVCName] {
			state.SourcePersistentStatePVCName = ""
		}
	}
	for _, vmi := range s.VMIs {
		clean(vmi.Status.MigrationState)
		for _, volume := range vmi.Status.VolumeStatus {
			if info := volume.PersistentVolumeClaimInfo; info != nil && !there[info.ClaimName] {
				info.ClaimName = ""
			}
		}
	}
	for _, vmim := range s.Migrations {
		clean(vmim.Status.MigrationState)
	}
}

// TestTenantForgesEvents: events are not authenticated. Forged ones say which quota refused a
// target pod that is not there, and raise what it may claim, up to four times. During a backup
// they also say that it was refused. They change nothing else.
func TestTenantForgesEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := stored.Draw(t, "snapshot").Snapshot
		s.Events = nil
		for _, vmim := range s.Migrations {
			if rapid.Bool().Draw(t, "backup") {
				condition(vmim, backup, corev1.ConditionTrue)
			}
		}
		before := migration.InFlight(s)
		for i := range rapid.IntRange(0, 5).Draw(t, "events") {
			d := drawer{dice: seededDice(rapid.Uint64().Draw(t, "seed")), absurd: true}
			s.Events = append(s.Events, d.refusal(fmt.Sprintf("forged%d", i)))
		}
		after := migration.InFlight(s)
		if len(before) != len(after) {
			t.Fatalf("%d migrations are in flight, not %d", len(after), len(before))
		}
		for i, m := range after {
			was := before[i]
			vmim := vmimOf(s, m.UID)
			if m.State != was.State && (vmim == nil || len(vmim.Status.Conditions) == 0 || was.State == quota.Charged || m.State == quota.Charged) {
				t.Fatalf("%s is %s, not %s", m.UID, m.State, was.State)
			}
			if err := within(m.Surge, was.Surge); err != nil {
				t.Fatalf("%s claims %s, not %s: %s", m.UID, text(m.Surge), text(was.Surge), err)
			}
			if hasTarget(s, m) && !quota.Equal(m.Surge, was.Surge) {
				t.Fatalf("%s has its pod, and claims %s, not %s", m.UID, text(m.Surge), text(was.Surge))
			}
			m.State, m.Surge, m.Held, m.Growth, m.Shares, m.RefusedBy = was.State, was.Surge, was.Held, was.Growth, was.Shares, was.RefusedBy
			if diff := cmp.Diff(was, m, same); diff != "" {
				t.Fatalf("forged events count:\n%s", diff)
			}
		}
	})
}

// hasTarget reports whether the target pod of m is there.
func hasTarget(s migration.Snapshot, m quota.Migration) bool {
	for _, vmi := range s.VMIs {
		for _, pod := range s.Pods {
			if vmi.Name == m.VMI && launches(pod, vmi) && pod.Labels[kubevirtv1.MigrationJobLabel] == string(m.UID) {
				return true
			}
		}
	}
	return false
}

// within returns an error unless a is at least b, and at most four times b, in all of the
// resources of b, and has no others.
func within(a, b corev1.ResourceList) error {
	if !covers(a, b) {
		return fmt.Errorf("less")
	}
	for name, q := range a {
		most, known := b[name]
		most = most.DeepCopy()
		if most.Mul(4); !known || q.Cmp(most) > 0 {
			return fmt.Errorf("%s is %s", name, q.String())
		}
	}
	return nil
}
