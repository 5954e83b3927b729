package proof

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/vmquota/headroom/quota"
)

// A timeline is all that the API server has told about the quotas and the pods of a
// namespace. The resourceVersions of one etcd put it in order.
type timeline struct {
	mu     sync.Mutex
	events []event
}

type event struct {
	version uint64
	deleted bool
	quota   *corev1.ResourceQuota
	pod     *corev1.Pod
}

// watchAll begins a timeline, which ends with the test.
func watchAll(s *scene) *timeline {
	l := &timeline{}
	quotas, err := admin.CoreV1().ResourceQuotas(s.namespace).Watch(s.t.Context(), metav1.ListOptions{})
	require.NoError(s.t, err)
	pods, err := admin.CoreV1().Pods(s.namespace).Watch(s.t.Context(), metav1.ListOptions{})
	require.NoError(s.t, err)
	for _, w := range []watch.Interface{quotas, pods} {
		go func() {
			for e := range w.ResultChan() {
				l.add(e)
			}
		}()
	}
	return l
}

func (l *timeline) add(e watch.Event) {
	next := event{deleted: e.Type == watch.Deleted}
	var version string
	switch o := e.Object.(type) {
	case *corev1.ResourceQuota:
		next.quota, version = o, o.ResourceVersion
	case *corev1.Pod:
		next.pod, version = o, o.ResourceVersion
	default:
		return
	}
	next.version, _ = strconv.ParseUint(version, 10, 64)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, next)
}

// limits returns the limits that the quotas had, one after the other.
func (l *timeline) limits(name corev1.ResourceName) (limits []string) {
	for _, e := range l.ordered() {
		if e.quota == nil || e.deleted {
			continue
		}
		limit := e.quota.Spec.Hard[name]
		if n := len(limits); n == 0 || limits[n-1] != limit.String() {
			limits = append(limits, limit.String())
		}
	}
	return limits
}

func (l *timeline) ordered() []event {
	l.mu.Lock()
	defer l.mu.Unlock()
	events := slices.Clone(l.events)
	slices.SortStableFunc(events, func(a, b event) int { return int(int64(a.version) - int64(b.version)) })
	return events
}

// violations returns when a limit was below what was charged: the static limits are used
// up, so that is static and what the migrations charge twice.
func (l *timeline) violations() (violations []string) {
	pods := map[string]*corev1.Pod{}
	var rq *corev1.ResourceQuota
	for _, e := range l.ordered() {
		switch {
		case e.pod != nil && e.deleted:
			delete(pods, e.pod.Name)
		case e.pod != nil:
			pods[e.pod.Name] = e.pod
		case e.deleted:
			rq = nil
		default:
			rq = e.quota
		}
		if rq == nil {
			continue
		}
		for name, limit := range rq.Spec.Hard {
			sum := limit.DeepCopy()
			sum.Sub(limit)
			for _, pod := range pods {
				sum.Add(quota.FootprintAt(pod, time.Time{})[name])
			}
			if sum.Cmp(limit) > 0 {
				violations = append(violations, fmt.Sprintf("at %d %s is limited to %s, and %s is charged", e.version, name, &limit, &sum))
			}
		}
	}
	return violations
}
