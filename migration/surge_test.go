package migration_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// compute returns the resources of the container that runs the virtual machine.
func compute(pod *corev1.Pod) *corev1.ResourceRequirements { return &pod.Spec.Containers[0].Resources }

// set replaces requests and limits of compute.
func set(pod *corev1.Pod, requests, limits string) {
	compute(pod).Requests = with(compute(pod).Requests, requests)
	compute(pod).Limits = with(compute(pod).Limits, limits)
}

// ofMemory is onePod with other requests and limits of compute.
func ofMemory(request, limit string) corev1.ResourceList {
	requests := plus(list("q="+request), list("q=35M"))["q"]
	limits := plus(list("q="+limit), list("q=60M"))["q"]
	l := onePod.DeepCopy()
	l["requests.memory"], l["memory"], l["limits.memory"] = requests, requests.DeepCopy(), limits
	return l
}

func TestLimitsThatAQuotaDemands(t *testing.T) {
	unlimited := func(pod *corev1.Pod) {
		delete(compute(pod).Limits, corev1.ResourceCPU)
		delete(compute(pod).Limits, corev1.ResourceMemory)
	}
	t.Run("source older than the quota", func(t *testing.T) {
		s, vmi, source := newScene()
		unlimited(source)
		s.refused(vmi, "m1")
		s.expect(t, blocked) // 1 core, and twice 1294Mi
	})
	t.Run("more virtual CPUs", func(t *testing.T) {
		s, vmi, source := newScene()
		unlimited(source)
		vmi.Status.CurrentCPUTopology = &kubevirtv1.CPUTopology{Cores: 2, Sockets: 2, Threads: 2}
		threads := uint32(3)
		vmi.Spec.Domain.IOThreads = &kubevirtv1.DiskIOThreads{SupplementalPoolThreadCount: &threads}
		s.refused(vmi, "m1")
		s.expect(t, flight{"uid-m1", quota.Blocked, with(onePod, "limits.cpu=11015m"), nil})
	})
	t.Run("topology not reported", func(t *testing.T) {
		s, vmi, source := newScene()
		unlimited(source)
		vmi.Status.CurrentCPUTopology = nil
		vmi.Spec.Domain.CPU = &kubevirtv1.CPU{Cores: 3}
		s.refused(vmi, "m1")
		s.expect(t, flight{"uid-m1", quota.Blocked, with(onePod, "limits.cpu=3015m"), nil})
		vmi.Spec.Domain.CPU = nil
		s.expect(t, blocked)
	})
	ratios := map[string]string{
		"1.5": "1941Mi", "3": "3882Mi", "1": "1294Mi", "1.0000001": "1356857479", // rounded down
		"": "2588Mi", "0.9": "2588Mi", "-1": "2588Mi", "many": "2588Mi", "NaN": "2588Mi", "Inf": "2588Mi",
		"10": "12940Mi", "10.5": "12940Mi", "1000": "12940Mi", "1e300": "12940Mi", // no more than ten times
	}
	for ratio, limit := range ratios {
		t.Run("ratio "+ratio, func(t *testing.T) {
			s, vmi, source := newScene()
			unlimited(source)
			s.refused(vmi, "m1")
			s.Namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{kubevirtv1.AutoMemoryLimitsRatioLabel: ratio}}}
			s.expect(t, flight{"uid-m1", quota.Blocked, ofMemory("1294Mi", limit), nil})
		})
	}
	t.Run("no ratio", func(t *testing.T) {
		s, vmi, source := newScene()
		unlimited(source)
		s.refused(vmi, "m1")
		s.Namespace = &corev1.Namespace{}
		s.expect(t, blocked)
	})
	t.Run("ratio changed since the source was made", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.refused(vmi, "m1")
		s.Namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{kubevirtv1.AutoMemoryLimitsRatioLabel: "1.5"}}}
		s.expect(t, flight{"uid-m1", quota.Blocked, ofMemory("1294Mi", "1941Mi"), nil})
	})
	t.Run("source has the defaults of a LimitRange", func(t *testing.T) {
		s, vmi, source := newScene()
		set(source, "", "cpu=500m memory=2Gi")
		s.refused(vmi, "m1")
		s.expect(t, blocked)
	})
	t.Run("source already has the CPUs that the guest did not get", func(t *testing.T) {
		s, vmi, source := newScene()
		set(source, "cpu=200m", "cpu=2")
		s.refused(vmi, "m1")
		s.expect(t, flight{"uid-m1", quota.Blocked, with(onePod, "requests.cpu=205m cpu=205m limits.cpu=2015m"), nil})
	})
	t.Run("the VMI has its own", func(t *testing.T) {
		s, vmi, source := newScene()
		vmi.Spec.Domain.Resources.Limits = list("cpu=500m memory=1Gi")
		set(source, "", "cpu=500m memory=1294Mi")
		s.refused(vmi, "m1")
		own := with(ofMemory("1294Mi", "1294Mi"), "limits.cpu=515m")
		s.expect(t, flight{"uid-m1", quota.Blocked, own, nil})
		unlimited(source) // by whomever
		s.expect(t, flight{"uid-m1", quota.Blocked, with(onePod, "limits.cpu=15m limits.memory=60M"), nil})
	})
	t.Run("dedicated CPUs", func(t *testing.T) {
		s, vmi, source := newScene()
		vmi.Spec.Domain.CPU.DedicatedCPUPlacement = true
		set(source, "cpu=2", "cpu=2 memory=1294Mi")
		s.refused(vmi, "m1")
		s.expect(t, flight{"uid-m1", quota.Blocked, with(ofMemory("1294Mi", "1294Mi"), "limits.cpu=2015m requests.cpu=2005m cpu=2005m"), nil})
	})
	t.Run("no memory request", func(t *testing.T) {
		s, vmi, source := newScene()
		unlimited(source)
		delete(compute(source).Requests, corev1.ResourceMemory)
		s.refused(vmi, "m1")
		s.expect(t, flight{"uid-m1", quota.Blocked, with(onePod, "limits.memory=60M requests.memory=35M memory=35M"), nil})
	})
	t.Run("target is the truth", func(t *testing.T) {
		s, vmi, source := newScene()
		unlimited(source)
		_, target := s.running(vmi, source, "m1", "target")
		unlimited(target) // the quota went in the meantime
		bare := with(onePod, "limits.cpu=15m limits.memory=60M")
		s.expect(t, flight{"uid-m1", quota.Charged, bare, bare})
	})
}

// limitRange is one of containers.
func limitRange(name, requests, limits string) *corev1.LimitRange {
	return &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
			{Type: corev1.LimitTypeContainer, DefaultRequest: list(requests), Default: list(limits)},
		}},
	}
}

// TestLimitRange: the source, older than the LimitRanges, has no limit on ephemeral
// storage, and its sidecar no request either.
func TestLimitRange(t *testing.T) {
	const storage = "requests.ephemeral-storage=150M ephemeral-storage=150M limits.ephemeral-storage=2G"
	for _, c := range []struct {
		name   string
		ranges []*corev1.LimitRange
		want   string
	}{
		{"request and limit", []*corev1.LimitRange{limitRange("a", "ephemeral-storage=100M", "ephemeral-storage=1G")}, storage},
		{
			"request",
			[]*corev1.LimitRange{limitRange("a", "ephemeral-storage=100M", "")},
			"requests.ephemeral-storage=150M ephemeral-storage=150M",
		},
		{"limit", []*corev1.LimitRange{limitRange("a", "", "ephemeral-storage=1G")}, "limits.ephemeral-storage=2G"},
		{
			"several",
			[]*corev1.LimitRange{limitRange("a", "", "ephemeral-storage=1G"), limitRange("b", "ephemeral-storage=100M", "")},
			storage,
		},
		{ // Kubernetes takes either; the target pod must fit in any case
			"several that disagree", []*corev1.LimitRange{
				limitRange("a", "ephemeral-storage=100M", "ephemeral-storage=500M"),
				limitRange("b", "ephemeral-storage=50M", "ephemeral-storage=1G"),
			}, storage,
		},
		{"defaults that nothing lacks", []*corev1.LimitRange{limitRange("a", "cpu=1 memory=10Gi", "cpu=1 memory=10Gi")}, ""},
		{"of pods", []*corev1.LimitRange{{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
			{Type: corev1.LimitTypePod, DefaultRequest: list("ephemeral-storage=100M"), Default: list("ephemeral-storage=1G")},
		}}}}, ""},
		{"the last item of a LimitRange", []*corev1.LimitRange{{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
			{Type: corev1.LimitTypeContainer, Default: list("ephemeral-storage=5G")},
			{Type: corev1.LimitTypeContainer, Default: list("ephemeral-storage=1G"), DefaultRequest: list("ephemeral-storage=100M")},
		}}}}, storage},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, vmi, source := newScene()
			s.LimitRanges = c.ranges
			s.refused(vmi, "m1")
			want := flight{"uid-m1", quota.Blocked, with(onePod, c.want), nil}
			s.expect(t, want)
			slices.Reverse(s.LimitRanges)
			s.expect(t, want)

			s.running(vmi, source, "m2", "target")
			s.Migrations = s.Migrations[1:]
			s.expect(t, flight{"uid-m2", quota.Charged, onePod, onePod})
		})
	}
	t.Run("containers without anything", func(t *testing.T) {
		s, vmi, source := newScene()
		source.Spec.Containers = append(source.Spec.Containers, corev1.Container{Name: "hook-sidecar-0"})
		source.Spec.InitContainers = append(source.Spec.InitContainers, corev1.Container{Name: "virtiofs"})
		s.LimitRanges = []*corev1.LimitRange{limitRange("a", "cpu=10m", "cpu=2500m")}
		s.refused(vmi, "m1")
		// With the sidecar: 1 + 2.5 cores of the containers are more than the 2.5 of
		// the init container.
		s.expect(t, flight{"uid-m1", quota.Blocked, with(onePod, "limits.cpu=3515m requests.cpu=115m cpu=115m"), nil})
	})
}

func TestMemoryOverheadGrows(t *testing.T) {
	reported := resource.MustParse("1294Mi") // 1Gi more than the source was rendered with
	t.Run("reported on the VMI", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.refused(vmi, "m1")
		vmi.Status.Memory.MemoryOverhead = &reported
		s.expect(t, flight{"uid-m1", quota.Blocked, ofMemory("2318Mi", "4636Mi"), nil})
		s.LimitRanges = []*corev1.LimitRange{limitRange("a", "memory=1", "memory=1")}
		s.expect(t, flight{"uid-m1", quota.Blocked, ofMemory("2318Mi", "4636Mi"), nil})
	})
	t.Run("limits of its own", func(t *testing.T) {
		s, vmi, source := newScene()
		s.refused(vmi, "m1")
		vmi.Spec.Domain.Resources.Limits = list("memory=1Gi")
		set(source, "", "memory=1294Mi")
		vmi.Status.Memory.MemoryOverhead = &reported
		s.expect(t, flight{"uid-m1", quota.Blocked, ofMemory("2318Mi", "2318Mi"), nil})
	})
	t.Run("dedicated CPUs", func(t *testing.T) {
		s, vmi, source := newScene()
		s.refused(vmi, "m1")
		vmi.Spec.Domain.CPU.DedicatedCPUPlacement = true
		set(source, "", "memory=1294Mi")
		vmi.Status.Memory.MemoryOverhead = &reported
		s.expect(t, flight{"uid-m1", quota.Blocked, ofMemory("2318Mi", "2318Mi"), nil})
	})
	t.Run("overcommitted", func(t *testing.T) {
		s, vmi, source := newScene()
		s.refused(vmi, "m1")
		vmi.Spec.Domain.Resources.OvercommitGuestOverhead = true
		set(source, "memory=1Gi", "memory=2Gi")
		vmi.Status.Memory.MemoryOverhead = &reported
		s.expect(t, flight{"uid-m1", quota.Blocked, ofMemory("1Gi", "2Gi"), nil})
		vmi.Spec.Domain.Resources.Limits = list("memory=1Gi")
		set(source, "memory=1Gi", "memory=1294Mi")
		s.expect(t, flight{"uid-m1", quota.Blocked, ofMemory("1Gi", "2318Mi"), nil})
	})
	t.Run("less", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.refused(vmi, "m1")
		less := resource.MustParse("1Mi")
		vmi.Status.Memory.MemoryOverhead = &less
		s.expect(t, blocked)
	})
	for _, annotation := range []string{"", "many", "-1", "1.5"} {
		t.Run("source says "+annotation, func(t *testing.T) {
			s, vmi, source := newScene()
			s.refused(vmi, "m1")
			vmi.Status.Memory.MemoryOverhead = &reported
			source.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = annotation
			s.expect(t, blocked)
			vmi.Status.Memory = nil
			s.expect(t, blocked)
		})
	}
	t.Run("of an existing target", func(t *testing.T) {
		s, vmi, source := newScene()
		_, target := s.running(vmi, source, "m1", "target")
		set(target, "memory=2318Mi", "memory=4636Mi")
		target.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = "1356857344"
		s.expect(t, flight{"uid-m1", quota.Charged, ofMemory("2318Mi", "4636Mi"), ofMemory("2318Mi", "4636Mi")})
	})
}

func hotPlug(vmi *kubevirtv1.VirtualMachineInstance, conditions ...kubevirtv1.VirtualMachineInstanceConditionType) {
	for _, c := range conditions {
		vmi.Status.Conditions = append(vmi.Status.Conditions, kubevirtv1.VirtualMachineInstanceCondition{Type: c, Status: corev1.ConditionTrue})
	}
}

const (
	cpuChange    = kubevirtv1.VirtualMachineInstanceVCPUChange
	memoryChange = kubevirtv1.VirtualMachineInstanceMemoryChange
)

// TestGuestGrowth: the surge is what the target costs less the growth, before the
// target is there as well as after. Each vCPU more takes 8Mi of overhead, and each
// Gi of guest memory 2Mi: that is known when the target is there, and is surge.
func TestGuestGrowth(t *testing.T) {
	twoCPUs := kubevirtv1.CPU{Cores: 1, Sockets: 2, Threads: 1, MaxSockets: 4}
	twoGi := resource.MustParse("2Gi")
	for _, c := range []struct {
		name           string
		change         []kubevirtv1.VirtualMachineInstanceConditionType
		vmi            func(*kubevirtv1.VirtualMachineInstance)
		source         string // requests and limits of its compute container
		target         string
		overhead       string // of the target, in bytes; that of the source is 270Mi
		expected, want corev1.ResourceList
	}{
		{
			name: "CPU", change: []kubevirtv1.VirtualMachineInstanceConditionType{cpuChange},
			vmi:      func(v *kubevirtv1.VirtualMachineInstance) { v.Spec.Domain.CPU = &twoCPUs },
			target:   "cpu=200m memory=1302Mi / cpu=2 memory=2604Mi",
			overhead: "291504128", // 278Mi
			expected: onePod, want: ofMemory("1302Mi", "2604Mi"),
		},
		{
			name: "CPU, limits of its own", change: []kubevirtv1.VirtualMachineInstanceConditionType{cpuChange},
			vmi: func(v *kubevirtv1.VirtualMachineInstance) {
				v.Spec.Domain.CPU = &twoCPUs
				v.Spec.Domain.Resources.Limits = list("cpu=2 memory=1Gi")
			},
			source: " / cpu=1 memory=1294Mi", target: "cpu=200m memory=1302Mi / cpu=2 memory=1302Mi",
			overhead: "291504128",
			expected: ofMemory("1294Mi", "1294Mi"), want: ofMemory("1302Mi", "1302Mi"),
		},
		{
			name: "CPU, source older than the quota", change: []kubevirtv1.VirtualMachineInstanceConditionType{cpuChange},
			vmi:    func(v *kubevirtv1.VirtualMachineInstance) { v.Spec.Domain.CPU = &twoCPUs },
			source: "/", target: "cpu=200m memory=1302Mi / cpu=2 memory=2604Mi",
			overhead: "291504128",
			expected: onePod, want: ofMemory("1302Mi", "2604Mi"),
		},
		{
			name: "CPU, a request of its own", change: []kubevirtv1.VirtualMachineInstanceConditionType{cpuChange},
			vmi:    func(v *kubevirtv1.VirtualMachineInstance) { v.Spec.Domain.CPU = &twoCPUs },
			source: "cpu=500m / ", target: "cpu=600m memory=1302Mi / cpu=2 memory=2604Mi",
			overhead: "291504128",
			expected: with(onePod, "requests.cpu=505m cpu=505m"),
			want:     with(ofMemory("1302Mi", "2604Mi"), "requests.cpu=505m cpu=505m"),
		},
		{
			name:   "CPU and memory, source with the defaults of a LimitRange",
			change: []kubevirtv1.VirtualMachineInstanceConditionType{cpuChange, memoryChange},
			vmi: func(v *kubevirtv1.VirtualMachineInstance) {
				v.Spec.Domain.CPU = &twoCPUs
				v.Spec.Domain.Memory.Guest = &twoGi
			},
			source: " / cpu=500m memory=2Gi", target: "cpu=200m memory=2318Mi / cpu=2 memory=4636Mi",
			overhead: "283115520", // the same
			expected: onePod, want: onePod,
		},
		{
			name: "huge", change: []kubevirtv1.VirtualMachineInstanceConditionType{cpuChange, memoryChange},
			vmi: func(v *kubevirtv1.VirtualMachineInstance) {
				v.Spec.Domain.CPU = &twoCPUs
				v.Spec.Domain.Memory.Guest = &twoGi
				v.Spec.Domain.Resources.Limits = list("cpu=1 memory=1")
			},
			source:   "cpu=100E memory=100E / cpu=100E memory=12345678901234567890",
			target:   "cpu=300E memory=300E / cpu=300E memory=22345678901234567890",
			overhead: "283115520",
			expected: with(onePod, `cpu=100000000000000000000005m requests.cpu=100000000000000000000005m limits.cpu=100000000000000000000015m
				memory=100000000000035000000 requests.memory=100000000000035000000 limits.memory=12345678901294567890`),
			want: with(onePod, `cpu=100000000000000000000005m requests.cpu=100000000000000000000005m limits.cpu=100000000000000000000015m
				memory=100000000000035000000 requests.memory=100000000000035000000 limits.memory=12345678901294567890`),
		},
		{
			name: "dedicated CPUs", change: []kubevirtv1.VirtualMachineInstanceConditionType{cpuChange},
			vmi: func(v *kubevirtv1.VirtualMachineInstance) {
				v.Spec.Domain.CPU = twoCPUs.DeepCopy()
				v.Spec.Domain.CPU.DedicatedCPUPlacement = true
			},
			source: "cpu=1 memory=1394Mi / cpu=1 memory=1394Mi", target: "cpu=2 memory=1402Mi / cpu=2 memory=1402Mi",
			overhead: "291504128",
			expected: with(ofMemory("1394Mi", "1394Mi"), "requests.cpu=1005m cpu=1005m"),
			want:     with(ofMemory("1402Mi", "1402Mi"), "requests.cpu=1005m cpu=1005m"),
		},
		{
			name: "memory", change: []kubevirtv1.VirtualMachineInstanceConditionType{memoryChange},
			vmi:      func(v *kubevirtv1.VirtualMachineInstance) { v.Spec.Domain.Memory.Guest = &twoGi },
			target:   "memory=2320Mi / memory=4640Mi",
			overhead: "285212672", // 272Mi
			expected: onePod, want: ofMemory("1296Mi", "2592Mi"),
		},
		{
			name: "memory, limits of its own", change: []kubevirtv1.VirtualMachineInstanceConditionType{memoryChange},
			vmi: func(v *kubevirtv1.VirtualMachineInstance) {
				v.Spec.Domain.Memory.Guest = &twoGi
				v.Spec.Domain.Resources.Limits = list("memory=2Gi")
			},
			source: " / memory=1294Mi", target: "memory=2320Mi / memory=2320Mi",
			overhead: "285212672",
			expected: ofMemory("1294Mi", "1294Mi"), want: ofMemory("1296Mi", "1296Mi"),
		},
		{
			name: "memory, source older than the quota", change: []kubevirtv1.VirtualMachineInstanceConditionType{memoryChange},
			vmi:    func(v *kubevirtv1.VirtualMachineInstance) { v.Spec.Domain.Memory.Guest = &twoGi },
			source: "/", target: "memory=2320Mi / cpu=1 memory=4640Mi",
			overhead: "285212672",
			expected: onePod, want: ofMemory("1296Mi", "2592Mi"),
		},
		{
			name: "memory, overcommitted", change: []kubevirtv1.VirtualMachineInstanceConditionType{memoryChange},
			vmi: func(v *kubevirtv1.VirtualMachineInstance) {
				v.Spec.Domain.Memory.Guest = &twoGi
				v.Spec.Domain.Resources.OvercommitGuestOverhead = true
			},
			source: "memory=1Gi / memory=2Gi", target: "memory=2Gi / memory=4Gi",
			overhead: "285212672",
			expected: ofMemory("1Gi", "2Gi"), want: ofMemory("1Gi", "2Gi"),
		},
		{
			name: "memory, overcommitted, limits of its own", change: []kubevirtv1.VirtualMachineInstanceConditionType{memoryChange},
			vmi: func(v *kubevirtv1.VirtualMachineInstance) {
				v.Spec.Domain.Memory.Guest = &twoGi
				v.Spec.Domain.Resources.OvercommitGuestOverhead = true
				v.Spec.Domain.Resources.Limits = list("memory=2Gi")
			},
			source: "memory=1Gi / memory=1294Mi", target: "memory=2Gi / memory=2320Mi",
			overhead: "285212672",
			expected: ofMemory("1Gi", "1294Mi"), want: ofMemory("1Gi", "1296Mi"),
		},
		{
			name: "memory, dedicated CPUs", change: []kubevirtv1.VirtualMachineInstanceConditionType{memoryChange},
			vmi: func(v *kubevirtv1.VirtualMachineInstance) {
				v.Spec.Domain.Memory.Guest = &twoGi
				v.Spec.Domain.CPU.DedicatedCPUPlacement = true
			},
			source: "cpu=1 memory=1394Mi / cpu=1 memory=1394Mi", target: "cpu=1 memory=2420Mi / cpu=1 memory=2420Mi",
			overhead: "285212672",
			expected: with(ofMemory("1394Mi", "1394Mi"), "requests.cpu=1005m cpu=1005m"),
			want:     with(ofMemory("1396Mi", "1396Mi"), "requests.cpu=1005m cpu=1005m"),
		},
		{
			name: "huge pages", change: []kubevirtv1.VirtualMachineInstanceConditionType{memoryChange},
			vmi: func(v *kubevirtv1.VirtualMachineInstance) {
				v.Spec.Domain.Memory.Guest = &twoGi
				v.Spec.Domain.Memory.Hugepages = &kubevirtv1.Hugepages{PageSize: "2Mi"}
			},
			source:   "memory=270Mi hugepages-2Mi=1Gi / memory=540Mi hugepages-2Mi=1Gi",
			target:   "memory=272Mi hugepages-2Mi=2Gi / memory=544Mi hugepages-2Mi=2Gi",
			overhead: "285212672",
			expected: with(ofMemory("270Mi", "540Mi"), "hugepages-2Mi=1Gi requests.hugepages-2Mi=1Gi"),
			want:     with(ofMemory("272Mi", "544Mi"), "hugepages-2Mi=1Gi requests.hugepages-2Mi=1Gi"),
		},
		{
			name: "CPU and memory, and 20Mi of overhead", change: []kubevirtv1.VirtualMachineInstanceConditionType{cpuChange, memoryChange},
			vmi: func(v *kubevirtv1.VirtualMachineInstance) {
				v.Spec.Domain.CPU = &twoCPUs
				v.Spec.Domain.Memory.Guest = &twoGi
			},
			target:   "cpu=200m memory=2338Mi / cpu=2 memory=4676Mi",
			overhead: "304087040", // 290Mi
			expected: onePod, want: ofMemory("1314Mi", "2628Mi"),
		},
		{
			name: "overhead not reported", change: []kubevirtv1.VirtualMachineInstanceConditionType{memoryChange},
			vmi:      func(v *kubevirtv1.VirtualMachineInstance) { v.Spec.Domain.Memory.Guest = &twoGi },
			target:   "memory=2320Mi / memory=4640Mi",
			overhead: "unknown",
			expected: onePod, want: onePod, // so it looks like guest
		},
		{
			name: "less", change: []kubevirtv1.VirtualMachineInstanceConditionType{cpuChange, memoryChange},
			vmi:      func(*kubevirtv1.VirtualMachineInstance) {},
			target:   "cpu=50m memory=1000Mi / cpu=500m memory=2000Mi",
			overhead: "283115520",
			expected: onePod, want: with(ofMemory("1000Mi", "2000Mi"), "limits.cpu=515m requests.cpu=55m cpu=55m"),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, vmi, source := newScene()
			c.vmi(vmi)
			hotPlug(vmi, c.change...)
			render(source, c.source)
			m := s.refused(vmi, "m1")
			s.expect(t, flight{"uid-m1", quota.Blocked, c.expected, nil})

			s.forget(m)
			m, target := s.running(vmi, source, "m1", "target")
			compute(target).Requests, compute(target).Limits = compute(source).Requests, compute(source).Limits
			render(target, c.target)
			target.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = c.overhead
			before := copyOf(s.Snapshot)
			s.expect(t, flight{"uid-m1", quota.Charged, c.want, c.want})
			require.True(t, equal(before, s.Snapshot), "the input changed")

			// When it is over, the source goes, whatever grew.
			vmi.Status.MigrationState.Completed = true
			cost := quota.Footprint(source)
			s.expect(t, flight{"uid-m1", quota.Charged, cost, cost})
			// Had it failed, the target would go; what it grew by is the tenant's.
			fail(vmi, m)
			s.expect(t, flight{"uid-m1", quota.Charged, c.want, c.want})
		})
	}
}

// TestGuestGrowthMustFitStatic: a migration raises the limits for the VM as it is. What
// it is to grow by is admitted only if the tenant has it.
func TestGuestGrowthMustFitStatic(t *testing.T) {
	s, vmi, source := newScene()
	s.refused(vmi, "m1")
	hotPlug(vmi, memoryChange)
	target := source.DeepCopy()
	set(target, "memory=2318Mi", "memory=4636Mi")
	used, needed := quota.Footprint(source), plus(quota.Footprint(source), quota.Footprint(target))
	for _, c := range []struct {
		static string
		fits   bool
	}{
		{"2773714688", false}, // the VM fills it
		{"4921198335", false},
		{"4921198336", true}, // 2Gi more: 1Gi of guest, and as much again
	} {
		static := list("limits.memory=" + c.static)
		effective := quota.Effective(static, migration.InFlight(s.Snapshot), used)
		need := corev1.ResourceList{corev1.ResourceLimitsMemory: needed[corev1.ResourceLimitsMemory]}
		require.Equal(t, c.fits, covers(effective, need), c.static)
	}
}

// render sets compute to "requests / limits"; "/" takes the limits off.
func render(pod *corev1.Pod, resources string) {
	if resources == "/" {
		delete(compute(pod).Limits, corev1.ResourceCPU)
		delete(compute(pod).Limits, corev1.ResourceMemory)
		return
	}
	requests, limits, _ := strings.Cut(resources, " / ")
	set(pod, requests, limits)
}

// TestNoGuestGrowth: a larger target is surge, unless the migration carries out a
// hot-plug.
func TestNoGuestGrowth(t *testing.T) {
	grown := with(ofMemory("2320Mi", "4640Mi"), "limits.cpu=2015m requests.cpu=205m cpu=205m")
	begin := func() (*scene, *kubevirtv1.VirtualMachineInstance, *corev1.Pod, *corev1.Pod) {
		s, vmi, source := newScene()
		_, target := s.running(vmi, source, "m1", "target")
		set(target, "cpu=200m memory=2320Mi", "cpu=2 memory=4640Mi")
		target.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = "285212672"
		return s, vmi, source, target
	}
	t.Run("no hot-plug", func(t *testing.T) {
		s, _, _, _ := begin()
		s.expect(t, flight{"uid-m1", quota.Charged, grown, grown})
	})
	t.Run("failed hot-plug", func(t *testing.T) {
		s, vmi, _, _ := begin()
		hotPlug(vmi, cpuChange, memoryChange)
		for i := range vmi.Status.Conditions {
			vmi.Status.Conditions[i].Status = corev1.ConditionFalse
		}
		s.expect(t, flight{"uid-m1", quota.Charged, grown, grown})
	})
	t.Run("CPU only", func(t *testing.T) {
		s, vmi, _, _ := begin()
		hotPlug(vmi, cpuChange)
		want := ofMemory("2320Mi", "4640Mi")
		s.expect(t, flight{"uid-m1", quota.Charged, want, want})
	})
	t.Run("memory only", func(t *testing.T) {
		s, vmi, _, _ := begin()
		hotPlug(vmi, memoryChange)
		want := with(ofMemory("1296Mi", "2592Mi"), "limits.cpu=2015m requests.cpu=205m cpu=205m")
		s.expect(t, flight{"uid-m1", quota.Charged, want, want})
	})
	t.Run("overhead not reported on the source", func(t *testing.T) {
		s, vmi, source, _ := begin()
		hotPlug(vmi, cpuChange, memoryChange)
		delete(source.Annotations, kubevirtv1.MemoryOverheadAnnotationBytes)
		s.expect(t, charged) // all that is more looks like guest
	})
	t.Run("no compute container", func(t *testing.T) {
		s, vmi, source, _ := begin()
		hotPlug(vmi, cpuChange, memoryChange)
		source.Spec.Containers[0].Name = "renamed"
		s.expect(t, flight{"uid-m1", quota.Charged, grown, grown})
	})
}

// attachment is what a hot-plug attachment pod costs.
var attachment = list(`pods=1 count/pods=1
	limits.cpu=100m limits.memory=80M requests.cpu=10m cpu=10m requests.memory=2M memory=2M`)

// attach adds the pod that attaches hot-plugged volumes to launcher.
func (s *scene) attach(launcher *corev1.Pod, name string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: s.meta(name)}
	pod.Labels[kubevirtv1.AppLabel] = "hotplug-disk"
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(launcher, corev1.SchemeGroupVersion.WithKind("Pod"))}
	pod.Spec.Containers = []corev1.Container{{Name: "hotplug-disk", Resources: corev1.ResourceRequirements{
		Requests: list("cpu=10m memory=2M"), Limits: list("cpu=100m memory=80M"),
	}}}
	pod.Status.Phase = corev1.PodRunning
	s.Pods = append(s.Pods, pod)
	return pod
}

func TestAttachmentPods(t *testing.T) {
	both := plus(onePod, attachment)
	t.Run("expected, expected beside the target, there", func(t *testing.T) {
		s, vmi, source := newScene()
		s.attach(source, "hp-source")
		m := s.refused(vmi, "m1")
		s.expect(t, flight{"uid-m1", quota.Blocked, both, nil})
		target := s.launcher(vmi, "target", m.UID)
		s.expect(t, flight{"uid-m1", quota.Charged, both, onePod})
		hp := s.attach(target, "hp-target")
		s.expect(t, flight{"uid-m1", quota.Charged, both, both})
		require.Nil(t, migration.InFlight(s.Snapshot)[0].Held)
		hp.Status.Phase = corev1.PodSucceeded
		s.expect(t, flight{"uid-m1", quota.Charged, both, onePod})
		m.Status.Phase = kubevirtv1.MigrationFailed
		s.expect(t, charged)
	})
	t.Run("created and not seen", func(t *testing.T) {
		s, vmi, source := newScene()
		s.attach(source, "hp-source")
		s.vmim(vmi, "m1", kubevirtv1.MigrationScheduling)
		s.expect(t, flight{"uid-m1", quota.Charged, both, both})
	})
	t.Run("aborted", func(t *testing.T) {
		s, vmi, source := newScene()
		s.attach(source, "hp-source")
		m, target := s.running(vmi, source, "m1", "target")
		m.DeletionTimestamp = s.deleted()
		s.expect(t, charged)
		s.attach(target, "hp-target")
		s.expect(t, flight{"uid-m1", quota.Charged, both, both})
		s.forget(m)
		s.expect(t, flight{"uid-m1", quota.Charged, both, both})
	})
	t.Run("of the source after success", func(t *testing.T) {
		s, vmi, source := newScene()
		hp := s.attach(source, "hp-source")
		m, target := s.running(vmi, source, "m1", "target")
		larger(s.attach(target, "hp-target"))
		succeed(vmi, m)
		s.expect(t, flight{"uid-m1", quota.Charged, both, both})
		second := s.attach(source, "hp-source2") // a volume came while it migrated
		s.expect(t, flight{"uid-m1", quota.Charged, plus(both, attachment), plus(both, attachment)})
		hp.Status.Phase, second.Status.Phase = corev1.PodFailed, corev1.PodFailed
		s.expect(t, charged)
		m.Status.Phase = kubevirtv1.MigrationRunning // as the VMI knows it first
		s.expect(t, charged)
	})
	t.Run("none of a source without", func(t *testing.T) {
		s, vmi, source := newScene()
		s.attach(source, "hp-source").Status.Phase = corev1.PodSucceeded
		s.refused(vmi, "m1")
		s.expect(t, blocked)
	})
	t.Run("a second one of the source is on its way", func(t *testing.T) {
		s, vmi, source := newScene()
		larger(s.attach(source, "hp-older"))
		s.attach(source, "hp-younger")
		s.refused(vmi, "m1")
		s.expect(t, flight{"uid-m1", quota.Blocked, both, nil})
		slices.Reverse(s.Pods)
		s.expect(t, flight{"uid-m1", quota.Blocked, both, nil})
	})
	t.Run("forged", func(t *testing.T) {
		s, vmi, source := newScene()
		m, target := s.running(vmi, source, "m1", "target")
		s.attach(target, "hp-target")
		larger(s.attach(target, "forged"))
		s.expect(t, flight{"uid-m1", quota.Charged, both, both})
		vmi.Status.MigrationState.TargetAttachmentPodUID = "uid-forged"
		s.expect(t, flight{"uid-m1", quota.Charged, plus(onePod, quota.Footprint(s.Pods[3])), plus(onePod, quota.Footprint(s.Pods[3]))})
		vmi.Status.MigrationState.TargetAttachmentPodUID = ""
		s.Pods[2].Labels = nil
		s.Pods[3].Labels = nil
		s.expect(t, charged)
		m.Status.Phase = kubevirtv1.MigrationFailed
		s.expect(t, charged)
	})
	t.Run("owned by something else of the same UID", func(t *testing.T) {
		s, vmi, source := newScene()
		s.attach(source, "hp-source").OwnerReferences[0].Kind = "Job"
		s.refused(vmi, "m1")
		s.expect(t, blocked)
	})
}

// state is what a backend-storage claim of 10Mi costs.
var state = list(`persistentvolumeclaims=1 count/persistentvolumeclaims=1 requests.storage=10Mi
	ssd.storageclass.storage.k8s.io/persistentvolumeclaims=1 ssd.storageclass.storage.k8s.io/requests.storage=10Mi`)

// claim adds a backend-storage claim of the first VMI.
func (s *scene) claim(name, label, value string, mode corev1.PersistentVolumeAccessMode) *corev1.PersistentVolumeClaim {
	class := "ssd"
	pvc := &corev1.PersistentVolumeClaim{ObjectMeta: s.meta(name)}
	pvc.Labels[label] = value
	pvc.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(s.VMIs[0], kubevirtv1.VirtualMachineInstanceGroupVersionKind)}
	pvc.Spec.StorageClassName = &class
	pvc.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{mode}
	pvc.Spec.Resources.Requests = list("storage=10Mi")
	pvc.Status.Phase = corev1.ClaimBound
	pvc.Status.AccessModes = pvc.Spec.AccessModes
	s.PVCs = append(s.PVCs, pvc)
	return pvc
}

const persistentStateFor = "persistent-state-for"

// persistent gives vmi a persistent TPM, whose state is in a claim that only one
// node can use.
func (s *scene) persistent(vmi *kubevirtv1.VirtualMachineInstance) *corev1.PersistentVolumeClaim {
	yes := true
	vmi.Spec.Domain.Devices.TPM = &kubevirtv1.TPMDevice{Persistent: &yes}
	pvc := s.claim("persistent-state-for-vm1-abcde", persistentStateFor, vmi.Name, corev1.ReadWriteOnce)
	vmi.Status.VolumeStatus = []kubevirtv1.VolumeStatus{{
		Name:                      "persistent-state-for-this-vm",
		PersistentVolumeClaimInfo: &kubevirtv1.PersistentVolumeClaimInfo{ClaimName: pvc.Name},
	}}
	return pvc
}

func TestBackendStorage(t *testing.T) {
	both := plus(onePod, state)
	t.Run("expected", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.persistent(vmi)
		m := s.refused(vmi, "m1")
		s.expect(t, flight{"uid-m1", quota.Blocked, both, nil})
		m.Status.Phase = kubevirtv1.MigrationScheduling
		s.expect(t, flight{"uid-m1", quota.Charged, both, both})
	})
	t.Run("there, and the pod refused", func(t *testing.T) {
		s, vmi, source := newScene()
		old := s.persistent(vmi)
		m := s.refused(vmi, "m1")
		second := s.claim("persistent-state-for-vm1-fghij", kubevirtv1.MigrationNameLabel, "m1", corev1.ReadWriteOnce)
		second.Spec.Resources.Requests = list("storage=20Mi")
		large := with(state, "requests.storage=20Mi ssd.storageclass.storage.k8s.io/requests.storage=20Mi")
		s.expect(t, flight{"uid-m1", quota.Charged, plus(onePod, large), large})
		m.Status.MigrationState.SourcePersistentStatePVCName = old.Name
		m.Status.MigrationState.TargetPersistentStatePVCName = second.Name
		delete(second.Labels, kubevirtv1.MigrationNameLabel)
		s.expect(t, flight{"uid-m1", quota.Charged, plus(onePod, large), large})
		m.Status.Phase = kubevirtv1.MigrationScheduling // created, and not seen
		s.expect(t, flight{"uid-m1", quota.Charged, plus(onePod, large), plus(onePod, large)})

		s.forget(m)
		m, _ = s.running(vmi, source, "m1", "target")
		vmi.Status.MigrationState.SourcePersistentStatePVCName = old.Name
		vmi.Status.MigrationState.TargetPersistentStatePVCName = second.Name
		s.expect(t, flight{"uid-m1", quota.Charged, plus(onePod, large), plus(onePod, large)})
		require.Nil(t, migration.InFlight(s.Snapshot)[0].Held)

		// At success the target's claim becomes that of the VMI, and the source's goes.
		second.Labels[persistentStateFor] = "vm1"
		vmi.Status.VolumeStatus[0].PersistentVolumeClaimInfo.ClaimName = second.Name
		succeed(vmi, m)
		s.expect(t, flight{"uid-m1", quota.Charged, both, both})
		s.forget(m)
		s.expect(t, flight{"uid-m1", quota.Charged, both, both})
		s.forget(old)
		s.expect(t, charged)
	})
	t.Run("aborted", func(t *testing.T) {
		s, vmi, source := newScene()
		s.persistent(vmi)
		m, _ := s.running(vmi, source, "m1", "target")
		second := s.claim("persistent-state-for-vm1-fghij", kubevirtv1.MigrationNameLabel, "m1", corev1.ReadWriteOnce)
		m.DeletionTimestamp = s.deleted()
		s.expect(t, flight{"uid-m1", quota.Charged, both, both})
		second.DeletionTimestamp = s.deleted() // which waits for the pod
		s.expect(t, flight{"uid-m1", quota.Charged, both, both})
		s.forget(second)
		s.expect(t, charged)
	})
	t.Run("VMIM gone", func(t *testing.T) {
		s, vmi, source := newScene()
		old := s.persistent(vmi)
		m, _ := s.running(vmi, source, "m1", "target")
		second := s.claim("persistent-state-for-vm1-fghij", kubevirtv1.MigrationNameLabel, "m1", corev1.ReadWriteOnce)
		vmi.Status.MigrationState.SourcePersistentStatePVCName = old.Name
		vmi.Status.MigrationState.TargetPersistentStatePVCName = second.Name
		fail(vmi, m)
		s.forget(m)
		s.expect(t, flight{"uid-m1", quota.Charged, both, both})
	})
	t.Run("shared", func(t *testing.T) {
		s, vmi, source := newScene()
		pvc := s.persistent(vmi)
		pvc.Status.AccessModes[0] = corev1.ReadWriteMany
		m := s.refused(vmi, "m1")
		s.expect(t, blocked)
		m.Status.MigrationState.SourcePersistentStatePVCName = pvc.Name
		m.Status.MigrationState.TargetPersistentStatePVCName = pvc.Name
		s.expect(t, blocked)
		s.forget(m)
		m, _ = s.running(vmi, source, "m1", "target")
		s.expect(t, charged)
		vmi.Status.MigrationState.SourcePersistentStatePVCName = pvc.Name
		vmi.Status.MigrationState.TargetPersistentStatePVCName = pvc.Name
		s.expect(t, charged)
		succeed(vmi, m)
		s.expect(t, charged)
	})
	t.Run("only one claim is known after success", func(t *testing.T) {
		s, vmi, source := newScene()
		s.persistent(vmi)
		m, _ := s.running(vmi, source, "m1", "target")
		succeed(vmi, m)
		s.expect(t, charged)
	})
	t.Run("known by the VMI only", func(t *testing.T) {
		s, vmi, _ := newScene()
		delete(s.persistent(vmi).Labels, persistentStateFor)
		s.refused(vmi, "m1")
		s.expect(t, flight{"uid-m1", quota.Blocked, both, nil})
	})
	t.Run("the VMI tells of the migration before", func(t *testing.T) {
		s, vmi, _ := newScene()
		vmi.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{
			MigrationUID: "uid-m0", Completed: true, TargetPod: "source",
			SourcePersistentStatePVCName: "gone", TargetPersistentStatePVCName: s.persistent(vmi).Name,
		}
		s.refused(vmi, "m1")
		s.expect(t, flight{"uid-m1", quota.Blocked, both, nil})
	})
	t.Run("known by its label only", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.persistent(vmi)
		vmi.Status.VolumeStatus = nil
		s.refused(vmi, "m1")
		s.expect(t, flight{"uid-m1", quota.Blocked, both, nil})
		s.PVCs[0].Labels[persistentStateFor] = "vm2"
		s.expect(t, blocked)
	})
	t.Run("forged, of a VMI that persists nothing", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.claim("forged", kubevirtv1.MigrationNameLabel, "m1", corev1.ReadWriteOnce)
		s.refused(vmi, "m1")
		s.expect(t, blocked)
	})
	t.Run("of others", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.persistent(vmi)
		s.PVCs = nil
		s.claim("data", kubevirtv1.MigrationNameLabel, "m2", corev1.ReadWriteOnce)
		s.claim("persistent-state-for-vm2-abcde", persistentStateFor, "vm2", corev1.ReadWriteOnce)
		s.refused(vmi, "m1")
		s.expect(t, blocked)
	})
	t.Run("two of one migration", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.persistent(vmi)
		s.refused(vmi, "m1")
		s.claim("persistent-state-for-vm1-fghij", kubevirtv1.MigrationNameLabel, "m1", corev1.ReadWriteOnce)
		s.claim("persistent-state-for-vm1-klmno", kubevirtv1.MigrationNameLabel, "m1", corev1.ReadWriteOnce).
			Spec.Resources.Requests = list("storage=20Mi")
		s.expect(t, flight{"uid-m1", quota.Charged, both, state})
		slices.Reverse(s.PVCs)
		s.expect(t, flight{"uid-m1", quota.Charged, both, state})
	})
}

// TestWhoNeedsBackendStorage: only these get a second claim made.
func TestWhoNeedsBackendStorage(t *testing.T) {
	yes, no := true, false
	efi := func(persistent *bool) *kubevirtv1.Firmware {
		return &kubevirtv1.Firmware{Bootloader: &kubevirtv1.Bootloader{EFI: &kubevirtv1.EFI{Persistent: persistent}}}
	}
	for _, c := range []struct {
		name  string
		vmi   func(*kubevirtv1.VirtualMachineInstance)
		needs bool
	}{
		{"nothing persistent", func(*kubevirtv1.VirtualMachineInstance) {}, false},
		{"persistent TPM", func(v *kubevirtv1.VirtualMachineInstance) {
			v.Spec.Domain.Devices.TPM = &kubevirtv1.TPMDevice{Persistent: &yes, Enabled: &yes}
		}, true},
		{"TPM", func(v *kubevirtv1.VirtualMachineInstance) {
			v.Spec.Domain.Devices.TPM = &kubevirtv1.TPMDevice{Persistent: &no}
		}, false},
		{"TPM that is off", func(v *kubevirtv1.VirtualMachineInstance) {
			v.Spec.Domain.Devices.TPM = &kubevirtv1.TPMDevice{Persistent: &yes, Enabled: &no}
		}, false},
		{"persistent EFI", func(v *kubevirtv1.VirtualMachineInstance) { v.Spec.Domain.Firmware = efi(&yes) }, true},
		{"EFI", func(v *kubevirtv1.VirtualMachineInstance) { v.Spec.Domain.Firmware = efi(nil) }, false},
		{"BIOS", func(v *kubevirtv1.VirtualMachineInstance) {
			v.Spec.Domain.Firmware = &kubevirtv1.Firmware{Bootloader: &kubevirtv1.Bootloader{BIOS: &kubevirtv1.BIOS{}}}
		}, false},
		{"no bootloader", func(v *kubevirtv1.VirtualMachineInstance) { v.Spec.Domain.Firmware = &kubevirtv1.Firmware{} }, false},
		{"changed blocks tracked", func(v *kubevirtv1.VirtualMachineInstance) {
			v.Status.ChangedBlockTracking = &kubevirtv1.ChangedBlockTrackingStatus{State: kubevirtv1.ChangedBlockTrackingEnabled}
		}, true},
		{"tracking begins", func(v *kubevirtv1.VirtualMachineInstance) {
			v.Status.ChangedBlockTracking = &kubevirtv1.ChangedBlockTrackingStatus{State: kubevirtv1.ChangedBlockTrackingInitializing}
		}, true},
		{"tracking is off", func(v *kubevirtv1.VirtualMachineInstance) {
			v.Status.ChangedBlockTracking = &kubevirtv1.ChangedBlockTrackingStatus{State: kubevirtv1.ChangedBlockTrackingDisabled}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, vmi, _ := newScene()
			s.persistent(vmi)
			vmi.Spec.Domain.Devices.TPM = nil
			c.vmi(vmi)
			s.refused(vmi, "m1")
			want := blocked
			if c.needs {
				want.surge = plus(onePod, state)
			}
			s.expect(t, want)
		})
	}
}

// TestScopedQuotas: each quota sees what its scopes select.
func TestScopedQuotas(t *testing.T) {
	high := &corev1.ResourceQuota{}
	high.Spec.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
		{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{"high"}},
	}}
	low := high.DeepCopy()
	low.Spec.ScopeSelector.MatchExpressions[0].Values = []string{"low"}
	scoped := func(scope corev1.ResourceQuotaScope) *corev1.ResourceQuota {
		return &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Scopes: []corev1.ResourceQuotaScope{scope}}}
	}
	bestEffort, notBestEffort := scoped(corev1.ResourceQuotaScopeBestEffort), scoped(corev1.ResourceQuotaScopeNotBestEffort)
	sees := func(t *testing.T, s *scene, rq *corev1.ResourceQuota, surge, hold corev1.ResourceList) {
		t.Helper()
		got := migration.InFlight(s.Snapshot)
		require.NoError(t, broken(s.Snapshot, got))
		under := quota.Under(rq, got)
		if surge == nil {
			require.Empty(t, under)
			return
		}
		require.Len(t, under, 1)
		require.Equal(t, text(surge), text(under[0].Surge))
		require.Equal(t, text(hold), text(held(under[0])))
	}

	t.Run("ordinary", func(t *testing.T) {
		s, vmi, _ := newScene()
		s.refused(vmi, "m1")
		require.Nil(t, migration.InFlight(s.Snapshot)[0].Shares)
		sees(t, s, high, nil, nil)
		sees(t, s, notBestEffort, onePod, nil)
	})
	t.Run("priority class", func(t *testing.T) {
		s, vmi, source := newScene()
		source.Spec.PriorityClassName = "high"
		s.attach(source, "hp-source")
		s.persistent(vmi)
		m := s.refused(vmi, "m1")
		sees(t, s, high, onePod, nil)
		sees(t, s, low, nil, nil)
		sees(t, s, bestEffort, nil, nil)
		sees(t, s, notBestEffort, plus(onePod, attachment), nil)
		sees(t, s, &corev1.ResourceQuota{}, plus(onePod, attachment, state), nil)

		// The class is that of the target, once it is there; its other objects are not.
		s.launcher(vmi, "target", m.UID).Spec.PriorityClassName = "low"
		sees(t, s, high, nil, nil)
		sees(t, s, low, onePod, onePod)
		sees(t, s, notBestEffort, plus(onePod, attachment), onePod)
		sees(t, s, &corev1.ResourceQuota{}, plus(onePod, attachment, state), onePod)
		s.claim("persistent-state-for-vm1-fghij", kubevirtv1.MigrationNameLabel, "m1", corev1.ReadWriteOnce)
		sees(t, s, low, onePod, onePod)
		sees(t, s, notBestEffort, plus(onePod, attachment), onePod)
		sees(t, s, &corev1.ResourceQuota{}, plus(onePod, attachment, state), plus(onePod, state))
	})
	t.Run("priority class of all pods", func(t *testing.T) {
		s, vmi, source := newScene()
		source.Spec.PriorityClassName = "high"
		s.attach(source, "hp-source").Spec.PriorityClassName = "high"
		m := s.refused(vmi, "m1")
		sees(t, s, high, plus(onePod, attachment), nil)
		target := s.launcher(vmi, "target", m.UID)
		target.Spec.PriorityClassName = "high"
		sees(t, s, high, plus(onePod, attachment), onePod)
		s.attach(target, "hp-target").Spec.PriorityClassName = "high"
		sees(t, s, high, plus(onePod, attachment), plus(onePod, attachment))
		sees(t, s, low, nil, nil)
	})
	t.Run("best effort", func(t *testing.T) {
		s, vmi, source := newScene()
		_, target := s.running(vmi, source, "m1", "target")
		target.Spec.InitContainers = nil
		target.Spec.Containers = []corev1.Container{{Name: "compute"}}
		target.Status.QOSClass = corev1.PodQOSBestEffort
		cost := list("pods=1 count/pods=1")
		sees(t, s, bestEffort, cost, cost)
		sees(t, s, notBestEffort, nil, nil)
	})
}
