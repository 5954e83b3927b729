package fake

import (
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// A Config says what kind of cluster [New] makes. Zero values are the defaults.
type Config struct {
	// Seed decides all that is left to chance. The same seed and the same test make the same run, to the byte.
	Seed uint64
	// Nodes is how many there are; 0: three. They are called node01, node02, ...
	Nodes int
	// Timing is how long things take; nil: [DefaultTiming].
	Timing *Timing
	// Outcome says how a migration goes that is not told so by [Cluster.Migrate]: of a drain, a hot-plug. Nil:
	// they succeed.
	Outcome func(*kubevirtv1.VirtualMachineInstanceMigration) Outcome
	// Lock is the only user who may create, change and delete quotas and limit ranges that have [RancherLabel],
	// as since Rancher 2.14.6 and 2.15.2. The status of quotas is open to all who leave the label alone. Empty:
	// there is no lock.
	Lock string
	// Guard is the annotation of a quota that closes its namespace to all pods and claims but those of
	// migrations, while its status.hard is above its spec.hard, as a ValidatingAdmissionPolicy can. Empty:
	// there is no such policy.
	Guard string
	// Policy is the rule that [Cluster.Violations] judges by.
	Policy quota.Policy
}

// A Timing is how long things take. Zero Spans take no time.
type Timing struct {
	Call      Span // one way of a call of a process to the API server or back
	Cache     Span // until a change is in a cache of a process
	Admission Span // until a change of a quota is in the cache of quota admission
	Guard     Span // until a change of a quota is in the cache of the guard
	Quota     Span // until the quota controller updates status
	Wake      Span // until a controller of KubeVirt acts on an event
	Node      Span // a step of the scheduler, kubelet or virt-handler
	Copy      Span // from Running to the end of a migration
	Linger    Span // from the success of a migration to the end of its source pod
	Restart   Span // from a crash to the next start of a process
}

// DefaultTiming has the orders of magnitude that were measured on a real API server and the real
// virt-controller. With it, KubeVirt's try after a raise comes before quota admission sees the raise, and is
// refused, in one or two of a hundred cases.
func DefaultTiming() Timing {
	const ms = time.Millisecond
	return Timing{
		Call:      Span{1 * ms, 3 * ms},
		Cache:     Span{1 * ms, 20 * ms},
		Admission: Span{0, 10 * ms},
		Guard:     Span{0, 10 * ms},
		Quota:     Span{2 * ms, 14 * ms},
		Wake:      Span{5 * ms, 20 * ms},
		Node:      Span{100 * ms, 250 * ms},
		Copy:      Span{2 * time.Second, 10 * time.Second},
		Linger:    Span{1 * time.Second, 5 * time.Second},
		Restart:   Span{1 * time.Second, 5 * time.Second},
	}
}

// A Cluster is a simulated Kubernetes with KubeVirt. It is not safe for concurrent use.
type Cluster struct {
	config    Config
	clock     clock
	random    *rand.Rand
	store     store
	history   []func() string
	admission *quotaAdmission
	guard     quotaCache
	quotas    *quotaController
	claims    *claimController
	virt      *virtController
	nodes     *nodes
	judge     *judge
	processes []*Process
	inject    func(Call) Fault
	adversary *timer // see ResetLimits
	writes    map[writeOf]int
	refusals  map[string]string // by namespace; see RefusePods
}

type writeOf struct {
	user   string
	kind   Kind
	status bool
}

// New returns a cluster with nodes, and nothing else.
func New(config Config) *Cluster {
	if config.Nodes == 0 {
		config.Nodes = 3
	}
	if config.Timing == nil {
		timing := DefaultTiming()
		config.Timing = &timing
	}
	c := &Cluster{
		config: config,
		random: rand.New(rand.NewPCG(config.Seed, 0)),
		clock:  clock{now: epoch},
		store:  store{objects: map[Kind]map[string][]object{}, pods: map[types.UID][]string{}},
		writes: map[writeOf]int{},

		refusals: map[string]string{},
	}
	c.judge = &judge{Cluster: c, annotations: map[types.UID]map[string]string{}, created: map[string]bool{}, robbed: map[types.UID]bool{}}
	c.admission = &quotaAdmission{Cluster: c, cache: newQuotaCache(c, config.Timing.Admission), own: map[string]*corev1.ResourceQuota{}}
	c.guard = newQuotaCache(c, config.Timing.Guard)
	c.quotas = newQuotaController(c)
	c.claims = newClaimController(c)
	c.virt = newVirtController(c)
	c.nodes = newNodes(c)
	c.store.tell = []func(change){
		c.remember, c.judge.observe, c.admission.cache.observe, c.guard.observe, c.quotas.observe, c.claims.observe, c.releaseClaims,
		c.virt.observe, c.nodes.observe, c.informProcesses,
	}
	return c
}

func (c *Cluster) informProcesses(happened change) {
	for _, p := range c.processes {
		if i := p.informers[happened.kind]; i != nil {
			i.observe(happened)
		}
	}
}

// Now is the simulated time.
func (c *Cluster) Now() time.Time { return c.clock.now }

// Steps returns how many steps the simulation has made: an event that reaches a controller, a cache or a node,
// a call that is answered, a timer that runs out.
func (c *Cluster) Steps() int { return c.clock.steps }

// Advance lets d pass, with all that happens meanwhile.
func (c *Cluster) Advance(d time.Duration) { c.clock.sleep(d) }

// Until lets time pass until done, but no more than d, and reports whether it is done.
func (c *Cluster) Until(d time.Duration, done func() bool) bool {
	end := c.clock.now.Add(d)
	for !done() {
		if !c.clock.nextBy(end) {
			c.clock.sleep(end.Sub(c.clock.now))
			return done()
		}
		c.clock.step()
	}
	return true
}

// Snapshot returns what the API server holds about namespace, without any lag. Now is set. The objects are read
// only.
func (c *Cluster) Snapshot(namespace string) migration.Snapshot {
	s := migration.Snapshot{
		Migrations:  all[*kubevirtv1.VirtualMachineInstanceMigration](&c.store, namespace),
		VMIs:        all[*kubevirtv1.VirtualMachineInstance](&c.store, namespace),
		Pods:        all[*corev1.Pod](&c.store, namespace),
		LimitRanges: all[*corev1.LimitRange](&c.store, namespace),
		PVCs:        all[*corev1.PersistentVolumeClaim](&c.store, namespace),
		Events:      all[*corev1.Event](&c.store, namespace),
		Now:         c.clock.now,

		ResourceClaims: all[*resourcev1.ResourceClaim](&c.store, namespace),
	}
	s.Namespace, _ = find[*corev1.Namespace](&c.store, "", namespace)
	return s
}

// Writes returns how many writes to objects of kind the processes of user have made that the API server carried
// out, also those that changed nothing, and those of the status only.
func (c *Cluster) Writes(user string, kind Kind) int {
	return c.writes[writeOf{user, kind, false}] + c.StatusWrites(user, kind)
}

// StatusWrites returns how many of the Writes were to the status subresource.
func (c *Cluster) StatusWrites(user string, kind Kind) int {
	return c.writes[writeOf{user, kind, true}]
}

// sleep lets pass what one way of a call takes.
func (c *Cluster) sleep() { c.clock.sleep(c.draw(c.config.Timing.Call)) }

func (c *Cluster) draw(s Span) time.Duration {
	if s.Max <= s.Min {
		return s.Min
	}
	return s.Min + time.Duration(c.random.Int64N(int64(s.Max-s.Min)+1))
}
