package proof

import (
	"slices"
	"strconv"
	"sync"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// A timeline is every state that the quotas of a namespace had.
type timeline struct {
	mu     sync.Mutex
	states []*corev1.ResourceQuota
}

// watchAll begins a timeline, which ends with the test.
func watchAll(s *scene) *timeline {
	l := &timeline{}
	w, err := admin.CoreV1().ResourceQuotas(s.namespace).Watch(s.t.Context(), metav1.ListOptions{})
	require.NoError(s.t, err)
	go func() {
		for e := range w.ResultChan() {
			if rq, ok := e.Object.(*corev1.ResourceQuota); ok && e.Type != watch.Deleted {
				l.mu.Lock()
				l.states = append(l.states, rq)
				l.mu.Unlock()
			}
		}
	}()
	return l
}

// quotas returns the states, in the order of etcd.
func (l *timeline) quotas() []*corev1.ResourceQuota {
	l.mu.Lock()
	defer l.mu.Unlock()
	states := slices.Clone(l.states)
	slices.SortStableFunc(states, func(a, b *corev1.ResourceQuota) int { return version(a) - version(b) })
	return states
}

func version(rq *corev1.ResourceQuota) int {
	n, _ := strconv.Atoi(rq.ResourceVersion)
	return n
}

// limits returns the limits that were enforced, one after the other.
func (l *timeline) limits(name corev1.ResourceName) (limits []string) {
	for _, rq := range l.quotas() {
		limit := rq.Status.Hard[name]
		if n := len(limits); n == 0 || limits[n-1] != limit.String() {
			limits = append(limits, limit.String())
		}
	}
	return limits
}
