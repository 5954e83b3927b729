package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// measureScale fills a bed with virtual machines, and prints what the library costs there. They
// are objects only: virt-controller does not run, and there are no nodes.
func measureScale(ctx context.Context, args []string, out, log io.Writer) error {
	flags := newFlags("scale")
	vms := flags.Int("vms", 5000, "")
	namespaces := flags.Int("namespaces", 100, "")
	if err := parse(flags, args); err != nil || *namespaces < 1 {
		return errUsage
	}
	return attempt(ctx, log, func(t try.T) {
		b := bed.Start(t, bed.Config{Log: log, Nodes: -1})
		b.Kill(t, bed.VirtController)
		config := b.Config()
		config.QPS = -1
		c := crowd{client: try.Must(kubernetes.NewForConfig(config))(t), machines: try.Must(dynamic.NewForConfig(config))(t)}
		c.fill(t, b, *namespaces, *vms / *namespaces)
		fmt.Fprintf(out, "%d virtual machines in %d namespaces\n\n", *vms, *namespaces)
		fmt.Fprintln(out, "| | CPU time of the controller | its RSS | CPU time of the API server |\n|---|---|---|---|")
		stage := onbed.NewStage(t, b, "", nil)
		before := c.load(t, 0)
		pid := stage.StartProgram(t, process.Headroom, log).PID()
		step := func(what string, n float64) {
			now := c.load(t, pid)
			fmt.Fprintf(out, "| %s | %.2f ms | %.0f MB | %.2f ms |\n", what, 1e3*(now.own-before.own)/n, now.rss/1e6, 1e3*(now.server-before.server)/n)
			before = now
		}
		step("cold start", 1)
		try.Sleep(t, time.Minute) // all namespaces are reconciled within half of it
		step("the first minute", 1)
		for _, namespace := range c.namespaces {
			c.migrate(t, namespace)
		}
		step("a refused migration, until there is room and it is deleted", float64(len(c.namespaces)))
	})
}

// A crowd is many virtual machines.
type crowd struct {
	client     kubernetes.Interface
	machines   dynamic.Interface
	namespaces []string
}

// fill creates namespaces with so many machines each, and a quota that they fill.
func (c *crowd) fill(t try.T, b *bed.Bed, namespaces, machines int) {
	var waits []func()
	for range namespaces {
		namespace := b.NewNamespace(t, "tenant-")
		c.namespaces = append(c.namespaces, namespace)
		waits = append(waits, try.Go(t, func(t try.T) { c.fillNamespace(t, namespace, machines) }))
	}
	for _, wait := range waits {
		wait()
	}
}

func (c *crowd) fillNamespace(t try.T, namespace string, machines int) {
	static := corev1.ResourceList{}
	for i := range machines {
		vmi := virt.NewVMI(namespace, fmt.Sprintf("vm%d", i), 1, *resource.NewQuantity(1<<30, resource.BinarySI))
		vmi.Status.Phase, vmi.Status.NodeName = kubevirtv1.Running, "node01"
		pod := launcher(try.Must(virt.VMIs(c.machines, namespace).Create(t.Context(), vmi))(t))
		static = amounts.Each(quota.Footprint(pod), static, amounts.Plus)
		try.Must(c.client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}))(t)
	}
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: static}}
	try.Must(c.client.CoreV1().ResourceQuotas(namespace).Create(t.Context(), rq, metav1.CreateOptions{}))(t)
}

// launcher returns the virt-launcher pod of vmi, as far as quota and the library read it.
func launcher(vmi *kubevirtv1.VirtualMachineInstance) *corev1.Pod {
	amounts := corev1.ResourceList{
		corev1.ResourceCPU: *resource.NewQuantity(1, resource.DecimalSI), corev1.ResourceMemory: *resource.NewQuantity(1300<<20, resource.BinarySI),
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:            "virt-launcher-" + vmi.Name,
			Labels:          map[string]string{kubevirtv1.AppLabel: "virt-launcher", kubevirtv1.CreatedByLabel: string(vmi.UID)},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(vmi, kubevirtv1.VirtualMachineInstanceGroupVersionKind)},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "compute", Image: "virt-launcher", Resources: corev1.ResourceRequirements{Limits: amounts, Requests: amounts},
		}}},
	}
}

// migrate creates a migration whose target pod quota has refused, waits until there is room for
// it, and deletes it.
func (c *crowd) migrate(t try.T, namespace string) {
	vmims := virt.VMIMs(c.machines, namespace)
	vmim := try.Must(vmims.Create(t.Context(), virt.NewVMIM(namespace, "m", "vm0")))(t)
	try.Must(vmims.Patch(t.Context(), vmim.Name, fmt.Sprintf(`{"status":{"phase":%q,"conditions":[{"type":%q,"status":"True"}]}}`,
		kubevirtv1.MigrationPending, kubevirtv1.VirtualMachineInstanceMigrationRejectedByResourceQuota), "status"))(t)
	try.Eventually(t, func(t try.T) {
		rq := try.Must(c.client.CoreV1().ResourceQuotas(namespace).Get(t.Context(), "q", metav1.GetOptions{}))(t)
		require.False(t, len(rq.Status.Hard) == 0 || quota.Equal(rq.Status.Hard, rq.Spec.Hard), "no room")
	})
	try.Must(vmims.Patch(t.Context(), vmim.Name, `{"metadata":{"finalizers":null}}`))(t)
	require.NoError(t, vmims.Delete(t.Context(), vmim.Name))
}

// A load is what processes have used since they began.
type load struct{ own, server, rss float64 } // seconds, bytes

// load returns that of the process with that number, and of the API server; 0: no process.
func (c *crowd) load(t try.T, pid int) (l load) {
	metrics := try.Must(c.client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context()))(t)
	for line := range strings.Lines(string(metrics)) {
		if value, found := strings.CutPrefix(line, "process_cpu_seconds_total "); found {
			l.server = try.Must(strconv.ParseFloat(strings.TrimSpace(value), 64))(t)
		}
	}
	if pid == 0 {
		return l
	}
	stat := string(try.Must(os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)))(t))
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]) // from the third on, see proc(5)
	number := func(n int) float64 { return try.Must(strconv.ParseFloat(fields[n-3], 64))(t) }
	const hertz = 100 // of all ports of Linux
	l.own, l.rss = (number(14)+number(15))/hertz, number(24)*float64(os.Getpagesize())
	return l
}
