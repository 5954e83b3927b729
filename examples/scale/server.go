//go:build unix

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// A server is an API server, kube-controller-manager and KubeVirt of a cluster, as far as the
// controller sees them. It makes what it is asked for; it holds only what has changed.
type server struct {
	*pattern
	size
	mu      sync.Mutex
	version uint64
	quotas  map[int]*corev1.ResourceQuota // by namespace
	moved   map[machine]*state
	topics  map[topic]*log
	stats   stats
}

// A size is that of a cluster.
type size struct{ namespaces, machines, large, kept int }

// in is how many machines namespace i has: the first has more of them.
func (s size) in(i int) int {
	if i == 0 {
		return s.large
	}
	return s.machines
}

type machine struct{ namespace, number int }

// A state is that of a machine that migrates, or has.
type state struct {
	objects map[string]event // by resource and name, as they are now
	created time.Time        // of its migration
	waits   bool             // for room
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

// Stats are what a server has counted.
type stats struct {
	Requests map[string]int  // by verb and resource
	Delays   []time.Duration // from the creation of a migration to the first write of its quota
	Refused  int             // migrations whose target pod was refused
	Over     int
	Raised   int // quotas that are not as they were
}

func newServer(p *pattern, s size) *server {
	return &server{
		pattern: p, size: s, version: 1, quotas: map[int]*corev1.ResourceQuota{}, moved: map[machine]*state{}, topics: map[topic]*log{},
		stats: stats{Requests: map[string]int{}},
	}
}

// quota is that of namespace i, which its machines fill.
func (s *server) quota(i int) *corev1.ResourceQuota {
	if rq := s.quotas[i]; rq != nil {
		return rq
	}
	static := times(s.used, s.in(i))
	rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: namespaceName(i), Name: "default-quota", ResourceVersion: "1"}}
	rq.UID = types.UID(fmt.Sprintf("%08x-75cd-4622-b431-7d90d1749557", i))
	rq.Annotations = map[string]string{"field.cattle.io/projectId": "c-m-12345678:p-abcde"}
	rq.Labels = map[string]string{"cattle.io/creator": "norman", "resourcequota.management.cattle.io/default-resource-quota": "true"}
	rq.Spec.Hard = static
	rq.Status = corev1.ResourceQuotaStatus{Hard: static, Used: static}
	return rq
}

// put makes rq the quota of namespace i. The caller holds the lock.
func (s *server) put(i int, rq *corev1.ResourceQuota) {
	s.version++
	rq.ResourceVersion = strconv.FormatUint(s.version, 10)
	s.quotas[i] = rq
	s.publish("resourcequotas", i, event{version: s.version, kind: "MODIFIED", object: func() (runtime.Object, error) { return rq, nil }})
}

func (s *server) publish(resource string, i int, e event) {
	for _, namespace := range []string{"", namespaceName(i)} {
		l := s.log(topic{resource, namespace})
		l.events = append(l.events, e)
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

func (s *server) log(t topic) *log {
	if s.topics[t] == nil {
		s.topics[t] = &log{changed: make(chan struct{})}
	}
	return s.topics[t]
}

// event is a step of machine m.
func (s *server) event(m machine, p step, version uint64) event {
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
func (s *server) play(m machine, steps []step, then func()) {
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

// migrate begins a migration of m.
func (s *server) migrate(m machine) {
	s.mu.Lock()
	st := &state{objects: map[string]event{}, created: time.Now()}
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
func (s *server) admit(i int) {
	for number := range s.in(i) {
		m := machine{i, number}
		st, rq := s.moved[m], s.quota(i)
		used := add(rq.Status.Used, s.used)
		if st == nil || !st.waits || amounts.Exceeds(used, rq.Status.Hard) {
			continue
		}
		st.waits = false
		rq = rq.DeepCopy()
		rq.Status.Used = used
		s.put(i, rq)
		go s.play(m, s.charged, func() {
			time.AfterFunc(sourceLife/pace, func() { s.play(m, s.over, func() { s.recount(i) }) })
		})
	}
}

// recount is what kube-controller-manager does when a pod of namespace i has ended. The caller
// holds the lock.
func (s *server) recount(i int) {
	rq := s.quota(i).DeepCopy()
	rq.Status.Hard = rq.Spec.Hard
	for name, q := range s.used {
		rest := rq.Status.Used[name]
		rest.Sub(q)
		rq.Status.Used[name] = rest
	}
	s.put(i, rq)
	s.stats.Over++
}

func add(a, b corev1.ResourceList) corev1.ResourceList {
	sum := a.DeepCopy()
	for name, q := range b {
		of := sum[name]
		of.Add(q)
		sum[name] = of
	}
	return sum
}

// ServeHTTP implements http.Handler. The paths are those of the API, and
//
//	/migrate?from=&n=&machine=   begins migrations of one machine in each of n namespaces
//	/stats                       what was counted
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	number := func(name string) int { n, _ := strconv.Atoi(query.Get(name)); return n }
	switch r.URL.Path {
	case "/stats":
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stats.Raised = 0
		for _, rq := range s.quotas {
			if !quota.Equal(rq.Spec.Hard, rq.Status.Hard) {
				s.stats.Raised++
			}
		}
		_ = json.NewEncoder(w).Encode(s.stats)
		return
	case "/migrate":
		for i := range number("n") {
			go s.migrate(machine{number("from") + i, number("machine")})
		}
		return
	}
	path := strings.Split(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "/apis/kubevirt.io/v1/"), "/")
	namespace, i := "", 0
	if path[0] == "namespaces" && len(path) > 2 {
		namespace = path[1]
		if _, err := fmt.Sscanf(namespace, "tenant-%d", &i); err != nil {
			http.NotFound(w, r)
			return
		}
		path = path[2:]
	}
	verb := r.Method
	if query.Has("watch") {
		verb = "WATCH"
	}
	s.mu.Lock()
	s.stats.Requests[verb+" "+path[0]]++
	s.mu.Unlock()
	switch verb {
	case "GET":
		s.list(w, r, path[0], namespace, i)
	case "WATCH":
		s.watch(w, r, topic{path[0], namespace})
	case "PUT":
		s.update(w, r, i)
	case "PATCH": // a nudge, or one more event
		w.Header().Set("Content-Type", runtime.ContentTypeJSON)
		kind := map[string]string{"events": `"v1","kind":"Event"`}[path[0]]
		fmt.Fprintf(w, `{"apiVersion":%s,"metadata":{"name":%q}}`, cmp.Or(kind, `"kubevirt.io/v1","kind":"VirtualMachineInstanceMigration"`), path[1])
	default: // an event
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		_, _ = io.Copy(w, r.Body)
	}
}

// list answers with the objects of a resource, in one namespace or in all.
func (s *server) list(w http.ResponseWriter, r *http.Request, resource, namespace string, i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	meta := metav1.ListMeta{ResourceVersion: strconv.FormatUint(s.version, 10)}
	from, to := i, i+1
	if namespace == "" {
		from, to = 0, s.namespaces
	}
	if r.URL.Query().Get("limit") == "1" { // whether it may be read
		to = from + 1
	}
	var list runtime.Object
	switch resource {
	case "namespaces":
		all := &corev1.NamespaceList{ListMeta: meta}
		for i := range s.namespaces {
			all.Items = append(all.Items, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
				Name: namespaceName(i), ResourceVersion: "1",
				Labels:      map[string]string{"kubernetes.io/metadata.name": namespaceName(i), "field.cattle.io/projectId": "p-abcde"},
				Annotations: map[string]string{"field.cattle.io/projectId": "c-m-12345678:p-abcde", "lifecycle.cattle.io/create.namespace-auth": "true"},
			}})
		}
		list = all
	case "resourcequotas":
		all := &corev1.ResourceQuotaList{ListMeta: meta}
		for i := from; i < to; i++ {
			all.Items = append(all.Items, *s.quota(i))
		}
		list = all
	case "pods":
		all := &corev1.PodList{ListMeta: meta}
		for _, object := range s.objects(resource, from, to) {
			if pod, ok := object.(*corev1.Pod); ok {
				all.Items = append(all.Items, *pod)
			}
		}
		list = all
	case "limitranges":
		list = &corev1.LimitRangeList{ListMeta: meta}
	case "persistentvolumeclaims":
		list = &corev1.PersistentVolumeClaimList{ListMeta: meta}
	case "events":
		list = &corev1.EventList{ListMeta: meta}
	default:
		if asksForMetadata(r) {
			s.listMetadata(w, r, meta)
			return
		}
		to = from + 1 // nobody asks for more
		items := []json.RawMessage{}
		for _, object := range s.objects(resource, from, to) {
			if text, ok := object.(*runtime.Unknown); ok {
				items = append(items, text.Raw)
			}
		}
		w.Header().Set("Content-Type", runtime.ContentTypeJSON)
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "kubevirt.io/v1", "kind": "List", "metadata": meta, "items": items})
		return
	}
	_ = write(w, r, list)
}

// listMetadata answers with a page of the metadata of all migrations.
func (s *server) listMetadata(w http.ResponseWriter, r *http.Request, meta metav1.ListMeta) {
	query := r.URL.Query()
	limit, _ := strconv.Atoi(query.Get("limit"))
	from, _ := strconv.Atoi(query.Get("continue"))
	list := &metav1.PartialObjectMetadataList{ListMeta: meta}
	for ; from < s.namespaces && (limit == 0 || len(list.Items) < limit); from++ {
		for _, object := range s.objects(s.final.resource, from, from+1) {
			if o, err := metadataOf(object); err == nil {
				list.Items = append(list.Items, *o)
			}
		}
	}
	if from < s.namespaces {
		list.Continue = strconv.Itoa(from)
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	text, err := enveloped("PartialObjectMetadataList", list)
	if err == nil {
		_, err = w.Write(text)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// asksForMetadata reports whether r is a request for the metadata of objects alone.
func asksForMetadata(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
}

func metadataOf(object runtime.Object) (*metav1.PartialObjectMetadata, error) {
	text, ok := object.(*runtime.Unknown)
	if !ok {
		return nil, fmt.Errorf("a %T is not asked for", object)
	}
	o := &metav1.PartialObjectMetadata{}
	return o, json.Unmarshal(text.Raw, o)
}

// enveloped is object in protobuf as the API server sends it.
func enveloped(kind string, object interface{ Marshal() ([]byte, error) }) ([]byte, error) {
	raw, err := object.Marshal()
	if err != nil {
		return nil, err
	}
	text, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: kind}, Raw: raw}).Marshal()
	return append([]byte("k8s\x00"), text...), err
}

// objects are those of a resource in namespaces. The caller holds the lock.
func (s *server) objects(resource string, from, to int) []runtime.Object {
	var events []event
	for i := from; i < to; i++ {
		for number := range s.in(i) {
			m := machine{i, number}
			for k := 0; k < s.kept && resource == s.final.resource; k++ {
				p := s.final
				p.text = strings.ReplaceAll(p.text, "@kept@", fmt.Sprintf("%08x", (i*largest+number)*8+k))
				events = append(events, s.event(m, p, 1))
			}
			if st := s.moved[m]; st != nil {
				for key, e := range st.objects {
					if strings.HasPrefix(key, resource+"/") {
						events = append(events, e)
					}
				}
				continue
			}
			for _, p := range s.before {
				if p.resource == resource {
					events = append(events, s.event(m, p, 1))
				}
			}
		}
	}
	var objects []runtime.Object
	for _, e := range events {
		if object, err := e.object(); err == nil {
			objects = append(objects, object)
		}
	}
	return objects
}

// serializer is that of what r accepts.
func serializer(r *http.Request) runtime.SerializerInfo {
	for _, accepted := range strings.Split(r.Header.Get("Accept"), ",") {
		if info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), strings.Split(accepted, ";")[0]); ok {
			return info
		}
	}
	return scheme.Codecs.SupportedMediaTypes()[0]
}

func write(w http.ResponseWriter, r *http.Request, object runtime.Object) error {
	info := serializer(r)
	w.Header().Set("Content-Type", info.MediaType)
	return scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion).Encode(object.DeepCopyObject(), w) // it sets the kind
}

// watch sends the events of t until the client goes away.
func (s *server) watch(w http.ResponseWriter, r *http.Request, t topic) {
	since, err := strconv.ParseUint(r.URL.Query().Get("resourceVersion"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	info := serializer(r)
	binary := !strings.HasPrefix(r.URL.Path, "/apis/") || asksForMetadata(r)
	var frames io.Writer = w
	if binary {
		w.Header().Set("Content-Type", info.MediaType+";stream=watch")
		frames = info.StreamSerializer.Framer.NewFrameWriter(w)
	} else {
		w.Header().Set("Content-Type", "application/json")
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		return
	}
	s.mu.Lock()
	l := s.log(t)
	next, _ := slices.BinarySearchFunc(l.events, since+1, func(e event, version uint64) int { return cmp.Compare(e.version, version) })
	s.mu.Unlock()
	for {
		s.mu.Lock()
		events, changed := l.events[next:], l.changed
		s.mu.Unlock()
		for _, e := range events {
			if err := send(frames, info, binary, e); err != nil {
				return
			}
		}
		if len(events) > 0 {
			next += len(events)
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func send(frames io.Writer, info runtime.SerializerInfo, binary bool, e event) error {
	object, err := e.object()
	if err != nil {
		return err
	}
	sent := metav1.WatchEvent{Type: e.kind}
	text, isText := object.(*runtime.Unknown)
	switch {
	case isText && binary:
		o, err := metadataOf(object)
		if err != nil {
			return err
		}
		if sent.Object.Raw, err = enveloped("PartialObjectMetadata", o); err != nil {
			return err
		}
		return info.StreamSerializer.Encode(&sent, frames)
	case isText:
		sent.Object.Raw = text.Raw
		return json.NewEncoder(frames).Encode(sent)
	}
	sent.Object.Raw, err = runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), object.DeepCopyObject()) // it sets the kind
	if err != nil {
		return err
	}
	return info.StreamSerializer.Encode(&sent, frames)
}

// update is that of the status of the quota of namespace i.
func (s *server) update(w http.ResponseWriter, r *http.Request, i int) {
	body, err := io.ReadAll(r.Body)
	written := &corev1.ResourceQuota{}
	if err == nil {
		err = runtime.DecodeInto(scheme.Codecs.UniversalDeserializer(), body, written)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rq := s.quota(i)
	if rq.ResourceVersion != written.ResourceVersion {
		w.WriteHeader(http.StatusConflict)
		_ = write(w, r, &metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonConflict, Code: http.StatusConflict})
		return
	}
	if amounts.Exceeds(written.Status.Hard, rq.Status.Hard) {
		for number := range s.in(i) {
			if st := s.moved[machine{i, number}]; st != nil && !st.created.IsZero() {
				s.stats.Delays = append(s.stats.Delays, time.Since(st.created))
				st.created = time.Time{}
			}
		}
	}
	rq = rq.DeepCopy()
	rq.Status.Hard, rq.Annotations = written.Status.Hard, written.Annotations
	s.put(i, rq)
	_ = write(w, r, rq)
	s.admit(i)
}
