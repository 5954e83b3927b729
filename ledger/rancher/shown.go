package rancher

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/vmquota/headroom/ledger/applier"
)

// Shown returns rq as its reader is to see it: with the static limits in spec.hard. All
// else is as it is stored: resourceVersion, status, and the annotations of a raise, so
// that they survive whatever is written back.
//
// The result is rq itself unless rq is raised; then it is a copy. Rq is never modified.
// One whose annotations cannot be read is shown as it is stored: its reader finds other
// limits than it wants, and by writing the static ones repairs the annotations.
func (s *Shim) Shown(rq *corev1.ResourceQuota) *corev1.ResourceQuota {
	if !isRaised(rq) || s.Disabled() {
		return rq
	}
	static, err := applier.Static(rq)
	if err != nil {
		return rq
	}
	shown := rq.DeepCopy()
	shown.Spec.Hard = static
	return shown
}

// ShownAll returns quotas as their reader is to see them, each as [Shim.Shown] has it. The
// result is quotas itself if none of them is raised, and a slice of its own otherwise.
func (s *Shim) ShownAll(quotas []*corev1.ResourceQuota) []*corev1.ResourceQuota {
	return each(quotas, s.Shown)
}

// ShownList is ShownAll for the answer of a client. It returns nil for nil.
func (s *Shim) ShownList(list *corev1.ResourceQuotaList) *corev1.ResourceQuotaList {
	if list == nil {
		return nil
	}
	copied := false
	for i := range list.Items {
		rq := &list.Items[i]
		shown := s.Shown(rq)
		if shown == rq {
			continue
		}
		if !copied {
			items := make([]corev1.ResourceQuota, len(list.Items))
			copy(items, list.Items)
			list = &corev1.ResourceQuotaList{TypeMeta: list.TypeMeta, ListMeta: list.ListMeta, Items: items}
			copied = true
		}
		list.Items[i] = *shown
	}
	return list
}

// ShownObject is Shown for what watches and generic handlers are given. It returns what is
// no ResourceQuota as it is.
func (s *Shim) ShownObject(o runtime.Object) runtime.Object {
	if rq, ok := o.(*corev1.ResourceQuota); ok {
		return s.Shown(rq)
	}
	return o
}

// shownAny is Shown for what is in a store, and for what informers hand to handlers.
func (s *Shim) shownAny(o any) any {
	switch o := o.(type) {
	case *corev1.ResourceQuota:
		return s.Shown(o)
	case cache.DeletedFinalStateUnknown:
		o.Obj = s.shownAny(o.Obj)
		return o
	default:
		return o
	}
}

func (s *Shim) shownAnys(objects []any) []any { return each(objects, s.shownAny) }

// each returns list with change done to each element, and list itself if that changes
// nothing. List is not modified.
func each[T comparable](list []T, change func(T) T) []T {
	changed := list
	for i, is := range list {
		next := change(is)
		if next == is {
			continue
		}
		if &changed[0] == &list[0] {
			changed = make([]T, len(list))
			copy(changed, list)
		}
		changed[i] = next
	}
	return changed
}

// isRaised reports whether rq has any of the annotations of a raise.
func isRaised(rq *corev1.ResourceQuota) bool {
	if rq == nil || len(rq.Annotations) == 0 {
		return false
	}
	for _, name := range ours {
		if _, has := rq.Annotations[name]; has {
			return true
		}
	}
	return false
}

// ours are the annotations of a raise.
var ours = []string{applier.StaticAnnotation, applier.AppliedAnnotation}
