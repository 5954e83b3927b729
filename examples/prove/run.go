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

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// A chooser decides what is left to chance: it returns a number below n. Package rand is
// one, and so is rapid.
type chooser func(what string, n int) int

// A run is one random schedule on one simulated cluster.
type run struct {
	*fake.Cluster
	choose chooser
	// rough is a run in which calls fail, and caches and the record are late by more than
	// the second for which the applier waits before it takes usage for regular. Then it
	// may take a target pod for one, and regular workloads find more room than they
	// should: what is reported as taken. Gained is no finding in these runs.
	rough     bool
	grows     bool // guests may grow by hot-plug
	rancher   *fake.Rancher
	processes []*fake.Process
	static    map[string]corev1.ResourceList // what the tenants were given, by quota
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
	r := &run{choose: choose, static: map[string]corev1.ResourceList{}}
	policy := one(r, "policy", quota.Policy{}, quota.Policy{}, quota.Policy{Eager: true}, quota.Policy{Strict: true},
		quota.Policy{Budget: corev1.ResourceList{"limits.cpu": milli(2100), "pods": milli(2000)}})
	r.rough = r.choose("rough", 3) > 0
	r.grows = r.choose("growth", 4) == 3
	timing := fake.DefaultTiming()
	if r.choose("slow admission", 2) == 1 {
		timing.Admission = fake.Span{Max: 80 * time.Millisecond}
	}
	config := fake.Config{
		Seed: uint64(r.choose("seed of the cluster", 1<<30)), Nodes: 2 + r.choose("nodes", 3), Timing: &timing, Policy: policy,
		// The longest that one of the faults below can be in the way.
		Patience: 6 * time.Minute, Slack: 6 * time.Minute,
	}
	if r.rough {
		config.Patience, config.Slack = 20*time.Minute, 20*time.Minute
	}
	latency := one(r, "rancher", fake.Span{Min: -1}, fake.Span{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond}, fake.Span{Min: 600 * time.Millisecond, Max: 700 * time.Millisecond})
	user := "headroom"
	if latency.Min > 0 && r.choose("lock", 3) == 0 {
		user, config.Lock = fake.RancherUser, fake.RancherUser // the library runs inside of Rancher
	}
	r.Cluster = fake.New(config)
	if latency.Min > 0 {
		r.rancher = r.StartRancher(fake.RancherConfig{Latency: latency})
	}
	r.build()
	m.embedding.policy = policy
	if m.policy != nil {
		m.embedding.policy = *m.policy
	}
	observer, writer := m.embedding, m.embedding
	switch r.choose("processes", 3) {
	case 1:
		r.processes = append(r.processes, r.Start(user, m.embedding.program))
	case 2:
		observer.observesOnly, writer.appliesOnly = true, true
		r.processes = append(r.processes, r.Start("observer", observer.program))
	}
	r.processes = append(r.processes, r.Start(user, writer.program))
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
	r.createQuota("first", corev1.ResourceList{"requests.cpu": milli(105 * n), "pods": milli(1000 * n)})
	r.createQuota("second", corev1.ResourceList{"requests.memory": *resource.NewQuantity(1391857344*n, resource.BinarySI), "limits.cpu": milli(1015 * n), "requests.storage": resource.MustParse("20Mi")}, //nolint:forbidigo // a constant
		corev1.ResourceQuotaScopeNotBestEffort)
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

func (r *run) createQuota(name string, hard corev1.ResourceList, scopes ...corev1.ResourceQuotaScope) {
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ResourceQuotaSpec{Hard: hard, Scopes: scopes}}
	_, err := r.Client("admin").CoreV1().ResourceQuotas(plain).Create(context.Background(), rq, metav1.CreateOptions{})
	must(err)
	r.static[plain+"/"+name] = hard.DeepCopy()
}

// write creates a quota, or edits some of its limits.
func (r *run) write(namespace, name string, hard corev1.ResourceList) error {
	ctx, client := context.Background(), r.Client("admin").CoreV1().ResourceQuotas(namespace)
	key := namespace + "/" + name
	rq := r.Quota(namespace, name)
	if rq == nil {
		_, err := client.Create(ctx, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}, metav1.CreateOptions{})
		r.static[key] = hard.DeepCopy()
		return err
	}
	maps.Copy(rq.Spec.Hard, hard)
	if _, err := client.Update(ctx, rq, metav1.UpdateOptions{}); err != nil {
		return err
	}
	maps.Copy(r.static[key], hard.DeepCopy())
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
		r.Advance(20 * time.Minute)
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

// broken are the invariants that were broken so far.
func (r *run) broken() []string {
	var wrong []string
	for _, violation := range r.Violations() {
		if excused := r.rough && violation.Invariant == fake.Gained; !excused {
			wrong = append(wrong, violation.String())
		}
	}
	return wrong
}

// leftovers are what the run itself finds: it knows what the tenants were given, and asks
// nothing of the library for it.
func (r *run) leftovers() []string {
	var wrong []string
	inFlight := 0
	for _, namespace := range namespaces {
		inFlight += len(migration.InFlight(r.Snapshot(namespace)))
		list, err := r.Client("admin").CoreV1().ResourceQuotas(namespace).List(context.Background(), metav1.ListOptions{})
		must(err)
		for _, rq := range list.Items {
			static, known := r.static[namespace+"/"+rq.Name]
			if !known {
				static = r.static[namespace]
			}
			for name, limit := range static {
				hard := rq.Spec.Hard[name]
				raised := len(migration.InFlight(r.Snapshot(namespace))) > 0 && hard.Cmp(limit) > 0
				if hard.String() != limit.String() && !raised {
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
