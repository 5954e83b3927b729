package applier_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"
)

var (
	groupResource = corev1.Resource("resourcequotas")
	errModified   = errors.New("the object has been modified")
)

// tb is what a test and a run of rapid have in common.
type tb interface {
	require.TestingT
	Helper()
}

// A server is client-go's fake clientset in front of a store that does with
// ResourceQuotas what an API server does and the fake's own does not: resourceVersions
// and the conflicts that come from them, UIDs, a spec that an update of the status does
// not write, quantities that come back as they are read from JSON, and RBAC: that of the
// package comment.
type server struct {
	*fake.Clientset
	t       tb
	quotas  map[string]*corev1.ResourceQuota // by namespace/name
	version int
	allowed rbacv1.ClusterRole
	used    map[string]bool // verbs
	updates int             // that were carried out

	// before and after, if set, are asked before and after each call of the clientset
	// is carried out. An error of theirs is the answer.
	before, after func(verb string) error
}

func newServer(t tb) *server {
	s := &server{
		Clientset: fake.NewSimpleClientset(),
		t:         t,
		quotas:    map[string]*corev1.ResourceQuota{},
		version:   100,
		allowed:   documentedRole(t),
		used:      map[string]bool{},
	}
	s.PrependReactor("*", "*", s.react)
	return s
}

func (s *server) react(action k8stesting.Action) (bool, runtime.Object, error) {
	verb := action.GetVerb()
	s.used[verb] = true
	if !s.allows(action) {
		s.t.Errorf("%s %s: not in the documented ClusterRole", verb, action.GetResource().Resource)
	}
	if s.before != nil {
		if err := s.before(verb); err != nil {
			return true, nil, err
		}
	}
	answer, err := s.serve(action)
	if err == nil && s.after != nil {
		err = s.after(verb)
	}
	if err != nil {
		return true, nil, err
	}
	return true, answer, nil
}

func (s *server) allows(action k8stesting.Action) bool {
	resource := action.GetResource().Resource
	if action.GetSubresource() != "" {
		resource += "/" + action.GetSubresource()
	}
	return slices.ContainsFunc(s.allowed.Rules, func(rule rbacv1.PolicyRule) bool {
		return slices.Contains(rule.APIGroups, action.GetResource().Group) &&
			slices.Contains(rule.Resources, resource) && slices.Contains(rule.Verbs, action.GetVerb())
	})
}

func (s *server) serve(action k8stesting.Action) (runtime.Object, error) {
	switch action := action.(type) {
	case k8stesting.ListActionImpl:
		list := &corev1.ResourceQuotaList{}
		for _, rq := range s.list(action.GetNamespace()) {
			list.Items = append(list.Items, *rq)
		}
		return list, nil
	case k8stesting.GetActionImpl:
		rq, ok := s.quotas[action.GetNamespace()+"/"+action.GetName()]
		if !ok {
			return nil, apierrors.NewNotFound(groupResource, action.GetName())
		}
		return rq.DeepCopy(), nil
	case k8stesting.UpdateActionImpl:
		return s.update(action.GetObject().(*corev1.ResourceQuota))
	default:
		return nil, fmt.Errorf("the server has no %s", action.GetVerb())
	}
}

// list returns copies of the quotas of namespace, those that were put last first.
func (s *server) list(namespace string) []*corev1.ResourceQuota {
	var list []*corev1.ResourceQuota
	for _, key := range slices.Sorted(maps.Keys(s.quotas)) {
		if rq := s.quotas[key]; rq.Namespace == namespace {
			list = append([]*corev1.ResourceQuota{rq.DeepCopy()}, list...)
		}
	}
	return list
}

func (s *server) update(rq *corev1.ResourceQuota) (runtime.Object, error) {
	current, ok := s.quotas[rq.Namespace+"/"+rq.Name]
	switch {
	case !ok:
		return nil, apierrors.NewNotFound(groupResource, rq.Name)
	case rq.ResourceVersion == "":
		s.t.Errorf("an update without a resourceVersion")
	case rq.ResourceVersion != current.ResourceVersion || rq.UID != current.UID:
		return nil, apierrors.NewConflict(groupResource, rq.Name, errModified)
	}
	if jsonOf(s.t, rq.Spec) != jsonOf(s.t, current.Spec) {
		s.t.Errorf("an update with another spec")
	}
	next := rq.DeepCopy() // the strategy of the status takes over metadata
	next.Spec = *current.Spec.DeepCopy()
	s.updates++
	return s.store(next).DeepCopy(), nil
}

// store keeps rq as it comes back from JSON. A write that changes nothing is none.
func (s *server) store(rq *corev1.ResourceQuota) *corev1.ResourceQuota {
	key := rq.Namespace + "/" + rq.Name
	value, err := json.Marshal(rq)
	require.NoError(s.t, err)
	if current, ok := s.quotas[key]; ok {
		if same, err := json.Marshal(current); err == nil && string(same) == string(value) {
			return current
		}
	}
	stored := &corev1.ResourceQuota{}
	require.NoError(s.t, json.Unmarshal(value, stored))
	s.version++
	stored.ResourceVersion = strconv.Itoa(s.version)
	s.quotas[key] = stored
	return stored
}

// create adds a quota, with the limits as its static ones, enforced.
func (s *server) create(rq *corev1.ResourceQuota) {
	s.version++
	rq = rq.DeepCopy()
	rq.UID = types.UID(fmt.Sprintf("uid-%d", s.version))
	rq.Status.Hard = rq.Spec.Hard.DeepCopy()
	s.store(rq)
}

// edit writes as somebody else does.
func (s *server) edit(key string, change func(rq *corev1.ResourceQuota)) {
	s.t.Helper()
	require.Contains(s.t, s.quotas, key)
	rq := s.quotas[key].DeepCopy()
	change(rq)
	s.store(rq)
}

// calls returns the verbs that were called since the last time.
func (s *server) calls() []string {
	var verbs []string
	for _, action := range s.Actions() {
		verbs = append(verbs, action.GetVerb())
	}
	s.ClearActions()
	return verbs
}

// documentedRole returns the ClusterRole that stands in the package comment.
func documentedRole(t tb) rbacv1.ClusterRole {
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments|parser.PackageClauseOnly)
	require.NoError(t, err)
	_, text, ok := strings.Cut(file.Doc.Text(), "\tapiVersion: rbac")
	require.True(t, ok, "no ClusterRole in the package comment")
	var lines []string
	for line := range strings.Lines("\tapiVersion: rbac" + text) {
		if !strings.HasPrefix(line, "\t") {
			break
		}
		lines = append(lines, strings.TrimPrefix(line, "\t"))
	}
	var role rbacv1.ClusterRole
	require.NoError(t, yaml.UnmarshalStrict([]byte(strings.Join(lines, "")), &role))
	return role
}

// TestServer holds that the server of these tests has what client-go's fake lacks.
func TestServer(t *testing.T) {
	s := newServer(t)
	s.create(quotaIn("tenant", "q", "limits.cpu=2000m"))
	client := s.CoreV1().ResourceQuotas("tenant")
	first, err := client.Get(t.Context(), "q", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, `{"limits.cpu":"2"}`, jsonOf(t, first.Status.Hard))
	changed := first.DeepCopy()
	changed.Status.Hard, changed.Annotations = list("limits.cpu=3"), map[string]string{"a": "b"}
	second, err := client.UpdateStatus(t.Context(), changed, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Equal(t, `{"limits.cpu":"3"}`, jsonOf(t, second.Status.Hard))
	require.Equal(t, "b", second.Annotations["a"])
	_, err = client.UpdateStatus(t.Context(), changed, metav1.UpdateOptions{})
	require.True(t, apierrors.IsConflict(err))
	relabel := func(rq *corev1.ResourceQuota) { rq.Labels = map[string]string{"a": "b"} }
	s.edit("tenant/q", relabel)
	version := s.version
	s.edit("tenant/q", relabel)
	require.Equal(t, version, s.version, "nothing has changed")
	delete(s.quotas, "tenant/q")
	_, err = client.UpdateStatus(t.Context(), second, metav1.UpdateOptions{})
	require.True(t, apierrors.IsNotFound(err))
}
