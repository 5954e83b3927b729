package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/migration"
)

// An objectSet is what files of objects hold.
type objectSet struct {
	namespace string // of objects that have none
	files     int
	cache     recording.Cache
	seen      map[string]seenObject
	skipped   map[string]int // by kind
	pods      int
}

// A seenObject is one that was read, to find the same one a second time.
type seenObject struct {
	where string
	hash  [sha256.Size]byte
}

func newObjectSet(namespace string) objectSet {
	return objectSet{namespace: namespace, seen: map[string]seenObject{}, skipped: map[string]int{}}
}

func (s *objectSet) readFile(name string, data []byte, p *progress) error {
	s.files++
	if len(data) > 1<<20 {
		p.begin("parsing %s: %.1f MiB", name, float64(len(data))/(1<<20))
	}
	docs, err := readDocuments(name, data)
	if err != nil {
		return err
	}
	if len(docs) == 0 {
		return fmt.Errorf("%s: no object in it", name)
	}
	for _, doc := range docs {
		if err := s.add(name, doc, schema.GroupVersionKind{}); err != nil {
			return err
		}
		p.show("reading %s: %d objects", name, len(s.seen))
	}
	return nil
}

// objectMeta is the part of an object that tells what it is.
type objectMeta struct {
	metav1.TypeMeta
	Metadata struct{ Name, Namespace string }
	Items    json.RawMessage
}

// add takes in an object or a list of them. An object that does not say of what
// kind it is, as in a PodList, is of the kind implied.
func (s *objectSet) add(file string, doc document, implied schema.GroupVersionKind) error {
	if !bytes.HasPrefix(bytes.TrimSpace(doc.json), []byte("{")) {
		return fmt.Errorf("%s: not a Kubernetes object", doc.where)
	}
	var m objectMeta
	if err := json.Unmarshal(doc.json, &m); err != nil {
		return fmt.Errorf("%s: not a Kubernetes object: %w", doc.where, plainly(err))
	}
	if m.Kind == "" && implied.Kind != "" {
		doc.json = withKind(doc.json, implied)
		m.SetGroupVersionKind(implied)
	}
	switch {
	case m.Kind == "":
		return fmt.Errorf("%s: not a Kubernetes object: it has no kind", doc.where)
	case strings.HasSuffix(m.Kind, "List") && m.Items != nil:
		return s.addList(file, doc.where, m)
	}
	return s.addObject(file, doc, m)
}

// plainly says which field is wrong without the words of encoding/json.
func plainly(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("its %s is a %s", strings.ToLower(wrong.Field), wrong.Value)
	}
	return err
}

func (s *objectSet) addList(file, where string, m objectMeta) error {
	gvk := m.GroupVersionKind()
	gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
	var items []json.RawMessage
	if err := json.Unmarshal(m.Items, &items); err != nil {
		return fmt.Errorf("%s: %s: items is not a list", where, m.Kind)
	}
	for i, item := range items {
		doc := document{where: fmt.Sprintf("%s: items[%d]", where, i), json: item}
		if err := s.add(file, doc, gvk); err != nil {
			return err
		}
	}
	return nil
}

// withKind adds apiVersion and kind to an object that has neither.
func withKind(object []byte, gvk schema.GroupVersionKind) []byte {
	apiVersion, kind := gvk.ToAPIVersionAndKind()
	head := fmt.Sprintf(`{"apiVersion":%q,"kind":%q`, apiVersion, kind)
	rest := bytes.TrimSpace(object)[1:]
	if !bytes.HasPrefix(bytes.TrimSpace(rest), []byte("}")) {
		head += ","
	}
	return append([]byte(head), rest...)
}

func (s *objectSet) addObject(file string, doc document, m objectMeta) error {
	object, err := recording.Decode(doc.json)
	var unknown *recording.UnknownKindError
	switch {
	case errors.As(err, &unknown) && passedOver(m.GroupVersionKind()):
		s.skipped[m.Kind]++
		return nil
	case errors.As(err, &unknown):
		return fmt.Errorf("%s: %w", doc.where, err)
	case err != nil:
		return fmt.Errorf("%s: %w", file, err)
	case m.Metadata.Name == "":
		return fmt.Errorf("%s: a %s without a name", doc.where, m.Kind)
	}
	if event, ok := object.(*corev1.Event); ok && !migration.IsRefusal(event) {
		s.skipped[m.Kind]++
		return nil
	}
	_, isNamespace := object.(*corev1.Namespace)
	if object.GetNamespace() == "" && !isNamespace {
		object.SetNamespace(s.namespace)
	}
	id := m.Kind + " " + object.GetNamespace() + "/" + object.GetName()
	if object.GetUID() == "" {
		object.SetUID(types.UID(id)) // written by hand; without one it could not be told from others
	}
	hash := sha256.Sum256(doc.json)
	if before, ok := s.seen[id]; ok && before.hash != hash {
		return fmt.Errorf("%s: %s is also in %s, and they differ", doc.where, id, before.where)
	}
	s.seen[id] = seenObject{where: doc.where, hash: hash}
	if _, ok := object.(*corev1.Pod); ok {
		s.pods++
	}
	s.cache.Apply(recording.Event{Type: watch.Added, Object: object})
	return nil
}

// tenants returns the namespaces. A migration without its virtual machine instance
// is an error, unless it is over: the input is not complete.
func (s *objectSet) tenants() ([]tenant, error) {
	var tenants []tenant
	for _, namespace := range s.cache.Namespaces() {
		t := newTenant(namespace, &s.cache)
		for _, m := range t.snapshot.Migrations {
			id := "VirtualMachineInstanceMigration " + namespace + "/" + m.Name
			if !m.IsFinal() && findVMI(t.snapshot.VMIs, m.Spec.VMIName) == nil {
				return nil, fmt.Errorf("%s: %s: its VirtualMachineInstance %q is not in the input",
					s.seen[id].where, id, m.Spec.VMIName)
			}
		}
		if len(t.quotas) > 0 || len(t.snapshot.Migrations) > 0 {
			tenants = append(tenants, t)
		}
	}
	return tenants, nil
}

func findVMI(vmis []*kubevirtv1.VirtualMachineInstance, name string) *kubevirtv1.VirtualMachineInstance {
	for _, vmi := range vmis {
		if vmi.Name == name {
			return vmi
		}
	}
	return nil
}

// gaps tells what is missing in the input without being an error.
func (s *objectSet) gaps() []string {
	if s.pods > 0 {
		return nil
	}
	for _, namespace := range s.cache.Namespaces() {
		for _, m := range s.cache.Snapshot(namespace).Migrations {
			if !m.IsFinal() {
				return []string{"There are no Pods in the input: what migrations charge twice is estimated from the VMs."}
			}
		}
	}
	return nil
}

// skippedNote tells which objects were passed over.
func (s *objectSet) skippedNote() []string {
	if len(s.skipped) == 0 {
		return nil
	}
	var counts []string
	for _, kind := range slices.Sorted(maps.Keys(s.skipped)) {
		counts = append(counts, fmt.Sprintf("%d %s", s.skipped[kind], kind))
	}
	return []string{"skipped, they say nothing about what migrations charge: " + strings.Join(counts, ", ")}
}
