package migration_test

import (
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
)

// crowd is n VMIs; begin makes something happen to each of them.
func crowd(n int, resources string, begin func(*scene, *kubevirtv1.VirtualMachineInstance, *corev1.Pod)) migration.Snapshot {
	s, _, _ := newScene()
	s.VMIs, s.Pods = nil, nil
	for i := range n {
		vmi := s.vmi(fmt.Sprintf("vm%d", i))
		begin(s, vmi, s.launcher(vmi, fmt.Sprintf("source%d", i), ""))
	}
	for _, pod := range s.Pods {
		for i := range pod.Spec.InitContainers {
			pod.Spec.InitContainers[i].Resources.Requests = nil
		}
		compute(pod).Requests, compute(pod).Limits = corev1.ResourceList{}, corev1.ResourceList{}
		render(pod, resources)
	}
	return s.Snapshot
}

// resources of the container compute, by their number.
var resources = []struct {
	n    int
	list string
}{
	{2, " / cpu=1 memory=2588Mi"},
	{8, "cpu=100m memory=1294Mi ephemeral-storage=50M devices.kubevirt.io/kvm=1" +
		" / cpu=1 memory=2588Mi ephemeral-storage=1Gi devices.kubevirt.io/kvm=1"},
}

// BenchmarkInFlight: each migration with its VMI and two pods.
func BenchmarkInFlight(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		for _, r := range resources {
			s := crowd(n, r.list, func(s *scene, vmi *kubevirtv1.VirtualMachineInstance, source *corev1.Pod) {
				s.running(vmi, source, "m-"+vmi.Name, "target-"+vmi.Name)
			})
			measure(b, fmt.Sprintf("migrations=%d/resources=%d", n, r.n), s, n)
		}
	}
}

// BenchmarkInFlightBlocked: what their target pods would cost is worked out from the
// source pods.
func BenchmarkInFlightBlocked(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		s := crowd(n, resources[1].list, func(s *scene, vmi *kubevirtv1.VirtualMachineInstance, _ *corev1.Pod) {
			s.refused(vmi, "m-"+vmi.Name)
		})
		measure(b, fmt.Sprintf("migrations=%d", n), s, n)
	}
}

// BenchmarkInFlightPersistent: the virtual machines have backend storage, so each
// migration looks for its claims among all of them.
func BenchmarkInFlightPersistent(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		s := crowd(n, resources[1].list, func(s *scene, vmi *kubevirtv1.VirtualMachineInstance, source *corev1.Pod) {
			s.running(vmi, source, "m-"+vmi.Name, "target-"+vmi.Name)
			old := s.persistent(vmi)
			old.Name += vmi.Name
			vmi.Status.VolumeStatus[0].PersistentVolumeClaimInfo.ClaimName = old.Name
			s.claim("second-"+vmi.Name, kubevirtv1.MigrationNameLabel, "m-"+vmi.Name, corev1.ReadWriteOnce).
				OwnerReferences[0].UID = vmi.UID
		})
		measure(b, fmt.Sprintf("migrations=%d", n), s, n)
	}
}

// BenchmarkInFlightOfOne: one VMI, and no end of VMIMs that are over.
func BenchmarkInFlightOfOne(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		s := crowd(1, resources[1].list, func(s *scene, vmi *kubevirtv1.VirtualMachineInstance, source *corev1.Pod) {
			for i := range n - 1 {
				s.vmim(vmi, fmt.Sprintf("old%d", i), kubevirtv1.MigrationFailed)
			}
			s.running(vmi, source, "m", "target")
		})
		measure(b, fmt.Sprintf("migrations=%d", n), s, n)
	}
}

// BenchmarkInFlightIdle: virtual machines of which none migrates.
func BenchmarkInFlightIdle(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		s := crowd(n, resources[1].list, func(*scene, *kubevirtv1.VirtualMachineInstance, *corev1.Pod) {})
		measure(b, fmt.Sprintf("machines=%d", n), s, n)
	}
}

// measure reports also what one of the n migrations costs.
func measure(b *testing.B, name string, s migration.Snapshot, n int) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for b.Loop() {
			migration.InFlight(s)
		}
		runtime.ReadMemStats(&after)
		each := float64(b.N) * float64(n)
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/each, "ns/each")
		b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/each, "B/each")
		b.ReportMetric(float64(after.Mallocs-before.Mallocs)/each, "allocs/each")
	})
}
