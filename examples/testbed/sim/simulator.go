// Package sim plays what a control plane without nodes lacks: the scheduler, kubelets,
// and KubeVirt's virt-handler and virt-launcher. Pods are bound, start, and end;
// virtual machine instances boot, are handed over from node to node, and shut down.
//
// It writes what those write, and nothing else: bindings and status of pods, nodes,
// and, of a VirtualMachineInstance, what virt-handler reports. It never creates a pod,
// and never writes a VirtualMachineInstanceMigration: that is virt-controller's.
//
// Annotations make things go wrong. On a VirtualMachineInstance they hold for all its
// migrations, on a VirtualMachineInstanceMigration for that one, and they can be changed at any
// time. A real kubelet kills a pod that is deleted when its grace period is over, so one that
// lingers still ends when it is deleted.
//
// A node that is dead becomes not ready and unreachable, and no pod is put on it; that
// much is the node lifecycle controller's part, which is played too. Its pods stay as
// they are. Nobody evicts them: who wants them gone deletes the Node, and Kubernetes'
// own pod garbage collector removes them, or deletes them by force.
package sim

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/virt"
)

// Config says what is simulated.
type Config struct {
	Nodes []string      // the names of the nodes, which are created
	Step  time.Duration // how long each step takes; zero: 100 ms
	Log   io.Writer     // is told what fails
}

// A Simulator plays nodes.
type Simulator struct {
	client kubernetes.Interface
	virt   dynamic.Interface
	names  []string
	step   time.Duration
	log    io.Writer
	said   map[string]bool

	caches caches
	pace   pace
	beaten time.Time                   // when the nodes last said that they are alive
	ending map[types.UID]time.Duration // losing pods, and how long they take
	died   map[string]bool             // the nodes that were dead when they were last seen
}

// caches are what the simulator's informers hold.
type caches struct {
	nodes, pods, vmis, vmims cache.Store
}

// New returns a simulator that Run starts.
func New(client kubernetes.Interface, virt dynamic.Interface, c Config) *Simulator {
	return &Simulator{
		client: client, virt: virt, names: c.Nodes, step: cmp.Or(c.Step, 100*time.Millisecond), log: c.Log,
		said: map[string]bool{}, died: map[string]bool{}, ending: map[types.UID]time.Duration{},
		pace: pace{now: time.Now, began: map[step]time.Time{}},
	}
}

// Run plays until ctx is done. It may be called once.
func (s *Simulator) Run(ctx context.Context) {
	wake := make(chan struct{}, 1)
	if err := s.watch(ctx, wake); err != nil {
		s.report(err, "watching")
		return
	}
	for {
		s.pass(ctx)
		// Nothing changes before somebody writes, a step is over, or a node's heart beats.
		pause := heartbeat / 3
		if s.pace.waiting {
			pause = max(s.step/4, 5*time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-time.After(pause):
		}
	}
}

// watch starts informers that wake the simulator, and waits until they know everything.
func (s *Simulator) watch(ctx context.Context, wake chan<- struct{}) error {
	woken := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	core := informers.NewSharedInformerFactory(s.client, 0).Core().V1()
	nodes, pods := core.Nodes().Informer(), core.Pods().Informer()
	vmis, vmims := virt.Informer(s.virt, virt.Instances), virt.Informer(s.virt, virt.Migrations)
	s.caches = caches{nodes: nodes.GetStore(), pods: pods.GetStore(), vmis: vmis.GetStore(), vmims: vmims.GetStore()}
	return virt.Watch(ctx, cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { woken() },
		UpdateFunc: func(any, any) { woken() },
		DeleteFunc: func(any) { woken() },
	}, nodes, pods, vmis, vmims)
}

// pass looks at everything once and does what is due. A write that comes too late,
// because its object has changed or gone meanwhile, is made good by the next pass.
func (s *Simulator) pass(ctx context.Context) {
	s.pace.waiting = false
	s.report(s.playNodes(ctx), "nodes")
	now := s.view()
	for _, pod := range now.pods {
		s.report(s.playPod(ctx, now, pod.DeepCopy()), "pod "+pod.Namespace+"/"+pod.Name)
	}
	for _, vmi := range now.vmis {
		s.report(s.playVMI(ctx, now, vmi.DeepCopy()), "VMI "+vmi.Namespace+"/"+vmi.Name)
	}
	s.report(s.endLosers(ctx, now), "losing pods")
}

// report logs an error once, unless it is one that the next pass makes good.
func (s *Simulator) report(err error, about string) {
	if err == nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return
	}
	message := fmt.Sprintf("simulator: %s: %v", about, err)
	if !s.said[message] {
		s.said[message] = true
		fmt.Fprintln(s.log, message)
	}
}

// immediately is how a kubelet removes a pod that has ended.
var immediately = *metav1.NewDeleteOptions(0)

// A view is what the caches hold at one moment. Its objects are read only.
type view struct {
	nodes     map[string]*corev1.Node
	pods      []*corev1.Pod
	vmis      []*kubevirtv1.VirtualMachineInstance
	vmims     map[types.UID]*kubevirtv1.VirtualMachineInstanceMigration
	launchers map[types.UID][]*corev1.Pod // by their VMI
}

func (s *Simulator) view() *view {
	v := &view{
		nodes:     map[string]*corev1.Node{},
		pods:      list[corev1.Pod](s.caches.pods),
		vmis:      list[kubevirtv1.VirtualMachineInstance](s.caches.vmis),
		vmims:     map[types.UID]*kubevirtv1.VirtualMachineInstanceMigration{},
		launchers: map[types.UID][]*corev1.Pod{},
	}
	for _, node := range list[corev1.Node](s.caches.nodes) {
		v.nodes[node.Name] = node
	}
	for _, vmim := range list[kubevirtv1.VirtualMachineInstanceMigration](s.caches.vmims) {
		v.vmims[vmim.UID] = vmim
	}
	for _, pod := range v.pods {
		if vmi := machineOf(pod); vmi != "" {
			v.launchers[vmi] = append(v.launchers[vmi], pod)
		}
	}
	slices.SortFunc(v.pods, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	return v
}

func list[T any](store cache.Store) []*T {
	objects := store.List()
	result := make([]*T, 0, len(objects))
	for _, object := range objects {
		if typed, ok := object.(*T); ok {
			result = append(result, typed)
		}
	}
	return result
}

// machineOf returns the UID of the VMI that pod is a virt-launcher of, empty if none.
func machineOf(pod *corev1.Pod) types.UID {
	if pod.Labels[kubevirtv1.AppLabel] != "virt-launcher" {
		return ""
	}
	return types.UID(pod.Labels[kubevirtv1.CreatedByLabel])
}

// alive tells whether anything moves on the node.
func (v *view) alive(node string) bool {
	n := v.nodes[node]
	return n != nil && !dead(n)
}

func dead(node *corev1.Node) bool {
	return node.Annotations[DeadAnnotation] == "true"
}

func terminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// A step is something that takes time.
type step struct {
	what string
	of   types.UID
}

// A pace tells when steps are over that began when somebody first asked.
type pace struct {
	now     func() time.Time
	began   map[step]time.Time
	waiting bool // somebody asked about a step that is not over
}

// over tells whether a step is over that takes so long.
func (p *pace) over(takes time.Duration, s step) bool {
	now := p.now()
	began, known := p.began[s]
	if !known {
		if len(p.began) > 100_000 { // all but a few are long over
			clear(p.began)
		}
		p.began[s], began = now, now
	}
	if now.Sub(began) >= takes {
		return true
	}
	p.waiting = true
	return false
}
