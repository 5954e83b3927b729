package rancher_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/vmquota/headroom/ledger/rancher"
)

// What Harvester v1.4.2 and newer write for one VM of one core and 1Gi.
const (
	entryKey   = "harvesterhci.io/migratingUID-5d3c1a52-6a0e-4d0f-8d6f-0f1f6f3b6a01"
	entryValue = `{"limits.cpu":"1","limits.memory":"1267028Ki"}`
	// namedKey is what v1.4.1 and older do.
	namedKey     = "harvesterhci.io/migrating-vm1"
	compensation = "harvesterhci.io/migratingCompensation"
	resync       = "harvesterhci.io/migratingScalingResyncNeeded"
)

// The limits of Harvester's own test plan, and one VM more.
const (
	asked   = "limits.cpu=4 limits.memory=4952Mi"
	oneMore = "limits.cpu=5 limits.memory=6337876Ki"
)

func listOf(text string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, part := range strings.Fields(text) {
		name, amount, _ := strings.Cut(part, "=")
		list[corev1.ResourceName(name)] = resource.MustParse(amount)
	}
	return list
}

// amounts is a list as text.
func amounts(list corev1.ResourceList) string {
	var parts []string
	for name, q := range list {
		parts = append(parts, fmt.Sprintf("%s=%s", name, q.String()))
	}
	return sorted(parts)
}

// scaledBy is a quota with limits of hard, and Harvester's annotations in pairs.
func scaledBy(hard string, annotations ...string) *corev1.ResourceQuota {
	rq := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "default-gn4d2", Annotations: map[string]string{"keep": "me"}},
		Spec:       corev1.ResourceQuotaSpec{Hard: listOf(hard)},
		Status:     corev1.ResourceQuotaStatus{Hard: listOf(hard)},
	}
	for i := 0; i < len(annotations); i += 2 {
		rq.Annotations[annotations[i]] = annotations[i+1]
	}
	return rq
}

// asking is a namespace that asks for limits.cpu and limits.memory.
func asking(limits string) *corev1.Namespace {
	list := listOf(limits)
	cpu, memory := list["limits.cpu"], list["limits.memory"]
	return namespaceWith(fmt.Sprintf(`{"limit":{"limitsCpu":%q,"limitsMemory":%q}}`, cpu.String(), memory.String()))
}

func refused(ns *corev1.Namespace) *corev1.Namespace {
	ns.Annotations["cattle.io/status"] = `{"Conditions":[{"Type":"ResourceQuotaInit","Status":"True"},{"Type":"ResourceQuotaValidated","Status":"False"}]}`
	return ns
}

// The states that Harvester's failures H1 to H20 leave behind, and what cleaning makes of
// spec.hard. An empty result is a limit of which nobody knows what it was.
var leftBehind = map[string]struct {
	hard        string
	ns          *corev1.Namespace
	annotations []string
	want        string
	unclear     string // the fields of the errors
}{
	"H1: the VMI is gone, the entry has leaked":         {hard: oneMore, ns: asking(asked), annotations: []string{entryKey, entryValue, resync, "false"}, want: asked},
	"H2: the VMIM has ended unseen":                     {hard: oneMore, ns: asking(asked), annotations: []string{entryKey, entryValue}, want: asked},
	"H3: the entry of a running migration was removed":  {hard: asked, ns: asking(asked), annotations: []string{resync, "false"}, want: asked},
	"H4: the entry is on the other of two quotas":       {hard: asked, ns: asking(asked), annotations: []string{entryKey, entryValue, resync, "true"}, want: asked},
	"H5: the quota was created anew":                    {hard: asked, ns: asking(asked), annotations: nil, want: ""},
	"H6: other limits are never Harvester's":            {hard: "limits.cpu=5 requests.memory=4200Mi pods=10", ns: asking(asked), annotations: []string{entryKey, entryValue}, want: "limits.cpu=4 pods=10 requests.memory=4200Mi"},
	"H7: an entry without amounts":                      {hard: asked, ns: asking(asked), annotations: []string{entryKey, `{}`}, want: asked},
	"H8: an entry that is too small":                    {hard: "limits.cpu=4030m limits.memory=4952Mi", ns: asking("limits.cpu=3030m limits.memory=4952Mi"), annotations: []string{entryKey, `{"limits.cpu":"1"}`}, want: "limits.cpu=3030m limits.memory=4952Mi"},
	"H9: compensation":                                  {hard: "limits.cpu=4 limits.memory=10Gi", ns: asking("limits.cpu=4 limits.memory=5000Mi"), annotations: []string{compensation, `{"limits.memory":"5Gi"}`}, want: "limits.cpu=4 limits.memory=5000Mi"},
	"H9: compensation that is empty is none":            {hard: oneMore, ns: asking(asked), annotations: []string{compensation, "", resync, "false"}, want: oneMore},
	"H10: the entry is gone, spec.hard has to follow":   {hard: oneMore, ns: asking(asked), annotations: []string{resync, "true"}, want: asked},
	"H11: one of fifty entries is gone, and not yet so": {hard: "limits.cpu=54 limits.memory=70Gi", ns: asking(asked), annotations: []string{entryKey, entryValue, resync, "true"}, want: asked},
	"H12: skipped in the middle":                        {hard: oneMore, ns: asking(asked), annotations: []string{entryKey, entryValue, rancher.HarvesterSkip, "true"}, want: asked},
	"H12: skipped, and set by hand":                     {hard: "limits.cpu=100 limits.memory=6337876Ki", ns: asking(asked), annotations: []string{entryKey, entryValue, rancher.HarvesterSkip, "true"}, unclear: "spec.hard[limits.cpu]"},
	"H13: the namespace's annotation is gone":           {hard: oneMore, ns: &corev1.Namespace{}, annotations: []string{entryKey, entryValue, resync, "false"}, want: asked},
	"H13: it was gone before spec.hard could follow":    {hard: "limits.cpu=4 limits.memory=1237Mi", ns: &corev1.Namespace{}, annotations: []string{entryKey, entryValue, resync, "false"}, unclear: "spec.hard[limits.memory]"},
	"H13: nothing says whether spec.hard has followed":  {hard: oneMore, ns: nil, annotations: []string{entryKey, entryValue}, unclear: "spec.hard[limits.cpu] spec.hard[limits.memory]"},
	"H13: nothing was added":                            {hard: asked, ns: nil, annotations: []string{resync, "false"}, want: asked},
	"H14: zero, which did not fit the project":          {hard: "limits.cpu=0 limits.memory=0", ns: asking(asked), annotations: []string{entryKey, entryValue}, want: "limits.cpu=0 limits.memory=0"},
	"H14: zero is asked for":                            {hard: "limits.cpu=0 limits.memory=6Gi", ns: asking("limits.cpu=0 limits.memory=4Gi"), annotations: []string{entryKey, entryValue}, want: "limits.cpu=0 limits.memory=4Gi"},
	"H15: Rancher has refused, and was not overruled":   {hard: asked, ns: refused(asking("limits.cpu=40 limits.memory=64Gi")), annotations: []string{entryKey, entryValue}, want: asked},
	"H15: Rancher has refused, and was overruled":       {hard: "limits.cpu=41 limits.memory=66Gi", ns: refused(asking("limits.cpu=40 limits.memory=64Gi")), annotations: []string{entryKey, entryValue}, unclear: "spec.hard[limits.cpu] spec.hard[limits.memory]"},
	"H16: Rancher has reset spec.hard":                  {hard: asked, ns: asking(asked), annotations: []string{namedKey, entryValue}, want: asked},
	"H16: lowered after the reset":                      {hard: "limits.cpu=1 limits.memory=3896Mi", ns: asking(asked), annotations: []string{namedKey, entryValue}, want: "limits.cpu=1 limits.memory=3896Mi"},
	"H17: the namespace's annotation is null":           {hard: oneMore, ns: namespaceWith("null"), annotations: []string{entryKey, entryValue, resync, "true"}, unclear: "spec.hard[limits.cpu] spec.hard[limits.memory]"},
	"H17: an entry with null":                           {hard: oneMore, ns: asking(asked), annotations: []string{entryKey, `{"limits.cpu":null,"limits.memory":1024}`}, want: asked},
	"H18: a malformed entry, which does not matter":     {hard: oneMore, ns: asking(asked), annotations: []string{entryKey, entryValue, namedKey, "{"}, want: asked},
	"H18: a malformed entry, which does":                {hard: oneMore, ns: nil, annotations: []string{entryKey, entryValue, namedKey, `{"limits.cpu":"one"}`, resync, "false"}, unclear: "spec.hard[limits.cpu] spec.hard[limits.memory]"},
	"H19: a guest has grown past the limit":             {hard: "limits.cpu=5 limits.memory=9Gi", ns: asking(asked), annotations: []string{entryKey, `{"limits.cpu":"1","limits.memory":"4Gi"}`}, want: asked},
	"H20: a name of 63 characters":                      {hard: oneMore, ns: asking(asked), annotations: []string{"harvesterhci.io/migrating-" + strings.Repeat("n", 53), entryValue}, want: asked},
}

func TestClean(t *testing.T) {
	for name, state := range leftBehind {
		t.Run(name, func(t *testing.T) {
			rq := scaledBy(state.hard, state.annotations...)
			before := rq.DeepCopy()
			next, err := rancher.Clean(rq, state.ns)
			require.Equal(t, before, rq, "it is read only")
			if state.want == "" {
				require.Nil(t, next)
				require.Equal(t, state.unclear, fieldsOf(t, err))
				return
			}
			require.NoError(t, err)
			require.Equal(t, state.want, amounts(next.Spec.Hard))
			require.Equal(t, amounts(rq.Status.Hard), amounts(next.Status.Hard))
			kept := map[string]string{"keep": "me"}
			if rancher.HarvesterSkips(rq) {
				kept[rancher.HarvesterSkip] = "true"
			}
			require.Equal(t, kept, next.Annotations)

			again, err := rancher.Clean(next, state.ns)
			require.NoError(t, err)
			require.Nil(t, again)
		})
	}
}

// fieldsOf returns the fields of the errors that err joins, each of which names the quota.
func fieldsOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok, err)
	var fields []string
	for _, one := range joined.Unwrap() {
		var typed *rancher.Error
		require.ErrorAs(t, one, &typed)
		require.ErrorIs(t, one, rancher.ErrUnclear)
		require.ErrorContains(t, one, "ResourceQuota tenant/default-gn4d2: "+typed.Field)
		fields = append(fields, typed.Field)
	}
	return strings.Join(fields, " ")
}

// The error of a malformed entry names the annotation and the amount.
func TestCleanNamesWhatIsMalformed(t *testing.T) {
	for value, want := range map[string]string{
		``:                                "",
		`{`:                               "",
		`null`:                            "it is null",
		`["limits.cpu"]`:                  "",
		`{"limits.cpu":"one"}`:            "limits.cpu: ",
		`{"x":"-1","limits.cpu":{}}`:      "limits.cpu: ",
		`{"x":"-1"}`:                      `x: "-1": it is negative`,
		`{"limits.memory":"1e999999999"}`: "limits.memory: ",
		`{"limits.cpu":"` + strings.Repeat("9", 65) + `"}`: "limits.cpu: ",
	} {
		next, err := rancher.Clean(scaledBy(oneMore, namedKey, value, resync, "false"), nil)
		require.Nil(t, next, value)
		require.ErrorIs(t, err, rancher.ErrMalformed, value)
		require.ErrorContains(t, err, "annotation "+namedKey+": malformed: "+want, value)
	}
}

func TestCleanNothing(t *testing.T) {
	for _, rq := range []*corev1.ResourceQuota{nil, {}, scaledBy(oneMore), scaledBy(oneMore, rancher.HarvesterSkip, "true", "harvesterhci.io/migratingElse", "x")} {
		next, err := rancher.Clean(rq, asking(asked))
		require.NoError(t, err)
		require.Nil(t, next)
	}
	bare := scaledBy("", resync, "true")
	delete(bare.Annotations, "keep")
	next, err := rancher.Clean(bare, nil)
	require.NoError(t, err)
	require.Nil(t, next.Annotations)
}

func FuzzClean(f *testing.F) {
	f.Add(entryKey, entryValue, "true", `{"limit":{"limitsCpu":"4"}}`)
	f.Add(namedKey, `{"limits.cpu":1e3,"limits.memory":null}`, "false", "")
	f.Add(compensation, `{"limits.memory":"12345678901234567890"}`, "", "null")
	f.Add("harvesterhci.io/migrating-", `{"limits.cpu":"100E","limits.memory":"-1"}`, "maybe", `{"limit":{"limitsCpu":"0"}}`)
	f.Fuzz(func(t *testing.T, key, value, synced, annotation string) {
		rq := scaledBy(oneMore, key, value, resync, synced)
		before := rq.DeepCopy()
		next, err := rancher.Clean(rq, namespaceWith(annotation))
		require.Equal(t, before, rq)
		require.Equal(t, err == nil, next != nil)
		if next == nil {
			return
		}
		for name, q := range next.Spec.Hard {
			require.LessOrEqual(t, q.Cmp(rq.Spec.Hard[name]), 0, "cleaning never raises")
			require.GreaterOrEqual(t, q.Sign(), 0)
		}
		again, err := rancher.Clean(next, namespaceWith(annotation))
		require.NoError(t, err)
		require.Nil(t, again)
	})
}

func TestHarvesterSkips(t *testing.T) {
	require.False(t, rancher.HarvesterSkips(nil))
	require.False(t, rancher.HarvesterSkips(scaledBy(asked, rancher.HarvesterSkip, "yes")))
	require.True(t, rancher.HarvesterSkips(scaledBy(asked, rancher.HarvesterSkip, "true")))
}

// A quota that cannot be cleaned does not keep the others from it, and what is clean is not
// written.
func TestCleanNamespace(t *testing.T) {
	raised, clean, unclear := scaledBy(oneMore, entryKey, entryValue), scaledBy(asked), scaledBy("limits.cpu=9", entryKey, entryValue, rancher.HarvesterSkip, "true")
	raised.Name, clean.Name, unclear.Name = "raised", "clean", "unclear"
	client := fake.NewClientset(asking(asked), raised, clean, unclear)
	err := rancher.CleanNamespace(t.Context(), client.CoreV1(), "tenant")
	require.ErrorIs(t, err, rancher.ErrUnclear)
	require.ErrorContains(t, err, "ResourceQuota tenant/unclear: spec.hard[limits.cpu]")
	require.Equal(t, "update resourcequotas raised", written(client, "resourcequotas"))
	rq, err := client.CoreV1().ResourceQuotas("tenant").Get(t.Context(), "raised", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, asked, amounts(rq.Spec.Hard))
}

// Where there is nothing to clean, the namespace is not even read.
func TestCleanNamespaceWithNothingToClean(t *testing.T) {
	client := fake.NewClientset(scaledBy(asked))
	require.NoError(t, rancher.CleanNamespace(t.Context(), client.CoreV1(), "tenant"))
	require.Empty(t, written(client, "resourcequotas"))

	client = fake.NewClientset(scaledBy(oneMore, entryKey, entryValue))
	err := rancher.CleanNamespace(t.Context(), client.CoreV1(), "tenant")
	require.True(t, apierrors.IsNotFound(err), "%v", err)
	require.ErrorContains(t, err, "namespace tenant: get Namespace")
}

// written returns the different updates of a resource.
func written(client *fake.Clientset, resource string) string {
	writes := map[string]bool{}
	for _, action := range client.Actions() {
		if update, ok := action.(k8stesting.UpdateAction); ok && action.GetResource().Resource == resource {
			object, _ := update.GetObject().(metav1.Object)
			writes["update "+resource+action.GetSubresource()+" "+object.GetName()] = true
		}
	}
	return sorted(slices.Collect(maps.Keys(writes)))
}

// Only a refusal of a quota that Rancher manages is Rancher's lock.
func TestCleanNamespaceUnderTheLock(t *testing.T) {
	resources := corev1.Resource("resourcequotas")
	for name, test := range map[string]struct {
		label    string
		answer   error
		locked   bool
		conflict bool
	}{
		"forbidden":               {"true", apierrors.NewForbidden(resources, "default-gn4d2", context.Canceled), true, false},
		"bad request":             {"true", apierrors.NewBadRequest("users are forbidden from changing resources managed by Rancher"), true, false},
		"no right":                {"false", apierrors.NewForbidden(resources, "default-gn4d2", context.Canceled), false, false},
		"written in the meantime": {"true", apierrors.NewConflict(resources, "default-gn4d2", context.Canceled), false, true},
	} {
		rq := scaledBy(oneMore, entryKey, entryValue)
		rq.Labels = map[string]string{rancher.QuotaLabel: test.label}
		client := fake.NewClientset(asking(asked), rq)
		client.PrependReactor("update", "resourcequotas", func(k8stesting.Action) (bool, runtime.Object, error) { return true, nil, test.answer })
		err := rancher.CleanNamespace(t.Context(), client.CoreV1(), "tenant")
		require.ErrorContains(t, err, "ResourceQuota tenant/default-gn4d2", name)
		require.Equal(t, test.locked, strings.Contains(err.Error(), rancher.ErrLocked.Error()), name)
		if test.locked {
			require.ErrorIs(t, err, rancher.ErrLocked, name)
		}
		require.Equal(t, test.conflict, apierrors.IsConflict(err), name)
	}
}
