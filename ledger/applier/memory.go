package applier

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A memory is what an Applier remembers about one ResourceQuota. It is lost with a
// restart. Then the same limits are enforced, a little sooner or later.
type memory struct {
	latest   *corev1.ResourceQuota // the answer to our last write
	history  history
	baseline baseline
	refusals refusals

	// What has been told in events already.
	deferred string
	taken    corev1.ResourceList
	takenAt  time.Time // since when something is taken, or less than before
}

// remember keeps h for the next plan.
func (m *memory) remember(h history) {
	if len(m.history.offered) > 0 && len(h.offered) == 0 {
		m.baseline.close()
	}
	m.history = h
}

// newest returns the later of rq, which may come from a cache, and the answer to our
// last write.
func (m *memory) newest(rq *corev1.ResourceQuota) *corev1.ResourceQuota {
	if m == nil || m.latest == nil {
		return rq
	}
	theirs, err := strconv.ParseUint(rq.ResourceVersion, 10, 64)
	ours, oursErr := strconv.ParseUint(m.latest.ResourceVersion, 10, 64)
	if err == nil && oursErr == nil && theirs < ours {
		return m.latest
	}
	m.latest = nil
	return rq
}

// idle reports whether there is nothing to remember about a quota that no migration
// concerns.
func (m *memory) idle() bool {
	return m.latest == nil && m.refusals.count == 0
}

// memoriesOf one namespace are by UID, so that a quota that is recreated is another one.
// Whoever has them has the namespace to himself.
type memoriesOf struct{ quotas map[types.UID]*memory }

// of returns the memory of rq; a new one if there is none.
func (m *memoriesOf) of(rq *corev1.ResourceQuota) *memory {
	remembered := m.quotas[rq.UID]
	if remembered == nil {
		remembered = &memory{}
		if m.quotas == nil {
			m.quotas = map[types.UID]*memory{}
		}
		m.quotas[rq.UID] = remembered
	}
	return remembered
}

// forget drops what is about quotas that are gone, and about those with nothing to
// remember. In use are those that migrations concern, or that are raised.
func (m *memoriesOf) forget(quotas []*corev1.ResourceQuota, inUse []*view) {
	if len(m.quotas) == 0 {
		return
	}
	kept := map[types.UID]*memory{}
	for _, rq := range quotas {
		if remembered := m.quotas[rq.UID]; remembered != nil && !remembered.idle() {
			kept[rq.UID] = remembered
		}
	}
	for _, v := range inUse {
		if remembered := m.quotas[v.rq.UID]; remembered != nil {
			kept[v.rq.UID] = remembered
		}
	}
	m.quotas = kept
}
