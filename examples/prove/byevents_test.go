package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// byEvents is the policy that the library replaces: raise for every migration that is
// pending, lower when it says that it has ended. It is made after Harvester's: each event
// of a migration writes or removes an annotation of the quota, and spec.hard is static
// and all annotations.
type byEvents struct {
	static corev1.ResourceList
	quota  string // of several it knows one
	// surge is what is added for a VM; nil: exactly what its pod is charged.
	surge func(vmi *kubevirtv1.VirtualMachineInstance) corev1.ResourceList
	// adds is the older way: += at the start and -= at the end, without annotations.
	adds bool
	// asked makes static what the annotation of the namespace asks for, where it has one.
	asked bool
}

const (
	migratingPrefix = "harvesterhci.io/migratingUID-"
	skipAnnotation  = "harvesterhci.io/skipResourceQuotaAutoScaling"
)

func (b byEvents) program(p *fake.Process) fake.Program {
	var events []*kubevirtv1.VirtualMachineInstanceMigration
	for _, o := range p.Caches[fake.Migrations].List() { // informers begin with what there is
		events = append(events, o.(*kubevirtv1.VirtualMachineInstanceMigration))
	}
	slices.SortFunc(events, func(a, b *kubevirtv1.VirtualMachineInstanceMigration) int { return -strings.Compare(a.Name, b.Name) })
	return fake.Program{
		Namespace: func(object any) string {
			switch o := object.(type) {
			case *kubevirtv1.VirtualMachineInstanceMigration:
				events = append(events, o)
				return o.Namespace
			case *corev1.ResourceQuota:
				return o.Namespace
			case *corev1.Namespace:
				return o.Name
			}
			return ""
		},
		Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
			quotas := p.Client.CoreV1().ResourceQuotas(namespace)
			rq, err := quotas.Get(ctx, b.quota, metav1.GetOptions{})
			if err != nil {
				return 0, nil
			}
			updated := rq.DeepCopy()
			seen := len(events)
			for _, m := range events[:seen] {
				b.handle(p, m, updated)
			}
			if b.scale(p, updated) {
				if _, err := quotas.Update(ctx, updated, metav1.UpdateOptions{}); err != nil {
					return 0, err
				}
			}
			events = events[seen:]
			return 0, nil
		},
	}
}

// handle is the handler of one event.
func (b byEvents) handle(p *fake.Process, m *kubevirtv1.VirtualMachineInstanceMigration, rq *corev1.ResourceQuota) {
	found, exists, err := p.Caches[fake.VMIs].GetByKey(m.Namespace + "/" + m.Spec.VMIName)
	if err != nil || !exists || rq.Annotations[skipAnnotation] == "true" {
		return
	}
	vmi := found.(*kubevirtv1.VirtualMachineInstance)
	key := migratingPrefix + string(vmi.UID)
	_, raised := rq.Annotations[key]
	switch {
	case m.Status.Phase == kubevirtv1.MigrationPending && !raised:
		surge := footprintOf(p, vmi)
		if b.surge != nil {
			surge = b.surge(vmi)
		}
		metav1.SetMetaDataAnnotation(&rq.ObjectMeta, key, amountsOf(surge))
		if b.adds {
			rq.Spec.Hard = change(rq.Spec.Hard, surge, false)
		}
	case m.IsFinal() && raised:
		if b.adds {
			rq.Spec.Hard = change(rq.Spec.Hard, readAmounts(rq.Annotations[key]), true)
		}
		delete(rq.Annotations, key)
		if len(rq.Annotations) == 0 {
			rq.Annotations = nil
		}
	}
}

// scale sets the limits, and reports whether rq is to be written.
func (b byEvents) scale(p *fake.Process, rq *corev1.ResourceQuota) bool {
	cached, exists, err := p.Caches[fake.ResourceQuotas].GetByKey(rq.Namespace + "/" + rq.Name)
	if err != nil || !exists || rq.Annotations[skipAnnotation] == "true" {
		return false
	}
	before := cached.(*corev1.ResourceQuota)
	hard := b.static
	if b.asked {
		ns, exists, err := p.Caches[fake.Namespaces].GetByKey(rq.Namespace)
		if err != nil || !exists {
			return false
		}
		if hard, err = rancher.Limits(ns.(*corev1.Namespace)); err != nil || hard == nil {
			return false
		}
	}
	if !b.adds {
		for key, value := range rq.Annotations {
			if !strings.HasPrefix(key, migratingPrefix) {
				continue
			}
			surge := readAmounts(value)
			if surge == nil {
				return false // malformed: nothing is done
			}
			hard = change(hard, surge, false)
		}
		rq.Spec.Hard = hard.DeepCopy()
	}
	return !quota.Equal(rq.Spec.Hard, before.Spec.Hard) || len(rq.Annotations) != len(before.Annotations)
}

// change returns hard with surge added or taken away, where it has a limit that is not 0.
func change(hard, surge corev1.ResourceList, down bool) corev1.ResourceList {
	changed := hard.DeepCopy()
	for name, limit := range changed {
		q, ok := surge[name]
		if !ok || limit.IsZero() {
			continue
		}
		if down {
			limit.Sub(q)
		} else {
			limit.Add(q)
		}
		changed[name] = limit
	}
	return changed
}

// footprintOf returns what the pod that vmi runs in is charged.
func footprintOf(p *fake.Process, vmi *kubevirtv1.VirtualMachineInstance) corev1.ResourceList {
	for _, pod := range p.Caches.Snapshot(vmi.Namespace).Pods {
		if metav1.IsControlledBy(pod, vmi) && pod.Spec.NodeName == vmi.Status.NodeName {
			return quota.Footprint(pod)
		}
	}
	return nil
}

// estimated is what Harvester takes a VM for: its limits, and an estimate of the overhead.
func estimated(vmi *kubevirtv1.VirtualMachineInstance) corev1.ResourceList {
	surge := corev1.ResourceList{}
	limits := vmi.Spec.Domain.Resources.Limits
	if q, ok := limits[corev1.ResourceCPU]; ok {
		surge[corev1.ResourceLimitsCPU] = q.DeepCopy()
	}
	if q, ok := limits[corev1.ResourceMemory]; ok {
		q = q.DeepCopy()
		q.Add(resource.MustParse("270Mi"))
		surge[corev1.ResourceLimitsMemory] = q
	}
	return surge
}

// onlyLimits leaves of an exact surge what Harvester scales.
func onlyLimits(surge corev1.ResourceList) corev1.ResourceList {
	kept := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory} {
		if q, ok := surge[name]; ok {
			kept[name] = q
		}
	}
	return kept
}

func amountsOf(list corev1.ResourceList) string {
	text, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// readAmounts returns nil for what it cannot read.
func readAmounts(text string) corev1.ResourceList {
	var list corev1.ResourceList
	if json.Unmarshal([]byte(text), &list) != nil {
		return nil
	}
	return list
}
