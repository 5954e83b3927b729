// Package server is an API server of a large cluster in a process of its own, which answers with
// what a real one, with the real virt-controller, has recorded, over TLS and HTTP/2.
package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

const (
	// pace is how much faster than the recording a migration is played.
	pace = 4
	// sourceLife is how long a source pod lives after the migration is over.
	sourceLife = time.Second
	// largest is more than any namespace has machines.
	largest = 1 << 10
)

// A Server is an API server, kube-controller-manager and KubeVirt of a cluster, as far as a
// controller sees them. It makes what it is asked for, and holds only what has changed. [New]
// makes one.
type Server struct {
	*pattern
	Size
	mu      sync.Mutex
	version uint64
	quotas  map[int]*corev1.ResourceQuota // by namespace
	moved   map[machine]*state
	topics  map[topic]*log
	stats   Stats
}

// A Size is that of a cluster.
type Size struct {
	Namespaces int // each with a quota that its machines fill
	Machines   int // in each of them
	Large      int // in the first one
	Kept       int // migrations that are over, of each machine
}

// in is how many machines namespace i has.
func (s Size) in(i int) int {
	if i == 0 {
		return s.Large
	}
	return s.Machines
}

type machine struct{ namespace, number int }

// A state is that of a machine that migrates, or has.
type state struct {
	objects map[string]event // by resource and name, as they are now
	created time.Time        // of its migration
	waits   bool             // for room
	over    func()           // called when its source pod has ended
}

// A topic is what a watch is of: a resource, in one namespace or in all ("").
type topic struct{ resource, namespace string }

// A log is of the events of a topic.
type log struct {
	events  []event
	changed chan struct{} // closed with the next one
}

// An event is one of a watch. Its object is made when it is sent.
type event struct {
	version uint64
	kind    string
	object  func() (runtime.Object, error)
}

// Stats are what a server has counted since [Server.Migrate] began, or since its start.
type Stats struct {
	Requests map[string]int  // by verb and resource
	Watches  int             // that are open
	Delays   []time.Duration // from the creation of a migration to the first write of its quota, sorted
	Refused  int             // migrations whose target pod was refused
	Raised   int             // quotas that are not as they were
}

// New returns a server whose machines migrate as in a recording.
func New(recording string, s Size) (*Server, error) {
	p, err := readPattern(recording)
	return &Server{
		pattern: p, Size: s, version: 1, quotas: map[int]*corev1.ResourceQuota{}, moved: map[machine]*state{}, topics: map[topic]*log{},
		stats: Stats{Requests: map[string]int{}},
	}, err
}

// quota is that of namespace i, which its machines fill.
func (s *Server) quota(i int) *corev1.ResourceQuota {
	if rq := s.quotas[i]; rq != nil {
		return rq
	}
	static := corev1.ResourceList{} // of all machines
	for range s.in(i) {
		static = amounts.Each(s.used, static, amounts.Plus)
	}
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: NamespaceName(i), Name: "default-quota", ResourceVersion: "1"}}
	rq.UID = types.UID(fmt.Sprintf("%08x-75cd-4622-b431-7d90d1749557", i))
	rq.Annotations = map[string]string{"field.cattle.io/projectId": "c-m-12345678:p-abcde"}
	rq.Labels = map[string]string{"cattle.io/creator": "norman", "resourcequota.management.cattle.io/default-resource-quota": "true"}
	rq.Spec.Hard = static
	rq.Status = corev1.ResourceQuotaStatus{Hard: static, Used: static}
	return rq
}

// put makes rq the quota of namespace i. The caller holds the lock.
func (s *Server) put(i int, rq *corev1.ResourceQuota) {
	s.version++
	rq.ResourceVersion = strconv.FormatUint(s.version, 10)
	s.quotas[i] = rq
	s.publish("resourcequotas", i, event{version: s.version, kind: "MODIFIED", object: func() (runtime.Object, error) { return rq, nil }})
}

func (s *Server) publish(resource string, i int, e event) {
	for _, namespace := range []string{"", NamespaceName(i)} {
		l := s.log(topic{resource, namespace})
		l.events = append(l.events, e)
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

func (s *Server) log(t topic) *log {
	if s.topics[t] == nil {
		s.topics[t] = &log{changed: make(chan struct{})}
	}
	return s.topics[t]
}

// event is a step of machine m.
func (s *Server) event(m machine, p step, version uint64) event {
	return event{version: version, kind: p.kind, object: func() (runtime.Object, error) {
		text := []byte(s.names(m.namespace, m.number, version).Replace(p.text))
		if p.resource == "pods" {
			pod := &corev1.Pod{}
			return pod, json.Unmarshal(text, pod)
		}
		return &runtime.Unknown{Raw: text}, nil
	}}
}

// play plays steps of machine m, at the pace of the recording.
func (s *Server) play(m machine, steps []step, then func()) {
	begun, now := steps[0].at, time.Now()
	for _, p := range steps {
		time.Sleep(time.Until(now.Add((p.at - begun) / pace)))
		s.mu.Lock()
		s.version++
		e := s.event(m, p, s.version)
		s.moved[m].objects[p.resource+"/"+p.name] = e
		s.publish(p.resource, m.namespace, e)
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	then()
}

// Migrate migrates one machine in each of n namespaces, parallel at a time, and returns what was
// counted until all were over.
func (s *Server) Migrate(from, n, number, parallel int) Stats {
	s.mu.Lock()
	s.stats = Stats{Requests: map[string]int{}, Watches: s.stats.Watches}
	s.mu.Unlock()
	slots := make(chan struct{}, parallel)
	for i := range n {
		slots <- struct{}{}
		go s.migrate(machine{from + i, number}, func() { <-slots })
	}
	for range parallel {
		slots <- struct{}{}
	}
	return s.count()
}

// count returns what was counted.
func (s *Server) count() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Requests, stats.Delays = maps.Clone(stats.Requests), slices.Sorted(slices.Values(stats.Delays))
	for _, rq := range s.quotas {
		if !quota.Equal(rq.Spec.Hard, rq.Status.Hard) {
			stats.Raised++
		}
	}
	return stats
}

// migrate begins a migration of m.
func (s *Server) migrate(m machine, over func()) {
	s.mu.Lock()
	st := &state{objects: map[string]event{}, created: time.Now(), over: over}
	for _, p := range s.before {
		st.objects[p.resource+"/"+p.name] = s.event(m, p, 1)
	}
	s.moved[m] = st
	s.mu.Unlock()
	s.play(m, s.refused, func() {
		st.waits = true
		if s.admit(m.namespace); st.waits {
			s.stats.Refused++
		}
	})
}

// admit creates the target pods of namespace i for which there is room. The caller holds the
// lock.
func (s *Server) admit(i int) {
	for number := range s.in(i) {
		m := machine{i, number}
		st, rq := s.moved[m], s.quota(i)
		used := amounts.Each(rq.Status.Used, s.used, amounts.Plus)
		if st == nil || !st.waits || amounts.Exceeds(used, rq.Status.Hard) {
			continue
		}
		st.waits = false
		rq = rq.DeepCopy()
		rq.Status.Used = used
		s.put(i, rq)
		go s.play(m, s.charged, func() {
			time.AfterFunc(sourceLife/pace, func() {
				s.play(m, s.over, func() {
					s.recount(i)
					st.over()
				})
			})
		})
	}
}

// recount is what kube-controller-manager does when a pod of namespace i has ended. The caller
// holds the lock.
func (s *Server) recount(i int) {
	rq := s.quota(i).DeepCopy()
	rq.Status.Hard, rq.Status.Used = rq.Spec.Hard, amounts.Each(rq.Status.Used, s.used, amounts.Minus)
	s.put(i, rq)
}
