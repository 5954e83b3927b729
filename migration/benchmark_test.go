package migration_test

import (
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
)

// A begin makes something happen to a VMI that runs in source.
type begin func(s *scene, vmi *kubevirtv1.VirtualMachineInstance, source *corev1.Pod)

// What may happen to each VMI of a benchmark.
var (
	idle    begin = func(*scene, *kubevirtv1.VirtualMachineInstance, *corev1.Pod) {}
	refused begin = func(s *scene, vmi *kubevirtv1.VirtualMachineInstance, _ *corev1.Pod) { s.refused(vmi, "m-"+vmi.Name) }
	running begin = func(s *scene, vmi *kubevirtv1.VirtualMachineInstance, source *corev1.Pod) {
		s.running(vmi, source, "m-"+vmi.Name, "target-"+vmi.Name)
	}
	over begin = func(s *scene, vmi *kubevirtv1.VirtualMachineInstance, source *corev1.Pod) {
		vmim, _ := s.running(vmi, source, "m-"+vmi.Name, "target-"+vmi.Name)
		succeed(vmi, vmim)
		s.forget(source)
	}
	// persistent has backend storage, so each migration looks for its claims among all of them.
	persistent begin = func(s *scene, vmi *kubevirtv1.VirtualMachineInstance, source *corev1.Pod) {
		running(s, vmi, source)
		old := s.persistent(vmi)
		old.Name += vmi.Name
		vmi.Status.VolumeStatus[0].PersistentVolumeClaimInfo.ClaimName = old.Name
		s.claim("second-"+vmi.Name, kubevirtv1.MigrationNameLabel, "m-"+vmi.Name, corev1.ReadWriteOnce).OwnerReferences[0].UID = vmi.UID
	}
)

// Requests and limits of the container compute.
const (
	twoResources   = " / cpu=1 memory=2588Mi"
	eightResources = "cpu=100m memory=1294Mi ephemeral-storage=50M devices.kubevirt.io/kvm=1" +
		" / cpu=1 memory=2588Mi ephemeral-storage=1Gi devices.kubevirt.io/kvm=1"
)

// crowd is n VMIs; begin makes something happen to each of them.
func crowd(b testing.TB, n int, resources string, begin begin) migration.Snapshot {
	s := newScene(b)
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

// BenchmarkInFlight reports also what one of n virtual machines costs, or one of n VMIMs of a
// single one, all of which are over but the last.
func BenchmarkInFlight(b *testing.B) {
	for _, c := range []struct {
		name      string
		resources string
		begin     begin
	}{
		{"running/resources=2", twoResources, running},
		{"running/resources=8", eightResources, running},
		{"refused", eightResources, refused},
		{"persistent", eightResources, persistent},
		{"idle", eightResources, idle},
	} {
		for _, n := range []int{1, 10, 100, 1000} {
			measure(b, fmt.Sprintf("%s/machines=%d", c.name, n), crowd(b, n, c.resources, c.begin), n)
		}
	}
	for _, n := range []int{1, 10, 100, 1000} {
		s := crowd(b, 1, eightResources, func(s *scene, vmi *kubevirtv1.VirtualMachineInstance, source *corev1.Pod) {
			for i := range n - 1 {
				s.vmim(vmi, fmt.Sprintf("old%d", i), kubevirtv1.MigrationFailed)
			}
			running(s, vmi, source)
		})
		measure(b, fmt.Sprintf("one/migrations=%d", n), s, n)
	}
}

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
