package configmap_test

import (
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"github.com/vmquota/headroom/ledger/configmap"
)

const system = "headroom"

var (
	configMaps    = corev1.SchemeGroupVersion.WithResource("configmaps")
	groupResource = configMaps.GroupResource()
)

// A server is client-go's fake clientset with what it lacks of an API server: UIDs,
// resourceVersions and the conflicts that come from them, preconditions of a delete,
// the validation of ConfigMaps, and RBAC: that of the package comment.
type server struct {
	*fake.Clientset
	mu      sync.Mutex
	version int
	allowed rbacv1.Role
	denied  []string
	// fault, if set, sees every action first. An error that it returns is the answer,
	// before or after the action is carried out.
	fault func(action k8stesting.Action) (before, after error)
	// changed, if set, is called after each write.
	changed func()
}

func newServer(t *testing.T) *server {
	s := &server{Clientset: fake.NewSimpleClientset(), version: 100, allowed: documentedRole(t)}
	s.PrependReactor("*", "*", s.react)
	s.PrependWatchReactor("*", func(action k8stesting.Action) (bool, watch.Interface, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.check(action)
		return false, nil, nil
	})
	t.Cleanup(func() { require.Empty(t, s.denied, "calls that the documented Role does not allow") })
	return s
}

// react is called by the clientset, one call after the other.
func (s *server) react(action k8stesting.Action) (bool, runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.check(action)
	var after error
	if s.fault != nil {
		var before error
		if before, after = s.fault(action); before != nil {
			return true, nil, before
		}
	}
	object, err := s.serve(action)
	if object != nil && s.changed != nil {
		s.changed()
	}
	if after != nil {
		return true, nil, after
	}
	return object != nil || err != nil, object, err
}

// check notes an action that the documented Role does not allow.
func (s *server) check(action k8stesting.Action) {
	if !s.allows(action) {
		s.denied = append(s.denied, fmt.Sprintf("%s %s in %q", action.GetVerb(), action.GetResource().Resource, action.GetNamespace()))
	}
}

func (s *server) allows(action k8stesting.Action) bool {
	return action.GetNamespace() == s.allowed.Namespace && slices.ContainsFunc(s.allowed.Rules, func(rule rbacv1.PolicyRule) bool {
		return slices.Contains(rule.APIGroups, action.GetResource().Group) &&
			slices.Contains(rule.Resources, action.GetResource().Resource) && slices.Contains(rule.Verbs, action.GetVerb())
	})
}

// serve carries out a write. Reads are left to the clientset.
func (s *server) serve(action k8stesting.Action) (runtime.Object, error) {
	switch action := action.(type) {
	case k8stesting.CreateActionImpl:
		return s.store(action.GetObject(), true)
	case k8stesting.UpdateActionImpl:
		return s.store(action.GetObject(), false)
	case k8stesting.DeleteActionImpl:
		if err := s.remove(action); err != nil {
			return nil, err
		}
		return &corev1.ConfigMap{}, nil
	}
	return nil, nil
}

func (s *server) store(object runtime.Object, create bool) (runtime.Object, error) {
	configMap := object.(*corev1.ConfigMap).DeepCopy()
	if err := validate(configMap); err != nil {
		return nil, err
	}
	current, err := s.stored(configMap.Name)
	switch {
	case create && err == nil:
		return nil, apierrors.NewAlreadyExists(groupResource, configMap.Name)
	case create:
		configMap.UID = types.UID(fmt.Sprintf("uid-%d", s.version+1))
	case err != nil:
		return nil, err
	case configMap.ResourceVersion != "" && configMap.ResourceVersion != current.ResourceVersion:
		return nil, apierrors.NewConflict(groupResource, configMap.Name, fmt.Errorf("the object has been modified"))
	}
	s.version++
	configMap.ResourceVersion = strconv.Itoa(s.version)
	if create {
		return configMap, s.Tracker().Create(configMaps, configMap, system)
	}
	return configMap, s.Tracker().Update(configMaps, configMap, system)
}

func (s *server) remove(action k8stesting.DeleteActionImpl) error {
	current, err := s.stored(action.GetName())
	if err != nil {
		return err
	}
	if p := action.DeleteOptions.Preconditions; p != nil &&
		(p.UID != nil && *p.UID != current.UID || p.ResourceVersion != nil && *p.ResourceVersion != current.ResourceVersion) {
		return apierrors.NewConflict(groupResource, current.Name, fmt.Errorf("the preconditions do not hold"))
	}
	s.version++
	return s.Tracker().Delete(configMaps, system, action.GetName())
}

func (s *server) stored(name string) (*corev1.ConfigMap, error) {
	object, err := s.Tracker().Get(configMaps, system, name)
	if err != nil {
		return nil, err
	}
	return object.(*corev1.ConfigMap), nil
}

func validate(configMap *corev1.ConfigMap) error {
	var faults []string
	faults = append(faults, validation.IsDNS1123Subdomain(configMap.Name)...)
	for _, value := range configMap.Labels {
		faults = append(faults, validation.IsValidLabelValue(value)...)
	}
	n := 0
	for key, value := range configMap.Data {
		faults = append(faults, validation.IsConfigMapKey(key)...)
		n += len(value)
	}
	if n > 1<<20 {
		faults = append(faults, "too long")
	}
	if len(faults) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "ConfigMap"}, configMap.Name+": "+strings.Join(faults, "; "), nil)
	}
	return nil
}

// get returns the ConfigMap of a tenant namespace without being an action.
func (s *server) get(t *testing.T, tenant string) *corev1.ConfigMap {
	s.mu.Lock()
	defer s.mu.Unlock()
	configMap, err := s.stored(configmap.Name(tenant))
	require.NoError(t, err)
	return configMap
}

func (s *server) has(tenant string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.stored(configmap.Name(tenant))
	return err == nil
}

// put writes as somebody else does, without being an action.
func (s *server) put(t *testing.T, tenant string, edit func(configMap *corev1.ConfigMap)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NoError(t, s.edit(tenant, edit))
}

// edit is put for those who hold the lock.
func (s *server) edit(tenant string, edit func(configMap *corev1.ConfigMap)) error {
	configMap, err := s.stored(configmap.Name(tenant))
	create := err != nil
	if create {
		configMap = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Namespace: system, Name: configmap.Name(tenant), Labels: map[string]string{configmap.Label: tenant},
		}}
	}
	if configMap.Data == nil {
		configMap.Data = map[string]string{}
	}
	edit(configMap)
	_, err = s.store(configMap, create)
	return err
}

// verbs returns what was called since the last time.
func (s *server) verbs() []string {
	var verbs []string
	for _, action := range s.Actions() {
		verbs = append(verbs, action.GetVerb())
	}
	s.ClearActions()
	return verbs
}

// writes returns how many writes were tried.
func (s *server) writes() int {
	n := 0
	for _, action := range s.Actions() {
		switch action.GetVerb() {
		case "create", "update", "delete", "patch":
			n++
		}
	}
	return n
}

// documentedRole returns the Role that stands in the package comment.
func documentedRole(t *testing.T) rbacv1.Role {
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments|parser.PackageClauseOnly)
	require.NoError(t, err)
	_, text, ok := strings.Cut(file.Doc.Text(), "\tapiVersion: rbac")
	require.True(t, ok, "no Role in the package comment")
	var lines []string
	for line := range strings.Lines("\tapiVersion: rbac" + text) {
		if !strings.HasPrefix(line, "\t") {
			break
		}
		lines = append(lines, strings.TrimPrefix(line, "\t"))
	}
	var role rbacv1.Role
	require.NoError(t, yaml.UnmarshalStrict([]byte(strings.Join(lines, "")), &role))
	require.Equal(t, system, role.Namespace)
	return role
}

// TestServer holds that the server of these tests has what client-go's fake lacks: conflicts,
// validation, and a Role.
func TestServer(t *testing.T) {
	ctx, s := context.Background(), newServer(t)
	client := s.CoreV1().ConfigMaps(system)
	first, err := client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = client.Create(ctx, first, metav1.CreateOptions{})
	require.True(t, apierrors.IsAlreadyExists(err))
	second := first.DeepCopy()
	second.Data = map[string]string{"k": "v"}
	second, err = client.Update(ctx, second, metav1.UpdateOptions{})
	require.NoError(t, err)
	_, err = client.Update(ctx, first, metav1.UpdateOptions{})
	require.True(t, apierrors.IsConflict(err))
	stale := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &first.ResourceVersion}}
	require.True(t, apierrors.IsConflict(client.Delete(ctx, "a", stale)))
	second.Data["a/b"] = ""
	_, err = client.Update(ctx, second, metav1.UpdateOptions{})
	require.True(t, apierrors.IsInvalid(err))
	require.False(t, s.allows(k8stesting.NewGetAction(configMaps, "tenant", "a")))
	require.False(t, s.allows(k8stesting.NewPatchAction(configMaps, system, "a", types.MergePatchType, nil)))
}
