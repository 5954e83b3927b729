package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"

	"github.com/vmquota/headroom/quota/amounts"
)

// ServeHTTP implements http.Handler. The paths are those of the API, and
//
//	/migrate?from=&n=&machine=&parallel=   calls Migrate
//	/stats                                 what was counted
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	switch r.URL.Path {
	case "/stats":
		_ = json.NewEncoder(w).Encode(s.count())
		return
	case "/migrate":
		number := func(name string) int { n, _ := strconv.Atoi(query.Get(name)); return n }
		_ = json.NewEncoder(w).Encode(s.Migrate(number("from"), number("n"), number("machine"), number("parallel")))
		return
	}
	path := strings.Split(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "/apis/kubevirt.io/v1/"), "/")
	namespace, i := "", 0
	if path[0] == "namespaces" && len(path) > 2 {
		namespace = path[1]
		if _, err := fmt.Sscanf(namespace, "tenant-%d", &i); err != nil {
			i = -1 // there is nothing in it
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

// list answers with the objects of a resource, in one namespace or in all; of metadata with a page.
func (s *Server) list(w http.ResponseWriter, r *http.Request, resource, namespace string, i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	query, from, to := r.URL.Query(), i, i+1
	switch {
	case namespace == "":
		from, _ = strconv.Atoi(query.Get("continue"))
		to = s.Namespaces
	case i < 0:
		from, to = 0, 0
	}
	limit, _ := strconv.Atoi(query.Get("limit"))
	if limit != 1 && !asksForMetadata(r) { // limit 1: whether it may be read
		limit = 0
	}
	var objects []runtime.Object
	for ; from < to && (limit == 0 || len(objects) < limit); from++ {
		objects = append(objects, s.objects(resource, from)...)
	}
	at := metav1.ListMeta{ResourceVersion: strconv.FormatUint(s.version, 10)}
	if from < to {
		at.Continue = strconv.Itoa(from)
	}
	list := map[string]runtime.Object{
		"namespaces": &corev1.NamespaceList{ListMeta: at}, "resourcequotas": &corev1.ResourceQuotaList{ListMeta: at},
		"pods": &corev1.PodList{ListMeta: at}, "limitranges": &corev1.LimitRangeList{ListMeta: at}, "configmaps": &corev1.ConfigMapList{ListMeta: at},
		"persistentvolumeclaims": &corev1.PersistentVolumeClaimList{ListMeta: at}, "events": &corev1.EventList{ListMeta: at},
	}[resource]
	if asksForMetadata(r) {
		list = &metav1.PartialObjectMetadataList{ListMeta: at}
	}
	var err error
	for i := range objects {
		if objects[i], err = shown(r, objects[i]); err != nil {
			break
		}
	}
	kind := map[string]string{"virtualmachineinstances": "VirtualMachineInstanceList", s.final.resource: "VirtualMachineInstanceMigrationList"}[resource]
	switch {
	case list != nil:
		err = errors.Join(err, meta.SetList(list, objects))
	case kind != "":
		text, failed := json.Marshal(map[string]any{"apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": at, "items": append([]runtime.Object{}, objects...)})
		list, err = &runtime.Unknown{Raw: text}, errors.Join(err, failed)
	default:
		http.NotFound(w, r)
		return
	}
	if err == nil {
		err = write(w, r, list)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// asksForMetadata reports whether r is a request for the metadata of objects alone.
func asksForMetadata(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
}

// shown returns what r asks for of object.
func shown(r *http.Request, object runtime.Object) (runtime.Object, error) {
	text, ok := object.(*runtime.Unknown)
	if !ok || !asksForMetadata(r) {
		return object, nil
	}
	o := &metav1.PartialObjectMetadata{}
	return o, json.Unmarshal(text.Raw, o)
}

// objects are those of a resource in namespace i. The caller holds the lock.
func (s *Server) objects(resource string, i int) (objects []runtime.Object) {
	add := func(e event) {
		if object, err := e.object(); err == nil {
			objects = append(objects, object)
		}
	}
	switch resource {
	case "namespaces":
		return []runtime.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: NamespaceName(i), ResourceVersion: "1",
			Labels:      map[string]string{"kubernetes.io/metadata.name": NamespaceName(i), "field.cattle.io/projectId": "p-abcde"},
			Annotations: map[string]string{"field.cattle.io/projectId": "c-m-12345678:p-abcde", "lifecycle.cattle.io/create.namespace-auth": "true"},
		}}}
	case "resourcequotas":
		return []runtime.Object{s.quota(i)}
	}
	for number := range s.in(i) {
		m := machine{i, number}
		for k := 0; k < s.Kept && resource == s.final.resource; k++ {
			p := s.final
			p.text = strings.ReplaceAll(p.text, "@kept@", fmt.Sprintf("%08x", (i*largest+number)*8+k))
			add(s.event(m, p, 1))
		}
		if st := s.moved[m]; st != nil {
			for key, e := range st.objects {
				if strings.HasPrefix(key, resource+"/") {
					add(e)
				}
			}
			continue
		}
		for _, p := range s.before {
			if p.resource == resource {
				add(s.event(m, p, 1))
			}
		}
	}
	return objects
}

// accepted is the serializer of what r accepts.
func accepted(r *http.Request) runtime.SerializerInfo {
	for _, media := range strings.Split(r.Header.Get("Accept"), ",") {
		if info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), strings.Split(media, ";")[0]); ok {
			return info
		}
	}
	return codecs.SupportedMediaTypes()[0]
}

// codecs encode the kinds of Kubernetes' core, and metadata.
var codecs = func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(scheme))
	utilruntime.Must(metav1.AddMetaToScheme(scheme))
	return serializer.NewCodecFactory(scheme)
}()

// encoder encodes what the server sends.
func encoder(e runtime.Encoder) runtime.Encoder {
	return codecs.EncoderForVersion(e, schema.GroupVersions{corev1.SchemeGroupVersion, metav1.SchemeGroupVersion})
}

func write(w http.ResponseWriter, r *http.Request, object runtime.Object) error {
	info := accepted(r)
	w.Header().Set("Content-Type", info.MediaType)
	return encoder(info.Serializer).Encode(object.DeepCopyObject(), w) // a copy, because encoding sets the kind
}

// watch sends the events of t until the client goes away.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, t topic) {
	since, err := strconv.ParseUint(r.URL.Query().Get("resourceVersion"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	info := accepted(r)
	var frames io.Writer = w
	if info.MediaType == runtime.ContentTypeJSON {
		w.Header().Set("Content-Type", info.MediaType)
	} else {
		w.Header().Set("Content-Type", info.MediaType+";stream=watch")
		frames = info.StreamSerializer.Framer.NewFrameWriter(w)
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		return
	}
	s.mu.Lock()
	s.stats.Watches++
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stats.Watches--
	}()
	l := s.log(t)
	next, _ := slices.BinarySearchFunc(l.events, since+1, func(e event, version uint64) int { return cmp.Compare(e.version, version) })
	s.mu.Unlock()
	for {
		s.mu.Lock()
		events, changed := l.events[next:], l.changed
		s.mu.Unlock()
		for _, e := range events {
			if err := send(frames, r, info, e); err != nil {
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

func send(frames io.Writer, r *http.Request, info runtime.SerializerInfo, e event) error {
	object, err := e.object()
	if err != nil {
		return err
	}
	if object, err = shown(r, object); err != nil {
		return err
	}
	sent := metav1.WatchEvent{Type: e.kind}
	if sent.Object.Raw, err = runtime.Encode(encoder(info.Serializer), object.DeepCopyObject()); err != nil {
		return err
	}
	return info.StreamSerializer.Encode(&sent, frames)
}

// update is that of the status of the quota of namespace i.
func (s *Server) update(w http.ResponseWriter, r *http.Request, i int) {
	body, err := io.ReadAll(r.Body)
	written := &corev1.ResourceQuota{}
	if err == nil {
		err = runtime.DecodeInto(codecs.UniversalDeserializer(), body, written)
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
