package migration_test

import (
	"slices"
	"strconv"
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
	threads := uint32(3)
	for name, c := range map[string]struct {
		source string // requests and limits of its compute container; "/" is older than the quota
		change func(s *scene)
		want   corev1.ResourceList
	}{
		"source older than the quota": {"/", func(*scene) {}, onePod}, // 1 core, and twice 1294Mi
		"more virtual CPUs": {"/", func(s *scene) {
			s.vm.Status.CurrentCPUTopology = &kubevirtv1.CPUTopology{Cores: 2, Sockets: 2, Threads: 2}
			s.vm.Spec.Domain.IOThreads = &kubevirtv1.DiskIOThreads{SupplementalPoolThreadCount: &threads}
		}, with(onePod, "limits.cpu=11015m")},
		"topology not reported": {"/", func(s *scene) {
			s.vm.Status.CurrentCPUTopology = nil
			s.vm.Spec.Domain.CPU = &kubevirtv1.CPU{Cores: 3}
		}, with(onePod, "limits.cpu=3015m")},
		"nothing about CPUs": {"/", func(s *scene) { s.vm.Status.CurrentCPUTopology, s.vm.Spec.Domain.CPU = nil, nil }, onePod},
		"no ratio":           {"/", func(s *scene) { s.Namespace = &corev1.Namespace{} }, onePod},
		"ratio changed since the source was made":                  {" / ", func(s *scene) { s.ratio("1.5") }, ofMemory("1294Mi", "1941Mi")},
		"source has the defaults of a LimitRange":                  {" / cpu=500m memory=2Gi", func(*scene) {}, onePod},
		"source already has the CPUs that the guest did not get":   {"cpu=200m / cpu=2", func(*scene) {}, with(onePod, "requests.cpu=205m cpu=205m limits.cpu=2015m")},
		"the VMI has its own":                                      {" / cpu=500m memory=1294Mi", ownLimits, with(ofMemory("1294Mi", "1294Mi"), "limits.cpu=515m")},
		"the VMI has its own, and somebody took the source's away": {"/", ownLimits, with(onePod, "limits.cpu=15m limits.memory=60M")},
		"dedicated CPUs":    {"cpu=2 / cpu=2 memory=1294Mi", dedicatedCPUs, with(ofMemory("1294Mi", "1294Mi"), "limits.cpu=2015m requests.cpu=2005m cpu=2005m")},
		"no memory request": {"/", func(s *scene) { delete(compute(s.source).Requests, "memory") }, with(onePod, "limits.memory=60M requests.memory=35M memory=35M")},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			render(s.source, c.source)
			c.change(s)
			s.refused(s.vm, "m1")
			s.expect(flight{"uid-m1", quota.Blocked, c.want, nil})
		})
	}
	for ratio, limit := range map[string]string{
		"1.5": "1941Mi", "3": "3882Mi", "1": "1294Mi", "1.0000001": "1356857479", // rounded down
		"": "2588Mi", "0.9": "2588Mi", "-1": "2588Mi", "many": "2588Mi", "NaN": "2588Mi", "Inf": "2588Mi",
		"10": "12940Mi", "10.5": "12940Mi", "1000": "12940Mi", "1e300": "12940Mi", // no more than ten times
	} {
		t.Run("ratio "+ratio, func(t *testing.T) {
			s := newScene(t)
			render(s.source, "/")
			s.refused(s.vm, "m1")
			s.ratio(ratio)
			s.expect(flight{"uid-m1", quota.Blocked, ofMemory("1294Mi", limit), nil})
		})
	}
	t.Run("target is the truth", func(t *testing.T) {
		s := newScene(t)
		render(s.source, "/")
		_, target := s.running(s.vm, s.source, "m1", "target")
		render(target, "/") // the quota went in the meantime
		bare := with(onePod, "limits.cpu=15m limits.memory=60M")
		s.expect(flight{"uid-m1", quota.Charged, bare, bare})
	})
}

// ratio labels the namespace with the ratio of automatic memory limits.
func (s *scene) ratio(text string) {
	s.Namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{kubevirtv1.AutoMemoryLimitsRatioLabel: text}}}
}

func ownLimits(s *scene)     { s.vm.Spec.Domain.Resources.Limits = list("cpu=500m memory=1Gi") }
func dedicatedCPUs(s *scene) { s.vm.Spec.Domain.CPU.DedicatedCPUPlacement = true }
func hugePages(s *scene)     { s.vm.Spec.Domain.Memory.Hugepages = &kubevirtv1.Hugepages{PageSize: "2Mi"} }
func overcommit(s *scene)    { s.vm.Spec.Domain.Resources.OvercommitGuestOverhead = true }

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
	ofPods := limitRange("a", "ephemeral-storage=100M", "ephemeral-storage=1G")
	ofPods.Spec.Limits[0].Type = corev1.LimitTypePod
	twoItems := limitRange("a", "", "ephemeral-storage=5G")
	twoItems.Spec.Limits = append(twoItems.Spec.Limits, limitRange("a", "ephemeral-storage=100M", "ephemeral-storage=1G").Spec.Limits...)
	for _, c := range []struct {
		name   string
		ranges []*corev1.LimitRange
		want   string
	}{
		{"request and limit", []*corev1.LimitRange{limitRange("a", "ephemeral-storage=100M", "ephemeral-storage=1G")}, storage},
		{"request", []*corev1.LimitRange{limitRange("a", "ephemeral-storage=100M", "")}, "requests.ephemeral-storage=150M ephemeral-storage=150M"},
		{"limit", []*corev1.LimitRange{limitRange("a", "", "ephemeral-storage=1G")}, "limits.ephemeral-storage=2G"},
		{"several", []*corev1.LimitRange{limitRange("a", "", "ephemeral-storage=1G"), limitRange("b", "ephemeral-storage=100M", "")}, storage},
		{"several that disagree", []*corev1.LimitRange{ // Kubernetes takes either; the target pod must fit in any case
			limitRange("a", "ephemeral-storage=100M", "ephemeral-storage=500M"), limitRange("b", "ephemeral-storage=50M", "ephemeral-storage=1G"),
		}, storage},
		{"defaults that nothing lacks", []*corev1.LimitRange{limitRange("a", "cpu=1 memory=10Gi", "cpu=1 memory=10Gi")}, ""},
		{"of pods", []*corev1.LimitRange{ofPods}, ""},
		{"the last item of a LimitRange", []*corev1.LimitRange{twoItems}, storage},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			s.LimitRanges = c.ranges
			s.refused(s.vm, "m1")
			want := flight{"uid-m1", quota.Blocked, with(onePod, c.want), nil}
			s.expect(want)
			slices.Reverse(s.LimitRanges)
			s.expect(want)

			s.running(s.vm, s.source, "m2", "target")
			s.Migrations = s.Migrations[1:]
			s.expect(flight{"uid-m2", quota.Charged, onePod, onePod})
		})
	}
	t.Run("containers without anything", func(t *testing.T) {
		s := newScene(t)
		s.source.Spec.Containers = append(s.source.Spec.Containers, corev1.Container{Name: "hook-sidecar-0"})
		s.source.Spec.InitContainers = append(s.source.Spec.InitContainers, corev1.Container{Name: "virtiofs"})
		s.LimitRanges = []*corev1.LimitRange{limitRange("a", "cpu=10m", "cpu=2500m")}
		s.refused(s.vm, "m1")
		// With the sidecar: 1 + 2.5 cores of the containers are more than the 2.5 of
		// the init container.
		s.expect(flight{"uid-m1", quota.Blocked, with(onePod, "limits.cpu=3515m requests.cpu=115m cpu=115m"), nil})
	})
}

// TestMemoryOverheadGrows: the VMI reports 1Gi more than the source was rendered with.
func TestMemoryOverheadGrows(t *testing.T) {
	for name, c := range map[string]struct {
		source string
		change func(s *scene)
		want   corev1.ResourceList
	}{
		"reported on the VMI":   {" / ", func(*scene) {}, ofMemory("2318Mi", "4636Mi")},
		"beside a LimitRange":   {" / ", func(s *scene) { s.LimitRanges = []*corev1.LimitRange{limitRange("a", "memory=1", "memory=1")} }, ofMemory("2318Mi", "4636Mi")},
		"limits of its own":     {" / cpu=500m memory=1294Mi", ownLimits, with(ofMemory("2318Mi", "2318Mi"), "limits.cpu=515m")},
		"dedicated CPUs":        {" / memory=1294Mi", dedicatedCPUs, ofMemory("2318Mi", "2318Mi")},
		"overcommitted":         {"memory=1Gi / memory=2Gi", overcommit, ofMemory("1Gi", "2Gi")},
		"overcommitted, limits": {"memory=1Gi / cpu=500m memory=1294Mi", func(s *scene) { overcommit(s); ownLimits(s) }, with(ofMemory("1Gi", "2318Mi"), "limits.cpu=515m")},
		"less":                  {" / ", func(s *scene) { s.vm.Status.Memory.MemoryOverhead = resource.NewQuantity(1<<20, resource.BinarySI) }, onePod},
		"not reported":          {" / ", func(s *scene) { s.vm.Status.Memory = nil }, onePod},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.refused(s.vm, "m1")
			reported := resource.MustParse("1294Mi")
			s.vm.Status.Memory.MemoryOverhead = &reported
			render(s.source, c.source)
			c.change(s)
			s.expect(flight{"uid-m1", quota.Blocked, c.want, nil})
			for _, annotation := range []string{"", "many", "-1", "1.5"} {
				s.source.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = annotation
				cost := quota.Footprint(s.source)
				s.expect(flight{"uid-m1", quota.Blocked, cost, nil})
			}
		})
	}
	t.Run("of an existing target", func(t *testing.T) {
		s := newScene(t)
		_, target := s.running(s.vm, s.source, "m1", "target")
		set(target, "memory=2318Mi", "memory=4636Mi")
		target.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = "1356857344"
		s.expect(flight{"uid-m1", quota.Charged, ofMemory("2318Mi", "4636Mi"), ofMemory("2318Mi", "4636Mi")})
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

// twoCPUs and twoGi are hot-plugs.
func twoCPUs(s *scene) {
	s.vm.Spec.Domain.CPU.Sockets = 2
	hotPlug(s.vm, cpuChange)
}

func twoGi(s *scene) {
	guest := resource.MustParse("2Gi")
	s.vm.Spec.Domain.Memory.Guest = &guest
	hotPlug(s.vm, memoryChange)
}

func limits(amounts string) func(*scene) {
	return func(s *scene) { s.vm.Spec.Domain.Resources.Limits = list(amounts) }
}

// TestGuestGrowth: the surge is what the target costs less the growth, before the
// target is there as well as after. Each vCPU more takes 8Mi of overhead, and each
// Gi of guest memory 2Mi: that is known when the target is there, and is surge.
func TestGuestGrowth(t *testing.T) {
	type does = []func(*scene)
	core := "requests.cpu=1005m cpu=1005m" // of dedicated CPUs
	huge := with(onePod, `cpu=100000000000000000000005m requests.cpu=100000000000000000000005m limits.cpu=100000000000000000000015m
		memory=100000000000035000000 requests.memory=100000000000035000000 limits.memory=12345678901294567890`)
	for name, c := range map[string]struct {
		does           does
		source, target string // requests and limits of their compute containers
		overhead       string // of the target, in Mi; that of the source is 270
		expected, want corev1.ResourceList
		growth         string
	}{
		"CPU":                                      {does{twoCPUs}, " / ", "cpu=200m memory=1302Mi / cpu=2 memory=2604Mi", "278", onePod, ofMemory("1302Mi", "2604Mi"), "cpu=100m limits.cpu=1 requests.cpu=100m"},
		"CPU, limits of its own":                   {does{twoCPUs, limits("cpu=2 memory=1Gi")}, " / cpu=1 memory=1294Mi", "cpu=200m memory=1302Mi / cpu=2 memory=1302Mi", "278", ofMemory("1294Mi", "1294Mi"), ofMemory("1302Mi", "1302Mi"), "cpu=100m limits.cpu=1 requests.cpu=100m"},
		"CPU, source older than the quota":         {does{twoCPUs}, "/", "cpu=200m memory=1302Mi / cpu=2 memory=2604Mi", "278", onePod, ofMemory("1302Mi", "2604Mi"), "cpu=100m limits.cpu=1 requests.cpu=100m"},
		"CPU, a request of its own":                {does{twoCPUs}, "cpu=500m / ", "cpu=600m memory=1302Mi / cpu=2 memory=2604Mi", "278", with(onePod, "requests.cpu=505m cpu=505m"), with(ofMemory("1302Mi", "2604Mi"), "requests.cpu=505m cpu=505m"), "limits.cpu=1"},
		"CPU and memory, defaults of a LimitRange": {does{twoCPUs, twoGi}, " / cpu=500m memory=2Gi", "cpu=200m memory=2318Mi / cpu=2 memory=4636Mi", "270", onePod, onePod, "cpu=100m limits.cpu=1 limits.memory=2Gi memory=1Gi requests.cpu=100m requests.memory=1Gi"},
		"huge":                                    {does{twoCPUs, twoGi, limits("cpu=1 memory=1")}, "cpu=100E memory=100E / cpu=100E memory=12345678901234567890", "cpu=300E memory=300E / cpu=300E memory=22345678901234567890", "270", huge, huge, ""},
		"dedicated CPUs":                          {does{twoCPUs, dedicatedCPUs}, "cpu=1 memory=1394Mi / cpu=1 memory=1394Mi", "cpu=2 memory=1402Mi / cpu=2 memory=1402Mi", "278", with(ofMemory("1394Mi", "1394Mi"), core), with(ofMemory("1402Mi", "1402Mi"), core), "cpu=1 requests.cpu=1 limits.cpu=1"},
		"memory":                                  {does{twoGi}, " / ", "memory=2320Mi / memory=4640Mi", "272", onePod, ofMemory("1296Mi", "2592Mi"), "limits.memory=2Gi memory=1Gi requests.memory=1Gi"},
		"memory, limits of its own":               {does{twoGi, limits("memory=2Gi")}, " / memory=1294Mi", "memory=2320Mi / memory=2320Mi", "272", ofMemory("1294Mi", "1294Mi"), ofMemory("1296Mi", "1296Mi"), "limits.memory=1Gi memory=1Gi requests.memory=1Gi"},
		"memory, source older than the quota":     {does{twoGi}, "/", "memory=2320Mi / cpu=1 memory=4640Mi", "272", onePod, ofMemory("1296Mi", "2592Mi"), "limits.memory=2Gi memory=1Gi requests.memory=1Gi"},
		"memory, overcommitted":                   {does{twoGi, overcommit}, "memory=1Gi / memory=2Gi", "memory=2Gi / memory=4Gi", "272", ofMemory("1Gi", "2Gi"), ofMemory("1Gi", "2Gi"), "limits.memory=2Gi memory=1Gi requests.memory=1Gi"},
		"memory, overcommitted, its own limits":   {does{twoGi, overcommit, limits("memory=2Gi")}, "memory=1Gi / memory=1294Mi", "memory=2Gi / memory=2320Mi", "272", ofMemory("1Gi", "1294Mi"), ofMemory("1Gi", "1296Mi"), "limits.memory=1Gi memory=1Gi requests.memory=1Gi"},
		"memory, dedicated CPUs":                  {does{twoGi, dedicatedCPUs}, "cpu=1 memory=1394Mi / cpu=1 memory=1394Mi", "cpu=1 memory=2420Mi / cpu=1 memory=2420Mi", "272", with(ofMemory("1394Mi", "1394Mi"), core), with(ofMemory("1396Mi", "1396Mi"), core), "limits.memory=3242Mi memory=924Mi requests.memory=924Mi"},
		"huge pages":                              {does{twoGi, hugePages}, "memory=270Mi hugepages-2Mi=1Gi / memory=540Mi hugepages-2Mi=1Gi", "memory=272Mi hugepages-2Mi=2Gi / memory=544Mi hugepages-2Mi=2Gi", "272", with(ofMemory("270Mi", "540Mi"), "hugepages-2Mi=1Gi requests.hugepages-2Mi=1Gi"), with(ofMemory("272Mi", "544Mi"), "hugepages-2Mi=1Gi requests.hugepages-2Mi=1Gi"), "hugepages-2Mi=1Gi requests.hugepages-2Mi=1Gi"},
		"CPU and memory, and 20Mi of overhead":    {does{twoCPUs, twoGi}, " / ", "cpu=200m memory=2338Mi / cpu=2 memory=4676Mi", "290", onePod, ofMemory("1314Mi", "2628Mi"), "cpu=100m limits.cpu=1 limits.memory=2Gi memory=1Gi requests.cpu=100m requests.memory=1Gi"},
		"overhead not reported, looks like guest": {does{twoGi}, " / ", "memory=2320Mi / memory=4640Mi", "unknown", onePod, onePod, "limits.memory=2Gi memory=1Gi requests.memory=1Gi"},
		"less": {does{func(s *scene) { hotPlug(s.vm, cpuChange, memoryChange) }}, " / ", "cpu=50m memory=1000Mi / cpu=500m memory=2000Mi", "270", onePod, with(ofMemory("1000Mi", "2000Mi"), "limits.cpu=515m requests.cpu=55m cpu=55m"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.vm.Spec.Domain.Resources.Requests = nil
			for _, do := range c.does {
				do(s)
			}
			render(s.source, c.source)
			m := s.refused(s.vm, "m1")
			s.expect(flight{"uid-m1", quota.Blocked, c.expected, nil})
			require.Equal(t, text(list(c.growth)), text(migration.InFlight(s.Snapshot)[0].Growth))

			s.forget(m)
			m, target := s.running(s.vm, s.source, "m1", "target")
			compute(target).Requests, compute(target).Limits = compute(s.source).Requests, compute(s.source).Limits
			render(target, c.target)
			target.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = c.overhead
			if mebibytes, err := strconv.Atoi(c.overhead); err == nil {
				target.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = strconv.Itoa(mebibytes << 20)
			}
			s.expect(flight{"uid-m1", quota.Charged, c.want, c.want})

			// When it is over, the source goes, whatever grew.
			s.vm.Status.MigrationState.Completed = true
			cost := quota.Footprint(s.source)
			s.expect(flight{"uid-m1", quota.Charged, cost, cost})
			// Had it failed, the target would go; what it grew by is the tenant's.
			fail(s.vm, m)
			s.expect(flight{"uid-m1", quota.Charged, c.want, c.want})
		})
	}
}

// TestGuestGrowthMustFitStatic: a migration raises the limits for the VM as it is. What
// it is to grow by is admitted only if the tenant has it.
func TestGuestGrowthMustFitStatic(t *testing.T) {
	s := newScene(t)
	s.refused(s.vm, "m1")
	hotPlug(s.vm, memoryChange)
	target := s.source.DeepCopy()
	set(target, "memory=2318Mi", "memory=4636Mi")
	used, needed := quota.Footprint(s.source), plus(quota.Footprint(s.source), quota.Footprint(target))
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
	const twoCores = "limits.cpu=2015m requests.cpu=205m cpu=205m"
	grown := with(ofMemory("2320Mi", "4640Mi"), twoCores)
	for name, c := range map[string]struct {
		plugged []kubevirtv1.VirtualMachineInstanceConditionType
		change  func(s *scene)
		want    corev1.ResourceList
	}{
		"no hot-plug":     {nil, func(*scene) {}, grown},
		"CPU only":        {conditions(cpuChange), func(*scene) {}, ofMemory("2320Mi", "4640Mi")},
		"memory only":     {conditions(memoryChange), func(*scene) {}, with(ofMemory("1296Mi", "2592Mi"), twoCores)},
		"failed hot-plug": {conditions(memoryChange), func(s *scene) { s.vm.Status.Conditions[2].Status = corev1.ConditionFalse }, grown},
		"overhead not reported on the source, looks like guest": {conditions(cpuChange, memoryChange), func(s *scene) { s.source.Annotations = nil }, onePod},
		"no compute container": {conditions(cpuChange, memoryChange), func(s *scene) { s.source.Spec.Containers[0].Name = "renamed" }, grown},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			_, target := s.running(s.vm, s.source, "m1", "target")
			set(target, "cpu=200m memory=2320Mi", "cpu=2 memory=4640Mi")
			target.Annotations[kubevirtv1.MemoryOverheadAnnotationBytes] = "285212672"
			hotPlug(s.vm, c.plugged...)
			c.change(s)
			s.expect(flight{"uid-m1", quota.Charged, c.want, c.want})
		})
	}
}

func conditions(all ...kubevirtv1.VirtualMachineInstanceConditionType) []kubevirtv1.VirtualMachineInstanceConditionType {
	return all
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
	play(t, map[string]func(s *scene){
		"expected, expected beside the target, there": func(s *scene) {
			s.attach(s.source, "hp-source")
			m := s.refused(s.vm, "m1")
			s.expect(flight{"uid-m1", quota.Blocked, both, nil})
			target := s.launcher(s.vm, "target", m.UID)
			s.expect(flight{"uid-m1", quota.Charged, both, onePod})
			hp := s.attach(target, "hp-target")
			s.expect(flight{"uid-m1", quota.Charged, both, both})
			require.Nil(s.t, migration.InFlight(s.Snapshot)[0].Held)
			hp.Status.Phase = corev1.PodSucceeded
			s.expect(flight{"uid-m1", quota.Charged, both, onePod})
			m.Status.Phase = kubevirtv1.MigrationFailed
			s.expect(charged)
		},
		"created and not seen": func(s *scene) {
			s.attach(s.source, "hp-source")
			s.vmim(s.vm, "m1", kubevirtv1.MigrationScheduling)
			s.expect(flight{"uid-m1", quota.Charged, both, both})
		},
		"aborted": func(s *scene) {
			s.attach(s.source, "hp-source")
			m, target := s.running(s.vm, s.source, "m1", "target")
			m.DeletionTimestamp = s.deleted()
			s.expect(charged)
			s.attach(target, "hp-target")
			s.expect(flight{"uid-m1", quota.Charged, both, both})
			s.forget(m)
			s.expect(flight{"uid-m1", quota.Charged, both, both})
		},
		"of the source after success": func(s *scene) {
			hp := s.attach(s.source, "hp-source")
			m, target := s.running(s.vm, s.source, "m1", "target")
			larger(s.attach(target, "hp-target"))
			succeed(s.vm, m)
			s.expect(flight{"uid-m1", quota.Charged, both, both})
			second := s.attach(s.source, "hp-source2") // a volume came while it migrated
			s.expect(flight{"uid-m1", quota.Charged, plus(both, attachment), plus(both, attachment)})
			hp.Status.Phase, second.Status.Phase = corev1.PodFailed, corev1.PodFailed
			s.expect(charged)
			m.Status.Phase = kubevirtv1.MigrationRunning // as the VMI knows it first
			s.expect(charged)
		},
		"none of a source without": func(s *scene) {
			s.attach(s.source, "hp-source").Status.Phase = corev1.PodSucceeded
			s.refused(s.vm, "m1")
			s.expect(blocked)
		},
		"a second one of the source is on its way": func(s *scene) {
			larger(s.attach(s.source, "hp-older"))
			s.attach(s.source, "hp-younger")
			s.refused(s.vm, "m1")
			s.expect(flight{"uid-m1", quota.Blocked, both, nil})
			slices.Reverse(s.Pods)
			s.expect(flight{"uid-m1", quota.Blocked, both, nil})
		},
		"forged": func(s *scene) {
			m, target := s.running(s.vm, s.source, "m1", "target")
			s.attach(target, "hp-target")
			larger(s.attach(target, "forged"))
			s.expect(flight{"uid-m1", quota.Charged, both, both})
			s.vm.Status.MigrationState.TargetAttachmentPodUID = "uid-forged"
			s.expect(flight{"uid-m1", quota.Charged, plus(onePod, quota.Footprint(s.Pods[3])), plus(onePod, quota.Footprint(s.Pods[3]))})
			s.vm.Status.MigrationState.TargetAttachmentPodUID = ""
			s.Pods[2].Labels = nil
			s.Pods[3].Labels = nil
			s.expect(charged)
			m.Status.Phase = kubevirtv1.MigrationFailed
			s.expect(charged)
		},
		"owned by something else of the same UID": func(s *scene) {
			s.attach(s.source, "hp-source").OwnerReferences[0].Kind = "Job"
			s.refused(s.vm, "m1")
			s.expect(blocked)
		},
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

// second adds the claim that KubeVirt makes for m1.
func (s *scene) second(name string) *corev1.PersistentVolumeClaim {
	return s.claim(name, kubevirtv1.MigrationNameLabel, "m1", corev1.ReadWriteOnce)
}

func TestBackendStorage(t *testing.T) {
	both := plus(onePod, state)
	for name, c := range map[string]struct {
		then func(s *scene)
		want flight
	}{
		"expected":              {func(*scene) {}, flight{"uid-m1", quota.Blocked, both, nil}},
		"created, and not seen": {func(s *scene) { s.Migrations[0].Status.Phase = kubevirtv1.MigrationScheduling }, flight{"uid-m1", quota.Charged, both, both}},
		"known by the VMI only": {func(s *scene) { s.PVCs[0].Labels = nil }, flight{"uid-m1", quota.Blocked, both, nil}},
		"known by a label only": {func(s *scene) { s.vm.Status.VolumeStatus = nil }, flight{"uid-m1", quota.Blocked, both, nil}},
		"shared":                {func(s *scene) { s.PVCs[0].Status.AccessModes[0] = corev1.ReadWriteMany }, blocked},
		"not there":             {func(s *scene) { s.PVCs = nil }, blocked},
		"of another VMI":        {func(s *scene) { s.vm.Status.VolumeStatus, s.PVCs[0].Labels[persistentStateFor] = nil, "vm2" }, blocked},
		"of another migration":  {func(s *scene) { s.second("other").Labels[kubevirtv1.MigrationNameLabel] = "m2" }, flight{"uid-m1", quota.Blocked, both, nil}},
		"nothing persists":      {func(s *scene) { s.second("forged"); s.vm.Spec.Domain.Devices.TPM = nil }, blocked},
		"the VMI tells of the migration before": {func(s *scene) {
			s.vm.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{
				MigrationUID: "uid-m0", Completed: true, TargetPod: "source",
				SourcePersistentStatePVCName: "gone", TargetPersistentStatePVCName: s.PVCs[0].Name,
			}
		}, flight{"uid-m1", quota.Blocked, both, nil}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.persistent(s.vm)
			s.refused(s.vm, "m1")
			c.then(s)
			s.expect(c.want)
		})
	}
	play(t, map[string]func(s *scene){
		"there, and the pod refused": func(s *scene) {
			old := s.persistent(s.vm)
			m := s.refused(s.vm, "m1")
			second := s.second("persistent-state-for-vm1-fghij")
			second.Spec.Resources.Requests = list("storage=20Mi")
			large := with(state, "requests.storage=20Mi ssd.storageclass.storage.k8s.io/requests.storage=20Mi")
			s.expect(flight{"uid-m1", quota.Charged, plus(onePod, large), large})
			m.Status.MigrationState.SourcePersistentStatePVCName = old.Name
			m.Status.MigrationState.TargetPersistentStatePVCName = second.Name
			delete(second.Labels, kubevirtv1.MigrationNameLabel)
			s.expect(flight{"uid-m1", quota.Charged, plus(onePod, large), large})
			m.Status.Phase = kubevirtv1.MigrationScheduling // created, and not seen
			s.expect(flight{"uid-m1", quota.Charged, plus(onePod, large), plus(onePod, large)})

			s.forget(m)
			m, _ = s.running(s.vm, s.source, "m1", "target")
			s.vm.Status.MigrationState.SourcePersistentStatePVCName = old.Name
			s.vm.Status.MigrationState.TargetPersistentStatePVCName = second.Name
			s.expect(flight{"uid-m1", quota.Charged, plus(onePod, large), plus(onePod, large)})
			require.Nil(s.t, migration.InFlight(s.Snapshot)[0].Held)

			// At success the target's claim becomes that of the VMI, and the source's goes.
			second.Labels[persistentStateFor] = "vm1"
			s.vm.Status.VolumeStatus[0].PersistentVolumeClaimInfo.ClaimName = second.Name
			succeed(s.vm, m)
			s.expect(flight{"uid-m1", quota.Charged, both, both})
			s.forget(m)
			s.expect(flight{"uid-m1", quota.Charged, both, both})
			s.forget(old)
			s.expect(charged)
		},
		"aborted": func(s *scene) {
			s.persistent(s.vm)
			m, _ := s.running(s.vm, s.source, "m1", "target")
			second := s.second("persistent-state-for-vm1-fghij")
			m.DeletionTimestamp = s.deleted()
			s.expect(flight{"uid-m1", quota.Charged, both, both})
			second.DeletionTimestamp = s.deleted() // which waits for the pod
			s.expect(flight{"uid-m1", quota.Charged, both, both})
			s.forget(second)
			s.expect(charged)
		},
		"VMIM gone": func(s *scene) {
			old := s.persistent(s.vm)
			m, _ := s.running(s.vm, s.source, "m1", "target")
			second := s.second("persistent-state-for-vm1-fghij")
			s.vm.Status.MigrationState.SourcePersistentStatePVCName = old.Name
			s.vm.Status.MigrationState.TargetPersistentStatePVCName = second.Name
			fail(s.vm, m)
			s.forget(m)
			s.expect(flight{"uid-m1", quota.Charged, both, both})
		},
		"shared": func(s *scene) {
			pvc := s.persistent(s.vm)
			pvc.Status.AccessModes[0] = corev1.ReadWriteMany
			m := s.refused(s.vm, "m1")
			s.expect(blocked)
			m.Status.MigrationState.SourcePersistentStatePVCName = pvc.Name
			m.Status.MigrationState.TargetPersistentStatePVCName = pvc.Name
			s.expect(blocked)
			s.forget(m)
			m, _ = s.running(s.vm, s.source, "m1", "target")
			s.expect(charged)
			s.vm.Status.MigrationState.SourcePersistentStatePVCName = pvc.Name
			s.vm.Status.MigrationState.TargetPersistentStatePVCName = pvc.Name
			s.expect(charged)
			succeed(s.vm, m)
			s.expect(charged)
		},
		"only one is known after success": func(s *scene) {
			s.persistent(s.vm)
			m, _ := s.running(s.vm, s.source, "m1", "target")
			succeed(s.vm, m)
			s.expect(charged)
		},
		"two of one migration": func(s *scene) {
			s.persistent(s.vm)
			s.refused(s.vm, "m1")
			s.second("persistent-state-for-vm1-fghij")
			s.second("persistent-state-for-vm1-klmno").Spec.Resources.Requests = list("storage=20Mi")
			s.expect(flight{"uid-m1", quota.Charged, both, state})
			slices.Reverse(s.PVCs)
			s.expect(flight{"uid-m1", quota.Charged, both, state})
		},
	})
}

// TestWhoNeedsBackendStorage: only these get a second claim made.
func TestWhoNeedsBackendStorage(t *testing.T) {
	yes, no := true, false
	tpm := func(persistent, enabled *bool) func(*scene) {
		return func(s *scene) {
			s.vm.Spec.Domain.Devices.TPM = &kubevirtv1.TPMDevice{Persistent: persistent, Enabled: enabled}
		}
	}
	boots := func(bootloader *kubevirtv1.Bootloader) func(*scene) {
		return func(s *scene) { s.vm.Spec.Domain.Firmware = &kubevirtv1.Firmware{Bootloader: bootloader} }
	}
	tracks := func(state kubevirtv1.ChangedBlockTrackingState) func(*scene) {
		return func(s *scene) {
			s.vm.Status.ChangedBlockTracking = &kubevirtv1.ChangedBlockTrackingStatus{State: state}
		}
	}
	for name, c := range map[string]struct {
		has   func(*scene)
		needs bool
	}{
		"nothing persistent":     {func(*scene) {}, false},
		"persistent TPM":         {tpm(&yes, &yes), true},
		"TPM":                    {tpm(&no, nil), false},
		"TPM that is off":        {tpm(&yes, &no), false},
		"persistent EFI":         {boots(&kubevirtv1.Bootloader{EFI: &kubevirtv1.EFI{Persistent: &yes}}), true},
		"EFI":                    {boots(&kubevirtv1.Bootloader{EFI: &kubevirtv1.EFI{}}), false},
		"BIOS":                   {boots(&kubevirtv1.Bootloader{BIOS: &kubevirtv1.BIOS{}}), false},
		"no bootloader":          {boots(nil), false},
		"changed blocks tracked": {tracks(kubevirtv1.ChangedBlockTrackingEnabled), true},
		"tracking begins":        {tracks(kubevirtv1.ChangedBlockTrackingInitializing), true},
		"tracking is off":        {tracks(kubevirtv1.ChangedBlockTrackingDisabled), false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.persistent(s.vm)
			s.vm.Spec.Domain.Devices.TPM = nil
			c.has(s)
			s.refused(s.vm, "m1")
			want := blocked
			if c.needs {
				want.surge = plus(onePod, state)
			}
			s.expect(want)
		})
	}
}

// TestScopedQuotas: each quota sees what its scopes select.
func TestScopedQuotas(t *testing.T) {
	class := func(name string) *corev1.ResourceQuota {
		return &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{ScopeSelector: &corev1.ScopeSelector{
			MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
				{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{name}},
			},
		}}}
	}
	scoped := func(scope corev1.ResourceQuotaScope) *corev1.ResourceQuota {
		return &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Scopes: []corev1.ResourceQuotaScope{scope}}}
	}
	high, low := class("high"), class("low")
	bestEffort, notBestEffort := scoped(corev1.ResourceQuotaScopeBestEffort), scoped(corev1.ResourceQuotaScopeNotBestEffort)
	sees := func(s *scene, rq *corev1.ResourceQuota, surge, hold corev1.ResourceList) {
		s.t.Helper()
		got := migration.InFlight(s.Snapshot)
		require.NoError(s.t, broken(s.Snapshot, got))
		under := quota.Under(rq, got)
		if surge == nil {
			require.Empty(s.t, under)
			return
		}
		require.Len(s.t, under, 1)
		require.Equal(s.t, text(surge), text(under[0].Surge))
		require.Equal(s.t, text(hold), text(held(under[0])))
	}

	play(t, map[string]func(s *scene){
		"ordinary": func(s *scene) {
			s.refused(s.vm, "m1")
			require.Nil(s.t, migration.InFlight(s.Snapshot)[0].Shares)
			sees(s, high, nil, nil)
			sees(s, notBestEffort, onePod, nil)
		},
		"priority class": func(s *scene) {
			s.source.Spec.PriorityClassName = "high"
			s.attach(s.source, "hp-source")
			s.persistent(s.vm)
			m := s.refused(s.vm, "m1")
			sees(s, high, onePod, nil)
			sees(s, low, nil, nil)
			sees(s, bestEffort, nil, nil)
			sees(s, notBestEffort, plus(onePod, attachment), nil)
			sees(s, &corev1.ResourceQuota{}, plus(onePod, attachment, state), nil)

			// The class is that of the target, once it is there; its other objects are not.
			s.launcher(s.vm, "target", m.UID).Spec.PriorityClassName = "low"
			sees(s, high, nil, nil)
			sees(s, low, onePod, onePod)
			sees(s, notBestEffort, plus(onePod, attachment), onePod)
			sees(s, &corev1.ResourceQuota{}, plus(onePod, attachment, state), onePod)
			s.second("persistent-state-for-vm1-fghij")
			sees(s, low, onePod, onePod)
			sees(s, notBestEffort, plus(onePod, attachment), onePod)
			sees(s, &corev1.ResourceQuota{}, plus(onePod, attachment, state), plus(onePod, state))
		},
		"priority class of all pods": func(s *scene) {
			s.source.Spec.PriorityClassName = "high"
			s.attach(s.source, "hp-source").Spec.PriorityClassName = "high"
			m := s.refused(s.vm, "m1")
			sees(s, high, plus(onePod, attachment), nil)
			target := s.launcher(s.vm, "target", m.UID)
			target.Spec.PriorityClassName = "high"
			sees(s, high, plus(onePod, attachment), onePod)
			s.attach(target, "hp-target").Spec.PriorityClassName = "high"
			sees(s, high, plus(onePod, attachment), plus(onePod, attachment))
			sees(s, low, nil, nil)
		},
		"best effort": func(s *scene) {
			_, target := s.running(s.vm, s.source, "m1", "target")
			target.Spec.InitContainers = nil
			target.Spec.Containers = []corev1.Container{{Name: "compute"}}
			target.Status.QOSClass = corev1.PodQOSBestEffort
			cost := list("pods=1 count/pods=1")
			sees(s, bestEffort, cost, cost)
			sees(s, notBestEffort, nil, nil)
		},
	})
}
