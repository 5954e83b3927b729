package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// A chooser decides what is left to chance: it returns a number below n. Package rand is one, and so is rapid.
type chooser func(what string, n int) int

// A run is one random schedule on one simulated cluster.
type run struct {
	*fake.Cluster
	choose chooser
	// rough is a run in which calls fail, and caches and the record are late by more than an offer lasts. Then
	// a target pod may be taken for a regular one and lift the limit, so Idle is no finding in these runs.
	rough     bool
	budget    corev1.ResourceList
	grows     bool // guests may grow by hot-plug
	rancher   *model.Simulated
	processes []*fake.Process
	leading   []bool                         // which of two replicas leads, or both for a while
	static    map[string]corev1.ResourceList // what the tenants were given, by quota
	idle      map[string]time.Time           // since when a quota is raised for nothing, by namespace and name
	starving  map[string]time.Time           // since when a migration is, by namespace and name
	patience  time.Duration                  // for how long it may
	excused   time.Time                      // until when that is no finding
	wrong     []string                       // what the run itself found
	named     int
	acts      int
	log       []string
	tell      func(line string) // of each action; nil: nobody
}

// The namespaces. The quota of managed is Rancher's, where there is one.
const (
	managed = "managed"
	plain   = "plain"
)

var namespaces = []string{managed, plain}

// one chooses one of them.
func one[T any](r *run, what string, of ...T) T { return of[r.choose(what, len(of))] }

// newRun draws a cluster, and starts the library in it, built as m says.
func newRun(choose chooser, m mutant) *run {
	r := &run{choose: choose, static: map[string]corev1.ResourceList{}, idle: map[string]time.Time{}, starving: map[string]time.Time{}}
	policy := one(r, "policy", quota.Policy{}, quota.Policy{}, quota.Policy{}, quota.Policy{Strict: true},
		quota.Policy{Budget: corev1.ResourceList{"limits.cpu": milli(2100), "pods": milli(2000)}}, quota.Policy{Budget: corev1.ResourceList{"limits.cpu": milli(700)}})
	r.budget = policy.Budget
	r.rough = r.choose("rough", 3) > 0
	r.grows = r.choose("growth", 4) == 3
	timing := fake.DefaultTiming()
	if r.choose("slow admission", 2) == 1 {
		timing.Admission = fake.Span{Max: 80 * time.Millisecond}
	}
	config := fake.Config{
		Seed: uint64(r.choose("seed of the cluster", 1<<30)), Nodes: 2 + r.choose("nodes", 3), Timing: &timing, Policy: policy,
	}
	r.patience = 6 * time.Minute // the longest that one of the faults below can be in the way
	if r.rough {
		r.patience = 20 * time.Minute // a little more than KubeVirt's longest back-off
	}
	latency := one(r, "rancher", fake.Span{Min: -1}, fake.Span{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond}, fake.Span{Min: 600 * time.Millisecond, Max: 700 * time.Millisecond})
	if latency.Min > 0 && r.choose("lock", 2) == 0 {
		config.Lock = fake.RancherUser
	}
	if m.embedding.guard = r.choose("guard", 2) == 0; m.embedding.guard {
		config.Guard = applier.OfferAnnotation
	}
	r.Cluster = fake.New(config)
	if latency.Min > 0 {
		r.rancher = model.Simulate(r.Cluster, latency, nil)
	}
	r.build()
	m.embedding.policy = policy
	if m.policy != nil {
		m.embedding.policy = *m.policy
	}
	switch r.choose("processes", 3) {
	case 0:
		r.processes = append(r.processes, r.Start("headroom", m.embedding.program))
	case 1:
		r.leading = []bool{true, false}
		for i := range r.leading {
			replica := m.embedding
			replica.leads = func() bool { return r.leading[i] }
			r.processes = append(r.processes, r.Start("headroom", replica.program))
		}
	case 2:
		observer, writer := m.embedding, m.embedding
		observer.observesOnly, writer.appliesOnly = true, true
		r.processes = append(r.processes, r.Start("observer", observer.program), r.Start("headroom", writer.program))
	}
	r.Advance(time.Second)
	return r
}

// build creates the namespaces with their quotas, which are nearly full of VMs.
func (r *run) build() {
	vms := 2 + r.choose("VMs", 3)
	spare := r.choose("spare", 2)
	for _, namespace := range namespaces {
		must(r.CreateNamespace(namespace, nil))
	}
	n := int64(vms + spare)
	r.setLimits(managed, corev1.ResourceList{"limits.cpu": milli(1015 * n), "limits.memory": *resource.NewQuantity(2773714688*n, resource.BinarySI)})
	must(r.createQuota(plain, "first", corev1.ResourceList{"requests.cpu": milli(105 * n), "pods": milli(1000 * n)}))
	must(r.createQuota(plain, "second", corev1.ResourceList{
		"requests.memory": *resource.NewQuantity(1391857344*n, resource.BinarySI), "limits.cpu": milli(1015 * n),
		"requests.storage": *resource.NewQuantity(20<<20, resource.BinarySI),
	}, corev1.ResourceQuotaScopeNotBestEffort))
	r.Advance(5 * time.Second)
	for range vms {
		for _, namespace := range namespaces {
			r.createVM(namespace, 0)
		}
	}
	r.Advance(time.Minute)
}

// setLimits gives managed its limits, for the first time or anew.
func (r *run) setLimits(namespace string, hard corev1.ResourceList) {
	if r.rancher != nil {
		must(r.rancher.SetLimit(namespace, hard))
		r.static[namespace] = hard
		return
	}
	must(r.write(namespace, managed, hard))
}

func (r *run) createQuota(namespace, name string, hard corev1.ResourceList, scopes ...corev1.ResourceQuotaScope) error {
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ResourceQuotaSpec{Hard: hard, Scopes: scopes}}
	_, err := r.Client("admin").CoreV1().ResourceQuotas(namespace).Create(context.Background(), rq, metav1.CreateOptions{})
	r.static[namespace+"/"+name] = hard.DeepCopy()
	return err
}

// write creates a quota, or edits some of its limits.
func (r *run) write(namespace, name string, hard corev1.ResourceList) error {
	rq := r.Quota(namespace, name)
	if rq == nil {
		return r.createQuota(namespace, name, hard)
	}
	maps.Copy(rq.Spec.Hard, hard)
	if _, err := r.Client("admin").CoreV1().ResourceQuotas(namespace).Update(context.Background(), rq, metav1.UpdateOptions{}); err != nil {
		return err
	}
	maps.Copy(r.static[namespace+"/"+name], hard.DeepCopy())
	return nil
}

// createVM creates a VM of one of several shapes.
func (r *run) createVM(namespace string, shape int) {
	r.named++
	vmi := fake.NewVMI(namespace, fmt.Sprint("vm", r.named), 1, *resource.NewQuantity(1<<30, resource.BinarySI))
	yes := true
	switch shape {
	case 1:
		vmi.Spec.Domain.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: milli(500), corev1.ResourceMemory: *resource.NewQuantity(1<<30, resource.BinarySI)}
	case 2:
		vmi.Spec.Domain.Devices.TPM = &kubevirtv1.TPMDevice{Persistent: &yes}
	case 3:
		vmi.Spec.Volumes = append(vmi.Spec.Volumes, kubevirtv1.Volume{Name: "hp", VolumeSource: kubevirtv1.VolumeSource{
			PersistentVolumeClaim: &kubevirtv1.PersistentVolumeClaimVolumeSource{Hotpluggable: true},
		}})
	}
	must(r.CreateVMI(vmi))
}

// act does one thing after another, of which one is to wait, until an invariant is broken.
func (r *run) act(n int) {
	total := 0
	for _, a := range actions {
		total += a.weight
	}
	for range n {
		at := r.choose("action", total)
		for _, a := range actions {
			if at -= a.weight; at < 0 {
				r.acts++
				told := a.do(r)
				line := strings.TrimSpace(fmt.Sprintf("%v %s %s", r.elapsed(), a.name, told))
				r.log = append(r.log, line)
				if r.tell != nil {
					r.tell(line)
				}
				break
			}
		}
		if len(r.broken()) > 0 {
			return
		}
	}
}

// end lets all faults stop, and returns what is wrong then.
func (r *run) end() []string {
	for node := range 4 {
		r.Uncordon(fmt.Sprintf("node%02d", node+1))
	}
	if leave := r.choose("leave what hangs", 2) == 1; !leave {
		r.Inject(nil)
		for range 20 * 60 {
			r.Advance(time.Second)
			r.findStarved()
		}
		for _, namespace := range namespaces {
			for _, m := range r.Snapshot(namespace).Migrations {
				if !m.IsFinal() {
					must(r.Abort(namespace, m.Name))
				}
			}
		}
	}
	r.Finish()
	return append(r.broken(), r.leftovers()...)
}

// pass lets time pass, and looks at the quotas meanwhile.
func (r *run) pass(d time.Duration) {
	for end := r.Now().Add(d); r.Now().Before(end); r.look() {
		r.Advance(min(100*time.Millisecond, end.Sub(r.Now())))
	}
}

// excuse says that for d, and a moment after it, the library cannot be expected to lower anything.
func (r *run) excuse(d time.Duration) {
	if until := r.Now().Add(d + 5*time.Second); until.After(r.excused) {
		r.excused = until
	}
}

// findStarved finds the migrations whose target pods are refused for too long.
func (r *run) findStarved() {
	starving := map[string]time.Time{}
	for _, name := range r.Starving() {
		since, known := r.starving[name]
		if !known {
			since = r.Now()
		}
		if r.Now().Sub(since) >= r.patience {
			r.wrong = append(r.wrong, fmt.Sprintf("Starved: the target pod of migration %s is refused since %v, although there should be headroom for it",
				name, r.elapsed()-r.Now().Sub(since)))
			since = r.Now().Add(24 * time.Hour) // once is enough
		}
		starving[name] = since
	}
	r.starving = starving
}

// look finds the quotas that are raised although no migration waits that needs it. It asks nothing of the
// library but which migrations are in flight.
func (r *run) look() {
	r.findStarved()
	if r.rough {
		return
	}
	for _, namespace := range namespaces {
		var inFlight []quota.Migration
		known := false
		quotas := quotasIn(r.Cluster, namespace)
		for i := range quotas {
			rq := &quotas[i]
			key := namespace + "/" + rq.Name
			if !exceeds(rq.Status.Hard, rq.Spec.Hard) {
				delete(r.idle, key)
				continue
			}
			if !known {
				inFlight, known = migration.InFlight(r.Snapshot(namespace)), true
			}
			since, raised := r.idle[key]
			switch {
			case r.needed(rq, quota.Under(rq, inFlight)):
				delete(r.idle, key)
			case !raised:
				r.idle[key] = r.Now()
			case r.Now().Sub(since) > brief && r.Now().After(r.excused):
				r.wrong = append(r.wrong, fmt.Sprintf("Idle: quota %s enforces %s since %v, and no migration needs it: static is %s, used %s",
					key, list(rq.Status.Hard), r.elapsed()-r.Now().Sub(since), list(rq.Spec.Hard), list(rq.Status.Used)))
				r.idle[key] = r.Now().Add(time.Hour) // once is enough
			}
		}
	}
}

// brief is for how long a quota may be raised for nothing: less than an offer lasts, and more than caches are
// late in a run that is not rough.
const brief = 700 * time.Millisecond

// needed reports whether what rq enforces above static is lifted by regular usage, charged, or what a migration
// waits for that the budget allows.
func (r *run) needed(rq *corev1.ResourceQuota, migrations []quota.Migration) bool {
	isCharged := func(m quota.Migration) bool { return m.State == quota.Charged }
	charged, regular := slices.DeleteFunc(slices.Clone(migrations), func(m quota.Migration) bool { return !isCharged(m) }), rq.Status.Used
	for _, m := range charged {
		held := m.Held
		if held == nil {
			held = m.Surge
		}
		regular = amounts.Each(regular, held, amounts.Minus)
	}
	least := amounts.Each(rq.Spec.Hard, regular, amounts.Max)
	for _, m := range charged {
		least = amounts.Each(least, m.Surge, amounts.Plus)
	}
	for _, m := range migrations {
		if isCharged(m) || exceeds(m.Surge, r.budget) { // which is never granted
			continue
		}
		for name, surge := range m.Surge {
			wanted := amounts.Plus(amounts.Plus(rq.Status.Used[name], surge), m.Growth[name])
			if limit, limited := least[name]; limited && surge.Sign() > 0 && wanted.Cmp(limit) > 0 {
				return true
			}
		}
	}
	return !exceeds(rq.Status.Hard, least)
}

func exceeds(a, b corev1.ResourceList) bool {
	for name, q := range a {
		if other, ok := b[name]; ok && q.Cmp(other) > 0 {
			return true
		}
	}
	return false
}

// broken are the invariants that were broken so far.
func (r *run) broken() []string {
	var wrong []string
	for _, violation := range r.Violations() {
		wrong = append(wrong, violation.String())
	}
	return append(wrong, r.wrong...)
}

// leftovers are what the run itself finds in the end: it knows what the tenants were given, and asks nothing of
// the library for it.
func (r *run) leftovers() []string {
	var wrong []string
	inFlight := 0
	for _, namespace := range namespaces {
		inFlight += len(migration.InFlight(r.Snapshot(namespace)))
		for _, rq := range quotasIn(r.Cluster, namespace) {
			static, known := r.static[namespace+"/"+rq.Name]
			if !known {
				static = r.static[namespace]
			}
			for name, limit := range static {
				if hard := rq.Spec.Hard[name]; hard.String() != limit.String() {
					wrong = append(wrong, fmt.Sprintf("the tenant of %s was given %s %s, and quota %s has %s in the end", namespace, limit.String(), name, rq.Name, hard.String()))
				}
			}
		}
	}
	records, err := r.Client("admin").CoreV1().ConfigMaps(system).List(context.Background(), metav1.ListOptions{})
	must(err)
	if inFlight == 0 && len(records.Items) > 0 {
		wrong = append(wrong, fmt.Sprintf("%d records are left in the ledger", len(records.Items)))
	}
	slices.Sort(wrong)
	return wrong
}

func (r *run) elapsed() time.Duration {
	return r.Now().Sub(time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)).Round(time.Millisecond)
}

func milli(n int64) resource.Quantity { return *resource.NewMilliQuantity(n, resource.DecimalSI) }

// must is for what fails only if the program is wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
