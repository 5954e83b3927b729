package main

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

// An action is something that may happen next.
type action struct {
	name   string
	weight int                 // how often, compared with the others
	do     func(r *run) string // returns what it did, for people
}

// actions are all that the world does to the library.
var actions = []action{
	{"wait", 30, func(r *run) string {
		d := one(r, "for", 20*time.Millisecond, 100*time.Millisecond, time.Second, 5*time.Second, 30*time.Second, 3*time.Minute)
		r.pass(d)
		return d.String()
	}},
	{"migrate", 20, func(r *run) string {
		outcome := one(r, "outcome", fake.Outcome{}, fake.Outcome{}, fake.Outcome{Fail: true}, fake.Outcome{Hang: true},
			fake.Outcome{Linger: time.Minute}, fake.Outcome{Linger: 24 * time.Hour})
		r.named++
		return r.tenant(func(t tenant) error { return t.migrate(fmt.Sprint("migrate", r.named), outcome) }) + fmt.Sprintf(" %+v", outcome)
	}},
	{"abort", 4, func(r *run) string { return r.tenant(tenant.abort) }},
	{"drain", 2, func(r *run) string { return r.onNode(r.Drain) }},
	{"uncordon", 3, func(r *run) string { return r.onNode(r.Uncordon) }},
	{"create a VM", 2, func(r *run) string {
		namespace := one(r, "namespace", namespaces...)
		r.createVM(namespace, r.choose("shape", 4))
		return "in " + namespace
	}},
	{"delete a VM", 2, func(r *run) string { return r.tenant(tenant.deleteVMI) }},
	{"kill a launcher", 1, func(r *run) string { return r.tenant(tenant.killPod) }},
	{"hot-plug", 2, hotPlug},
	{"memory overhead", 3, func(r *run) string {
		if r.rough { // what a larger target needs is told in events, which are late or lost here
			return "no"
		}
		mega := one(r, "MiB", int64(270), 300, 1000)
		r.SetMemoryOverhead(mega << 20)
		return fmt.Sprint(mega, " MiB")
	}},
	{"take all", 4, func(r *run) string { return r.tenant(tenant.steal) }},
	{"create a pod", 3, func(r *run) string {
		namespace := one(r, "namespace", namespaces...)
		if r.smallPod(namespace) != nil {
			return "in " + namespace + ", in vain"
		}
		return "in " + namespace
	}},
	{"delete a pod", 5, func(r *run) string { return r.tenant(tenant.deletePod) }},
	{"edit limits", 4, edit},
	{"recreate a quota", 1, recreate},
	{"touch the namespace", 3, func(r *run) string {
		if r.rancher != nil {
			must(r.rancher.Touch(managed))
		}
		return ""
	}},
	{"restart Rancher", 2, func(r *run) string {
		if r.rancher != nil {
			r.rancher.Restart()
		}
		return ""
	}},
	{"crash", 3, func(r *run) string {
		p, d := one(r, "process", r.processes...), one(r, "for", 0, 5*time.Second, 5*time.Minute)
		if r.leading == nil && len(r.processes) > 1 && !r.rough {
			d = 0 // one sees, the other writes
		}
		p.Crash(d)
		r.excuse(d)
		return "for " + d.String()
	}},
	{"hand over", 3, handOver},
	{"drop a watch", 3, func(r *run) string {
		p, kind, d := one(r, "process", r.processes...), one(r, "kind", kinds...), r.brief(one(r, "for", time.Second, time.Minute))
		p.DropWatch(kind, d)
		return fmt.Sprint(kind, " for ", d)
	}},
	{"slow a cache down", 3, func(r *run) string {
		p, kind, d := one(r, "process", r.processes...), one(r, "kind", kinds...), r.brief(one(r, "lag", 0, 100*time.Millisecond, 3*time.Second, time.Minute))
		p.Lag(kind, fake.Span{Min: d / 2, Max: d})
		return fmt.Sprint(kind, " by ", d)
	}},
	{"fail calls", 3, failCalls},
	{"refuse pods", 1, refusePods},
	{"end pods all the time", 2, func(r *run) string {
		namespace := one(r, "namespace", namespaces...)
		for range 40 {
			if r.smallPod(namespace) == nil {
				must(r.in(namespace).deletePod()) // there is one
			}
			r.pass(50 * time.Millisecond)
		}
		return "in " + namespace
	}},
	{"reset limits", 3, func(r *run) string {
		every, d := one(r, "every", 10*time.Millisecond, 100*time.Millisecond, 3*time.Second), one(r, "for", time.Second, 10*time.Second)
		r.ResetLimits(every)
		r.pass(d)
		r.ResetLimits(0)
		return fmt.Sprint("every ", every, " for ", d)
	}},
	{"stop the quota controller", 2, func(r *run) string {
		d := one(r, "for", 100*time.Millisecond, 5*time.Second, 3*time.Minute)
		r.StopQuotaController()
		r.pass(d)
		r.StartQuotaController()
		return "for " + d.String()
	}},
}

var kinds = []fake.Kind{fake.ResourceQuotas, fake.Pods, fake.Migrations, fake.VMIs, fake.ConfigMaps, fake.Claims, fake.Events}

// tenant lets the tenant of a namespace act.
func (r *run) tenant(act func(tenant) error) string {
	namespace := one(r, "namespace", namespaces...)
	if act(r.in(namespace)) != nil {
		return "in " + namespace + ", in vain"
	}
	return "in " + namespace
}

func (r *run) in(namespace string) tenant { return tenant{r.Cluster, namespace, r.choose} }

// refusePods has something else than quota refuse all pods of a namespace for two minutes. Offers do not help, so
// they lapse, and there are pauses between them.
func refusePods(r *run) string {
	namespace := one(r, "namespace", namespaces...)
	r.RefusePods(namespace, "the image is not signed")
	defer r.RefusePods(namespace, "")
	r.named++
	_ = r.in(namespace).migrate(fmt.Sprint("migrate", r.named), fake.Outcome{}) // or there is no VM
	open := map[string]time.Duration{}
	const step, most = 100 * time.Millisecond, 100 * time.Second
	for range 2 * time.Minute / step {
		r.pass(step)
		charged := slices.DeleteFunc(migration.InFlight(r.Snapshot(namespace)), func(m quota.Migration) bool { return m.State < quota.Charged })
		for _, rq := range quotasIn(r.Cluster, namespace) {
			if exceeds(rq.Status.Hard, rq.Spec.Hard) && !r.needed(&rq, quota.Under(&rq, charged)) {
				open[rq.Name] += step
			}
		}
	}
	for _, m := range r.Snapshot(namespace).Migrations { // which would wait for the end of a pause
		if !m.IsFinal() && m.DeletionTimestamp == nil {
			must(r.Abort(namespace, m.Name))
		}
	}
	for name, d := range open {
		if d > most && !r.rough {
			r.wrong = append(r.wrong, fmt.Sprintf("Open: in quota %s/%s room is open for %v of two minutes, and nobody comes", namespace, name, d))
		}
	}
	return "in " + namespace
}

func (r *run) smallPod(namespace string) error {
	return r.in(namespace).createPod(corev1.ResourceList{corev1.ResourceCPU: milli(100), corev1.ResourceMemory: *resource.NewQuantity(1<<28, resource.BinarySI)})
}

// handOver makes the other replica lead. For a moment both do. Who has lost the lease ends, and starts anew.
func handOver(r *run) string {
	if r.leading == nil {
		return ""
	}
	before := slices.Index(r.leading, true)
	after := 1 - before
	d := one(r, "both for", 0, time.Second, 15*time.Second)
	r.leading[after] = true
	for _, namespace := range namespaces {
		r.processes[after].Enqueue(namespace)
	}
	r.pass(d)
	r.leading[before] = false
	r.processes[before].Crash(0)
	r.excuse(0)
	return "both lead for " + d.String()
}

// brief makes d short, if the run is not rough.
func (r *run) brief(d time.Duration) time.Duration {
	if r.rough {
		return d
	}
	return min(d, 200*time.Millisecond)
}

func (r *run) onNode(act func(node string)) string {
	node := fmt.Sprintf("node%02d", r.choose("node", 2)+1)
	act(node)
	return node
}

func hotPlug(r *run) string {
	namespace := one(r, "namespace", namespaces...)
	vmis := r.Snapshot(namespace).VMIs
	if len(vmis) == 0 || !r.grows {
		return ""
	}
	vmi := one(r, "VM", vmis...)
	sockets, gigas := uint32(1+r.choose("more sockets", 2)), int64(1+r.choose("more GiB", 2))
	if r.HotPlug(namespace, vmi.Name, sockets, *resource.NewQuantity(gigas<<30, resource.BinarySI)) != nil {
		return vmi.Name + ", in vain"
	}
	return fmt.Sprintf("%s to %d sockets and %d GiB", vmi.Name, sockets, gigas)
}

// edit gives a tenant other limits. No two edits give the same, so that none can be taken for a raise.
func edit(r *run) string {
	r.named++
	n, odd := int64(1+r.choose("VMs", 5)), int64(r.named)
	cpu := corev1.ResourceList{"limits.cpu": milli(1015*n + 7*odd)}
	if r.choose("namespace", 2) == 0 {
		if r.rancher == nil {
			return list(cpu) + outcome(r.write(managed, managed, cpu))
		}
		hard := r.static[managed].DeepCopy()
		hard["limits.cpu"] = cpu["limits.cpu"]
		r.setLimits(managed, hard)
		return list(hard)
	}
	if r.choose("quota", 2) == 0 {
		return list(cpu) + outcome(r.write(plain, "second", cpu))
	}
	pods := corev1.ResourceList{"pods": milli(1000 * (n + 100*odd)), "requests.cpu": milli(105*n + 7*odd)}
	return list(pods) + outcome(r.write(plain, "first", pods))
}

func outcome(err error) string {
	if err != nil {
		return ", in vain"
	}
	return ""
}

// recreate deletes a quota, and creates it anew with the limits that the tenant was given.
func recreate(r *run) string {
	rq := r.Quota(plain, "second")
	if rq == nil || deleteQuota(r.Cluster, plain, "second") != nil {
		return ""
	}
	d := one(r, "for", 0, 50*time.Millisecond, 10*time.Second)
	r.pass(d)
	must(r.createQuota(plain, "second", r.static[plain+"/second"], rq.Spec.Scopes...))
	return "after " + d.String()
}

// failCalls decides what happens to the calls of the library from now on.
func failCalls(r *run) string {
	if !r.rough {
		return "no"
	}
	chances := one(r, "chances", nil,
		map[fake.Fault]float64{fake.Conflict: 0.3},
		map[fake.Fault]float64{fake.Crash: 0.03, fake.CrashWritten: 0.03},
		map[fake.Fault]float64{fake.Timeout: 0.1, fake.TimeoutWritten: 0.1},
		map[fake.Fault]float64{fake.Forbidden: 0.2},
		map[fake.Fault]float64{fake.ServerError: 0.2, fake.Conflict: 0.1, fake.CrashWritten: 0.02},
	)
	r.Inject(nil)
	if chances != nil {
		r.Inject(r.Chance(chances))
	}
	return fmt.Sprint(chances)
}

// onOne chooses one of those that are so, and acts on it.
func onOne[T any](t tenant, from []T, are func(T) bool, act func(T) error) error {
	from = slices.DeleteFunc(slices.Clone(from), func(o T) bool { return !are(o) })
	if len(from) == 0 {
		return errNothing
	}
	return act(from[t.choose("which", len(from))])
}
