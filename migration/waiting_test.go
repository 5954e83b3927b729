package migration

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

var noon = time.Date(2026, time.August, 3, 12, 0, 0, 0, time.UTC)

// vmimOf returns a migration of vm that is so old.
func vmimOf(name string, age time.Duration, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) *kubevirtv1.VirtualMachineInstanceMigration {
	return &kubevirtv1.VirtualMachineInstanceMigration{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(noon.Add(-age)), Annotations: map[string]string{}},
		Spec:       kubevirtv1.VirtualMachineInstanceMigrationSpec{VMIName: "vm"},
		Status:     kubevirtv1.VirtualMachineInstanceMigrationStatus{Phase: phase},
	}
}

func with(vmim *kubevirtv1.VirtualMachineInstanceMigration, condition kubevirtv1.VirtualMachineInstanceMigrationConditionType) *kubevirtv1.VirtualMachineInstanceMigration {
	vmim.Status.Conditions = append(vmim.Status.Conditions, kubevirtv1.VirtualMachineInstanceMigrationCondition{Type: condition, Status: corev1.ConditionTrue})
	return vmim
}

// failed returns an evacuation that began that long ago, and failed so long ago.
func failed(name string, age, ago time.Duration) *kubevirtv1.VirtualMachineInstanceMigration {
	vmim := evacuation(name, age, kubevirtv1.MigrationFailed)
	vmim.Status.PhaseTransitionTimestamps = []kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{{
		Phase: kubevirtv1.MigrationFailed, PhaseTransitionTimestamp: metav1.NewTime(noon.Add(-ago)),
	}}
	return vmim
}

func evacuation(name string, age time.Duration, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) *kubevirtv1.VirtualMachineInstanceMigration {
	vmim := vmimOf(name, age, phase)
	vmim.Annotations[kubevirtv1.EvacuationMigrationAnnotation] = "node01"
	return vmim
}

// unschedulablePod is the target pod of m, which no node takes.
func unschedulablePod(owner types.UID) *corev1.Pod {
	isController := true
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{kubevirtv1.AppLabel: "virt-launcher", kubevirtv1.CreatedByLabel: "vm-uid", kubevirtv1.MigrationJobLabel: "m"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: kubevirtv1.GroupVersion.String(), Kind: "VirtualMachineInstance", Name: "vm", UID: owner, Controller: &isController,
			}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/3 nodes are available: 3 Insufficient memory.",
		}}},
	}
}

// Each reason with what is told, and the next of kin that is none.
func TestWaiting(t *testing.T) {
	cpu := func(amount string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse(amount)}
	}
	pending := func() *kubevirtv1.VirtualMachineInstanceMigration {
		return vmimOf("m", time.Minute, kubevirtv1.MigrationPending)
	}
	type vmims = []*kubevirtv1.VirtualMachineInstanceMigration
	m := quota.Migration{UID: "m", VMI: "vm", Node: "node01", Surge: cpu("1")}
	blocked, charged := m, m
	blocked.State, blocked.RefusedBy = quota.Blocked, "q"
	charged.State = quota.Charged
	deferred := func(reason quota.DeferralReason, missing string) applier.QuotaResult {
		return applier.QuotaResult{Name: "q", Decision: quota.Decision{Deferred: []quota.Deferral{{UID: "m", Reason: reason, Missing: cpu(missing)}}}}
	}
	queued := func(reason quota.DeferralReason, missing corev1.ResourceList) applier.QuotaResult {
		return applier.QuotaResult{Name: "q", Queued: []quota.Deferral{{UID: "m", Reason: reason, Missing: missing}}}
	}
	utilityVolumes := with(pending(), kubevirtv1.VirtualMachineInstanceMigrationBlockedByUtilityVolumes)
	backup := with(pending(), kubevirtv1.VirtualMachineInstanceMigrationBlockedByBackup)
	for name, test := range map[string]struct {
		vmims    vmims
		pods     []*corev1.Pod
		inFlight quota.Migration
		quotas   []applier.QuotaResult
		want     string
	}{
		"utility volumes":                  {vmims: vmims{utilityVolumes}, want: "UtilityVolumes: KubeVirt waits until the utility volumes of the virtual machine are detached."},
		"a backup":                         {vmims: vmims{backup}, inFlight: m, want: "Backup: KubeVirt waits until the backup of the virtual machine has ended."},
		"a backup, and its pod is there":   {vmims: vmims{backup}, inFlight: charged, want: "Backup: KubeVirt waits until the backup of the virtual machine has ended."},
		"its pod is there":                 {vmims: vmims{pending()}, inFlight: charged},
		"a backup, and quota":              {vmims: vmims{backup}, inFlight: blocked, quotas: []applier.QuotaResult{queued(applier.InTurn, cpu("1"))}, want: "InTurn: ResourceQuota q has not enough left, limits.cpu=1 is missing: room is made for other migrations first."},
		"no node":                          {vmims: vmims{vmimOf("m", 0, kubevirtv1.MigrationScheduling)}, pods: []*corev1.Pod{unschedulablePod("vm-uid")}, want: "NoNodeFits: No node fits its target pod. 0/3 nodes are available: 3 Insufficient memory."},
		"no node, says a forged pod":       {vmims: vmims{vmimOf("m", 0, kubevirtv1.MigrationScheduling)}, pods: []*corev1.Pod{unschedulablePod("other")}},
		"it runs":                          {vmims: vmims{vmimOf("m", 0, kubevirtv1.MigrationRunning)}, pods: []*corev1.Pod{unschedulablePod("vm-uid")}},
		"a failure":                        {vmims: vmims{evacuation("m", time.Second, kubevirtv1.MigrationPending), failed("f", time.Minute, 10*time.Second)}, inFlight: m, want: "BackOff: Earlier migrations of the virtual machine have failed, and KubeVirt waits until 2026-08-03T12:00:10Z."},
		"three failures":                   {vmims: vmims{evacuation("m", time.Second, ""), failed("f1", time.Hour, time.Hour), failed("f3", time.Minute, 10*time.Second), failed("f2", 2*time.Minute, 2*time.Minute)}, inFlight: m, want: "BackOff: Earlier migrations of the virtual machine have failed, and KubeVirt waits until 2026-08-03T12:01:10Z."},
		"a failure that is long ago":       {vmims: vmims{evacuation("m", time.Second, ""), failed("f", time.Minute, 20*time.Second)}, inFlight: m},
		"a failure before a success":       {vmims: vmims{evacuation("m", time.Second, ""), failed("f", time.Minute, time.Second), evacuation("s", time.Minute-time.Second, kubevirtv1.MigrationSucceeded)}, inFlight: m},
		"a failure, and somebody wants it": {vmims: vmims{pending(), failed("f", time.Hour, 10*time.Second)}, inFlight: m},
		"a budget":                         {vmims: vmims{pending()}, inFlight: m, quotas: []applier.QuotaResult{{Name: "a"}, deferred(quota.BudgetUsed, "500m")}, want: "BudgetUsed: ResourceQuota q: the budget is used up, limits.cpu=500m is missing."},
		"growth":                           {vmims: vmims{pending()}, inFlight: m, quotas: []applier.QuotaResult{deferred(applier.GrowthAboveStatic, "2")}, want: "GrowthAboveStatic: ResourceQuota q: its guest grows by more than the quota has left, limits.cpu=2 is missing."},
		"another quota":                    {vmims: vmims{pending()}, inFlight: quota.Migration{UID: "m", State: quota.Blocked, RefusedBy: "crq"}, quotas: []applier.QuotaResult{deferred(applier.RefusedElsewhere, "0")}, want: "RefusedElsewhere: ResourceQuota q: crq has refused it, which is no ResourceQuota of this namespace."},
		"a kill switch":                    {vmims: vmims{pending()}, inFlight: m, quotas: []applier.QuotaResult{deferred(applier.Disabled, "0")}, want: "Disabled: ResourceQuota q: headroom is switched off for this quota."},
		"a lock":                           {vmims: vmims{pending()}, inFlight: m, quotas: []applier.QuotaResult{deferred(applier.WriteRefused, "0")}, want: "WriteRefused: ResourceQuota q: the API server refuses to raise the limits of this quota."},
		"the cluster":                      {vmims: vmims{pending()}, inFlight: m, quotas: []applier.QuotaResult{queued(applier.ParallelInCluster, nil)}, want: "ParallelInCluster: KubeVirt runs as many migrations in the cluster as it may at the same time."},
		"the node":                         {vmims: vmims{pending()}, inFlight: m, quotas: []applier.QuotaResult{queued(applier.ParallelFromNode, cpu("1"))}, want: "ParallelFromNode: KubeVirt runs as many migrations from node node01 as it may at the same time."},
		"priority":                         {vmims: vmims{pending()}, inFlight: m, quotas: []applier.QuotaResult{queued(applier.Outranked, nil)}, want: "Outranked: KubeVirt starts migrations of higher priority first."},
		"room is there":                    {vmims: vmims{pending()}, inFlight: blocked, quotas: []applier.QuotaResult{{Name: "q", Offered: []types.UID{"m"}}}, want: "QuotaExceeded: ResourceQuota q has room for its target pod now, and KubeVirt is about to create it."},
		"it was refused":                   {vmims: vmims{pending()}, inFlight: blocked, quotas: []applier.QuotaResult{{Name: "q"}}, want: "QuotaExceeded: ResourceQuota q has refused its target pod, and room is about to be made."},
		"it lapsed":                        {vmims: vmims{pending()}, inFlight: blocked, quotas: []applier.QuotaResult{queued(applier.OfferLapsed, cpu("1"))}, want: "OfferLapsed: ResourceQuota q has not enough left, limits.cpu=1 is missing: there was room for its target pod, KubeVirt did not create it, and room is made again soon."},
		"it fits":                          {vmims: vmims{pending()}, inFlight: m, quotas: []applier.QuotaResult{queued(applier.InTurn, nil)}},
	} {
		t.Run(name, func(t *testing.T) {
			var inFlight []quota.Migration
			if test.inFlight.UID != "" {
				inFlight = append(inFlight, test.inFlight)
			}
			waits := Waiting(Snapshot{Migrations: test.vmims, Pods: test.pods, Now: noon}, inFlight, test.quotas)
			if test.want == "" {
				require.Empty(t, waits)
				return
			}
			require.Len(t, waits, 1)
			require.Equal(t, types.UID("m"), waits[0].UID)
			require.Equal(t, test.want, fmt.Sprintf("%s: %s", waits[0].Reason, waits[0].Message))
		})
	}
}

// What a migration waits for is told when it has waited for two seconds, and once.
func TestEventsOfWaiting(t *testing.T) {
	recorder := record.NewFakeRecorder(10)
	c, past := &Controller{options: Options{Recorder: recorder}}, &history{}
	now := noon
	vmim := vmimOf("m", 0, kubevirtv1.MigrationPending)
	tell := func(reason quota.DeferralReason) (events []string, again time.Duration) {
		t.Helper()
		r := Report{Namespace: "n", Waiting: []Wait{{UID: "m", Reason: reason, Message: "It waits."}}}
		if reason == "" {
			r.Waiting = nil
		}
		again = c.tellWaiting(past, r, Snapshot{Migrations: []*kubevirtv1.VirtualMachineInstanceMigration{nil, vmim}, Now: now})
		for len(recorder.Events) > 0 {
			events = append(events, <-recorder.Events)
		}
		return events, again
	}
	for _, step := range []struct {
		after  time.Duration
		reason quota.DeferralReason
		want   []string
		again  time.Duration
	}{
		{0, "A", nil, waitTime},
		{time.Second, "A", nil, time.Second},
		{500 * time.Millisecond, "B", nil, waitTime},
		{time.Second, "B", nil, time.Second},
		{time.Second, "B", []string{"Normal HeadroomWaiting B: It waits."}, 0},
		{time.Minute, "B", nil, 0},
		{0, "A", nil, waitTime},
		{waitTime, "A", []string{"Normal HeadroomWaiting A: It waits."}, 0},
		{0, "", nil, 0},
		{0, "B", nil, 0},
		{time.Hour, "B", nil, 0},
	} {
		now = now.Add(step.after)
		events, again := tell(step.reason)
		require.Equal(t, step.want, events, "%v", step)
		require.Equal(t, step.again, again, "%v", step)
	}
	vmim.Status.Phase = kubevirtv1.MigrationSucceeded
	tell("")
	require.Empty(t, past.waits)
}
