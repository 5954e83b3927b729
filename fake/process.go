package fake

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
)

// A Program is the code under test, as one life of a [Process] runs it.
type Program struct {
	// Reconcile reconciles one namespace. It is called again when an event of the caches concerns the
	// namespace, after again if that is positive, and after an error with client-go's back-off. Calls never
	// overlap. The logger in ctx drops what it is given.
	Reconcile func(ctx context.Context, namespace string) (again time.Duration, err error)
	// Namespace says which namespace an event concerns, "" for none. It is called with what informers hand to
	// their handlers, tombstones included. If nil, it is [NamespaceOf].
	Namespace func(object any) string
}

// NamespaceOf is a Program.Namespace like that of a real controller: migration.NamespaceOf, and of a record of
// the ledger in ConfigMaps its tenant namespace.
func NamespaceOf(object any) string {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	if record, ok := object.(*corev1.ConfigMap); ok {
		return record.Labels[configmap.Label]
	}
	return migration.NamespaceOf(object)
}

// A Process is a program with a client and caches of its own. It can crash, and then starts again with nothing
// in its memory.
type Process struct {
	// Client takes simulated time for each call, in which the rest of the world goes on, and suffers the faults
	// of [Cluster.Inject]. It is for setup and Reconcile; tests have [Cluster.Client]. Each life of the process
	// has another one.
	Client kubernetes.Interface
	// Caches are what its informers hold. Each life has others.
	Caches Caches
	// Latency is how far away the API server is, there and back: how long a call takes, and an event. The zero
	// Span stands for Config.Timing. Setup may set it.
	Latency Span

	cluster   *Cluster
	user      string
	name      string
	setup     func(*Process) Program
	program   Program
	queue     *queue
	life      int // counts the crashes
	calls     int
	clientset *kubefake.Clientset
	informers map[Kind]*informer
	lags      map[Kind]Span
}

// Start starts a process that calls the API server as user, also after each crash: setup builds the code under
// test from the Client and the Caches, which are synced. At the start every namespace is reconciled once.
// Several processes with the same user are replicas; the second is called user-2. No faults are injected into a
// process of [RancherUser], and no invariants are asked of it.
func (c *Cluster) Start(user string, setup func(*Process) Program) *Process {
	p := &Process{cluster: c, user: user, name: user, setup: setup, lags: map[Kind]Span{}}
	replicas := 1
	for _, other := range c.processes {
		if other.user == user {
			replicas++
			p.name = fmt.Sprintf("%s-%d", user, replicas)
		}
	}
	c.processes = append(c.processes, p)
	p.boot()
	return p
}

// Controller returns a program that is a migration.Controller on the client and the caches of p. Of options it
// sets those that a real one finds for itself, and a recorder that drops events if there is none.
func (p *Process) Controller(options migration.Options) (Program, error) {
	caches := p.Caches.Migration()
	options.Caches, options.Quotas = &caches, migration.FromIndexer[corev1.ResourceQuota](p.Caches[ResourceQuotas])
	options.Patch, options.Now, options.Enqueue = p.PatchMigration, p.Now, p.Enqueue
	if options.Recorder == nil {
		options.Recorder = &record.FakeRecorder{}
	}
	c, err := migration.NewController(migration.Clients{Core: p.Client}, options)
	if err != nil {
		return Program{}, err
	}
	return Program{Reconcile: c.Reconcile}, nil
}

// Now is the simulated time.
func (p *Process) Now() time.Time { return p.cluster.Now() }

// Enqueue asks for a call of Reconcile.
func (p *Process) Enqueue(namespace string) { p.queue.add(namespace, 0) }

// Crash ends the process, also in the middle of a call, and starts it again after down.
func (p *Process) Crash(down time.Duration) {
	p.cluster.note("%s crashes", p.name)
	p.life++
	p.queue.stop()
	for _, i := range p.informers {
		i.stopped = true
	}
	life := p.life
	p.cluster.clock.after(down, func() {
		if p.life == life {
			p.cluster.clock.start(p.boot)
		}
	})
}

func (p *Process) tested() bool { return p.user != RancherUser }

func (p *Process) boot() {
	p.cluster.note("%s starts", p.name)
	p.queue = newQueue(&p.cluster.clock, p.run)
	p.clientset = p.cluster.clientset(p.server())
	p.Client = p.clientset
	p.openCaches()
	p.program = Program{Namespace: NamespaceOf}
	p.queue.busy = true // nothing is reconciled before setup has returned
	if crashed := p.survive(func() { p.program = p.setup(p) }); crashed {
		return
	}
	if p.program.Namespace == nil {
		p.program.Namespace = NamespaceOf
	}
	p.queue.rest()
	for _, namespace := range all[*corev1.Namespace](&p.cluster.store, "") {
		p.Enqueue(namespace.Name)
	}
}

// A crash is what unwinds the stack of a process that has crashed.
type crash struct{}

func (p *Process) run(namespace string) (again time.Duration, err error) {
	ctx := klog.NewContext(context.Background(), klog.Logger{})
	if crashed := p.survive(func() { again, err = p.program.Reconcile(ctx, namespace) }); crashed {
		return 0, nil
	}
	return again, err
}

// survive runs a part of the program, and reports whether the process has crashed in it.
func (p *Process) survive(part func()) (crashed bool) {
	clientset := p.clientset
	defer func() {
		clientset.ClearActions()
		if panicked := recover(); panicked != nil {
			if _, crashed = panicked.(crash); !crashed {
				panic(panicked)
			}
		}
	}()
	part()
	return false
}

// PatchMigration sends a JSON merge patch to a VirtualMachineInstanceMigration. As with Client, it takes time
// and suffers faults.
func (p *Process) PatchMigration(_ context.Context, namespace, name string, patch []byte) error {
	gvr := kubevirtv1.GroupVersion.WithResource(string(Migrations))
	_, err := p.server()(clienttesting.NewPatchAction(gvr, namespace, name, types.MergePatchType, patch))
	return err
}

// server returns what carries out the calls of this life of the process.
func (p *Process) server() func(clienttesting.Action) (runtime.Object, error) {
	c, life := p.cluster, p.life
	travel := func() {
		if p.life == life {
			way := c.draw(c.config.Timing.Call)
			if p.Latency != (Span{}) {
				way = c.draw(p.Latency) / 2
			}
			c.clock.sleep(way)
		}
		if p.life != life {
			panic(crash{})
		}
	}
	return func(action clienttesting.Action) (runtime.Object, error) {
		travel()
		call := p.nextCall(action)
		fault := p.faultOf(call)
		if fault == Crash {
			p.fall()
		}
		if err := fault.before(call); err != nil {
			return nil, err
		}
		c.store.tested = p.tested()
		answer, err := c.serve(p.user, action)
		c.store.tested = false
		if err == nil && call.writes() {
			c.writes[writeOf{p.user, call.Kind, call.Status}]++
		}
		if fault == CrashWritten {
			p.fall()
		}
		travel()
		if fault == TimeoutWritten {
			return nil, errTimeout
		}
		return answer, err
	}
}

// faultOf returns what goes wrong with call.
func (p *Process) faultOf(call Call) Fault {
	if !p.tested() {
		return NoFault
	}
	p.cluster.judge.auditCall(p.user, call)
	if p.cluster.inject == nil {
		return NoFault
	}
	fault := p.cluster.inject(call)
	if fault == Conflict && !call.writes() {
		fault = NoFault
	}
	if fault != NoFault {
		p.cluster.note("%s suffers %v at call %d: %s %s %s/%s", p.name, fault, call.Number, call.Verb, call.Kind, call.Namespace, call.Name)
	}
	return fault
}

// fall is a crash in the middle of a call.
func (p *Process) fall() {
	p.Crash(p.cluster.draw(p.cluster.config.Timing.Restart))
	panic(crash{})
}

func (p *Process) nextCall(action clienttesting.Action) Call {
	p.calls++
	call := Call{
		Process:   p.name,
		Number:    p.calls,
		Verb:      action.GetVerb(),
		Kind:      Kind(action.GetResource().Resource),
		Status:    action.GetSubresource() == "status",
		Namespace: action.GetNamespace(),
	}
	switch a := action.(type) {
	case interface{ GetName() string }:
		call.Name = a.GetName()
	case interface{ GetObject() runtime.Object }:
		if o, err := meta.Accessor(a.GetObject()); err == nil {
			call.Name = o.GetName()
		}
	}
	return call
}
