package sim

import (
	"context"
	"fmt"
	"io"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/migration"
)

// Config says what is simulated.
type Config struct {
	Nodes []string      // the names of the nodes, which are created
	Step  time.Duration // how long each step takes; zero: 100 ms
	Log   io.Writer     // is told what fails; nil: nobody is
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
	beaten time.Time       // when the nodes last said that they are alive
	died   map[string]bool // the nodes that were dead when they were last seen
}

// caches are what the simulator's informers hold.
type caches struct {
	nodes, pods, vmis, vmims cache.Store
}

// New returns a simulator that Run starts.
func New(config *rest.Config, c Config) (*Simulator, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	virt, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return newSimulator(client, virt, c), nil
}

func newSimulator(client kubernetes.Interface, virt dynamic.Interface, c Config) *Simulator {
	s := &Simulator{
		client: client, virt: virt, names: c.Nodes, step: c.Step, log: c.Log,
		said: map[string]bool{}, died: map[string]bool{},
		pace: pace{now: time.Now, began: map[step]time.Time{}},
	}
	if s.step == 0 {
		s.step = 100 * time.Millisecond
	}
	if s.log == nil {
		s.log = io.Discard
	}
	return s
}

// Run plays until ctx is done. It may be called once.
func (s *Simulator) Run(ctx context.Context) {
	wake := make(chan struct{}, 1)
	if !s.watch(ctx, wake) {
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
func (s *Simulator) watch(ctx context.Context, wake chan<- struct{}) bool {
	woken := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { woken() },
		UpdateFunc: func(any, any) { woken() },
		DeleteFunc: func(any) { woken() },
	}
	core := informers.NewSharedInformerFactory(s.client, 0)
	kubevirt := dynamicinformer.NewDynamicSharedInformerFactory(s.virt, 0)
	typed := func(resource schema.GroupVersionResource) cache.SharedIndexInformer {
		informer := kubevirt.ForResource(resource).Informer()
		_ = informer.SetTransform(migration.Typed) // fails only for informers that run
		return informer
	}
	nodes, pods := core.Core().V1().Nodes().Informer(), core.Core().V1().Pods().Informer()
	vmis, vmims := typed(virt.Instances), typed(virt.Migrations)
	synced := make([]cache.InformerSynced, 0, 4)
	for _, informer := range []cache.SharedIndexInformer{nodes, pods, vmis, vmims} {
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			s.report(err, "watching")
			return false
		}
		synced = append(synced, registration.HasSynced)
	}
	s.caches = caches{nodes: nodes.GetStore(), pods: pods.GetStore(), vmis: vmis.GetStore(), vmims: vmims.GetStore()}
	core.Start(ctx.Done())
	kubevirt.Start(ctx.Done())
	return cache.WaitForCacheSync(ctx.Done(), synced...)
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
