package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/watch"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/migration"
)

// A replay is a recording that is played event by event. It follows what the
// static limits are: what the quota says that it was raised from; otherwise spec.hard,
// but what was added to it while a migration was in flight is taken for a raise for that
// migration, and is not static.
type replay struct {
	cache  recording.Cache
	quotas map[string]map[string]*followed // by namespace and name
}

// A followed quota is one whose limits are followed.
type followed struct {
	static corev1.ResourceList
	live   corev1.ResourceList // spec.hard
	raised time.Duration       // when it last was above static, and spec.hard changed
}

func newReplay() *replay { return &replay{quotas: map[string]map[string]*followed{}} }

func (r *replay) apply(e recording.Event) {
	if rq, ok := e.Object.(*corev1.ResourceQuota); ok {
		r.follow(rq, e)
	}
	r.cache.Apply(e)
}

// follow is called before the event is in the cache.
func (r *replay) follow(rq *corev1.ResourceQuota, e recording.Event) {
	quotas := r.quotas[rq.Namespace]
	if e.Type == watch.Deleted {
		delete(quotas, rq.Name)
		return
	}
	if quotas == nil {
		quotas = map[string]*followed{}
		r.quotas[rq.Namespace] = quotas
	}
	before, ok := quotas[rq.Name]
	hard := rq.Spec.Hard
	switch {
	case isRaised(rq):
		next := &followed{static: staticOf(rq), live: hard, raised: e.At}
		if ok && sameLimits(before.live, hard) {
			next.raised = before.raised
		}
		quotas[rq.Name] = next
	case !ok:
		quotas[rq.Name] = &followed{static: hard, live: hard}
	case sameLimits(before.live, hard):
	case len(migration.InFlight(r.cache.Snapshot(rq.Namespace))) == 0:
		quotas[rq.Name] = &followed{static: hard, live: hard}
	default:
		before.edit(hard, e.At)
	}
}

// edit takes in a change of spec.hard while migrations are in flight. A limit that
// grew was raised for them; one that is now below what the tenant was given, or is
// new, was given anew.
func (f *followed) edit(hard corev1.ResourceList, at time.Duration) {
	static := corev1.ResourceList{}
	for name, limit := range hard {
		static[name] = limit
		if old, ok := f.static[name]; ok && limit.Cmp(old) > 0 {
			static[name] = old
			f.raised = at
		}
	}
	f.static, f.live = static, hard
}

func sameLimits(a, b corev1.ResourceList) bool {
	return maps.EqualFunc(a, b, func(x, y resource.Quantity) bool { return x.Cmp(y) == 0 })
}

// tenant returns the state of namespace after the events so far.
func (r *replay) tenant(namespace string) tenant {
	t := newTenant(namespace, &r.cache)
	for name, f := range r.quotas[namespace] {
		t.static[name] = f.static
	}
	return t
}

// notes tells where static is not spec.hard.
func (r *replay) notes(namespace string) []string {
	var notes []string
	for _, name := range slices.Sorted(maps.Keys(r.quotas[namespace])) {
		if f := r.quotas[namespace][name]; !sameLimits(f.static, f.live) {
			notes = append(notes, fmt.Sprintf("spec.hard of %s/%s was raised at %s, while a migration was in flight: "+
				"STATIC is what it was before.", namespace, name, f.raised))
		}
	}
	return notes
}

// replayAll plays the recordings up to the moment at (nil: to their ends). No two
// of them may be of the same namespace.
func replayAll(recordings []namedRecording, at *time.Duration) (scene, error) {
	s := scene{source: source{Kind: recordingSource}}
	from := map[string]string{}
	for _, rec := range recordings {
		if err := rec.check(at); err != nil {
			return scene{}, err
		}
		r := newReplay()
		for _, e := range rec.events {
			if at == nil || e.At <= *at {
				r.apply(e)
			}
		}
		for _, namespace := range rec.namespaces() {
			if other, ok := from[namespace]; ok {
				return scene{}, fmt.Errorf("%s: it shows namespace %s, as %s does", rec.name, namespace, other)
			}
			from[namespace] = rec.name
			s.tenants = append(s.tenants, r.tenant(namespace))
			s.notes = append(s.notes, r.notes(namespace)...)
		}
		s.source.Files = append(s.source.Files, rec.name)
	}
	slices.SortFunc(s.tenants, func(a, b tenant) int { return strings.Compare(a.name, b.name) })
	if at != nil {
		s.source.At = at.String()
	}
	if len(recordings) == 1 {
		s.source.End = recordings[0].end().String()
		if at == nil {
			s.source.At = s.source.End
		}
	}
	return s, nil
}

// check tells whether the recording can be shown at the moment at.
func (r namedRecording) check(at *time.Duration) error {
	if at != nil {
		switch begin, end := r.begin(), r.end(); {
		case *at < begin:
			return fmt.Errorf("%s: --at %s is before it begins, at %s", r.name, *at, begin)
		case *at > end:
			return fmt.Errorf("%s: --at %s is after it ends, at %s", r.name, *at, end)
		}
	}
	vmis := map[string]bool{}
	for _, e := range r.events {
		if vmi, ok := e.Object.(*kubevirtv1.VirtualMachineInstance); ok {
			vmis[vmi.Namespace+"/"+vmi.Name] = true
		}
	}
	for _, e := range r.events {
		m, ok := e.Object.(*kubevirtv1.VirtualMachineInstanceMigration)
		if ok && !m.IsFinal() && !vmis[m.Namespace+"/"+m.Spec.VMIName] {
			return fmt.Errorf("%s: at %s: VirtualMachineInstanceMigration %s/%s: its VirtualMachineInstance %q is not in the recording",
				r.name, e.At, m.Namespace, m.Name, m.Spec.VMIName)
		}
	}
	return nil
}

// namespaces returns those that have a quota or a migration at any time, sorted.
func (r namedRecording) namespaces() []string {
	seen := map[string]bool{}
	for _, e := range r.events {
		switch e.Object.(type) {
		case *corev1.ResourceQuota, *kubevirtv1.VirtualMachineInstanceMigration:
			seen[e.Object.GetNamespace()] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
