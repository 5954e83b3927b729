package quota_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/quota"
)

func TestTraitsOf(t *testing.T) {
	burstable := func(change func(*corev1.Pod)) *corev1.Pod {
		return with(podOf(container("a", "cpu=1", "")), change)
	}
	deadline := func(seconds int64) *corev1.Pod {
		return burstable(func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = &seconds })
	}
	affine := func(a corev1.Affinity) *corev1.Pod { return burstable(func(p *corev1.Pod) { p.Spec.Affinity = &a }) }
	class := func(pod *corev1.Pod, class corev1.PodQOSClass) *corev1.Pod {
		return with(pod, func(p *corev1.Pod) { p.Status.QOSClass = class })
	}
	level := func(pod *corev1.Pod, requests, limits string) *corev1.Pod {
		has := asks(requests, limits)
		return with(pod, func(p *corev1.Pod) { p.Spec.Resources = &has })
	}
	plain := []corev1.PodAffinityTerm{{TopologyKey: "zone"}}
	named := []corev1.PodAffinityTerm{{TopologyKey: "zone"}, {Namespaces: []string{"other"}}}
	selected := []corev1.PodAffinityTerm{{NamespaceSelector: &metav1.LabelSelector{}}}
	weighted := func(terms []corev1.PodAffinityTerm) (all []corev1.WeightedPodAffinityTerm) {
		for _, term := range terms {
			all = append(all, corev1.WeightedPodAffinityTerm{Weight: 1, PodAffinityTerm: term})
		}
		return all
	}
	bestEffort, crossing, terminating := quota.Traits{BestEffort: true}, quota.Traits{CrossNamespacePodAffinity: true}, quota.Traits{Terminating: true}

	cases := map[string]struct {
		pod  *corev1.Pod
		want quota.Traits
	}{
		"nil":                      {nil, quota.Traits{}},
		"an ordinary pod":          {burstable(func(*corev1.Pod) {}), quota.Traits{}},
		"a deadline":               {deadline(60), terminating},
		"a deadline of zero":       {deadline(0), terminating},
		"a negative deadline":      {deadline(-1), quota.Traits{}},
		"deletion is no deadline":  {burstable(func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }), quota.Traits{}},
		"a priority class":         {burstable(func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" }), quota.Traits{PriorityClass: "high"}},
		"no containers":            {podOf(), bestEffort},
		"nothing asked for":        {podOf(container("a", "", "")), bestEffort},
		"zero asked for":           {podOf(container("a", "cpu=0 memory=0", "cpu=0")), bestEffort},
		"negative amounts":         {podOf(container("a", "cpu=-1 memory=-1", "cpu=-1")), bestEffort},
		"other resources":          {podOf(container("a", "ephemeral-storage=1Gi nvidia.com/gpu=1", "hugepages-2Mi=2Mi")), bestEffort},
		"a request of memory":      {podOf(container("a", "", ""), container("b", "memory=1", "")), quota.Traits{}},
		"a limit of cpu":           {podOf(container("a", "", "cpu=1n")), quota.Traits{}},
		"an init container":        {withInit(podOf(container("a", "", "")), container("i", "", "memory=1")), quota.Traits{}},
		"pod-level resources":      {level(podOf(container("a", "", "")), "", "cpu=1"), quota.Traits{}},
		"pod-level requests":       {level(podOf(container("a", "", "")), "memory=1", ""), quota.Traits{}},
		"empty pod-level ones":     {level(podOf(container("a", "cpu=1", "cpu=1")), "", ""), quota.Traits{}},
		"status goes first":        {class(burstable(func(*corev1.Pod) {}), corev1.PodQOSBestEffort), bestEffort},
		"status goes first, again": {class(podOf(), corev1.PodQOSGuaranteed), quota.Traits{}},
		"affinity of its own namespace": {affine(corev1.Affinity{
			NodeAffinity:    &corev1.NodeAffinity{},
			PodAffinity:     &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: plain, PreferredDuringSchedulingIgnoredDuringExecution: weighted(plain)},
			PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: plain, PreferredDuringSchedulingIgnoredDuringExecution: weighted(plain)},
		}), quota.Traits{}},
		"affinity, required":       {affine(corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: named}}), crossing},
		"affinity, preferred":      {affine(corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: weighted(selected)}}), crossing},
		"anti-affinity, required":  {affine(corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: selected}}), crossing},
		"anti-affinity, preferred": {affine(corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: weighted(named)}}), crossing},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { require.Empty(t, cmp.Diff(c.want, quota.TraitsOf(c.pod)), "-want +got") })
	}
}

func TestTraitsOfClaim(t *testing.T) {
	spec, current, target, empty := "spec", "current", "target", ""
	claim := func(spec, current *string, change *corev1.ModifyVolumeStatus) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{
			Spec:   corev1.PersistentVolumeClaimSpec{VolumeAttributesClassName: spec},
			Status: corev1.PersistentVolumeClaimStatus{CurrentVolumeAttributesClassName: current, ModifyVolumeStatus: change},
		}
	}
	cases := map[string]struct {
		pvc  *corev1.PersistentVolumeClaim
		want quota.Traits
	}{
		"nil":     {nil, quota.Traits{Claim: true}},
		"none":    {claim(nil, nil, nil), quota.Traits{Claim: true}},
		"empty":   {claim(&empty, &empty, &corev1.ModifyVolumeStatus{}), quota.Traits{Claim: true}},
		"spec":    {claim(&spec, nil, nil), quota.Traits{Claim: true, VolumeAttributesClass: spec}},
		"current": {claim(nil, &current, nil), quota.Traits{Claim: true, CurrentVolumeAttributesClass: current}},
		"all":     {claim(&spec, &current, &corev1.ModifyVolumeStatus{TargetVolumeAttributesClassName: target}), quota.Traits{Claim: true, VolumeAttributesClass: spec, CurrentVolumeAttributesClass: current, TargetVolumeAttributesClass: target}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { require.Empty(t, cmp.Diff(c.want, quota.TraitsOfClaim(c.pvc)), "-want +got") })
	}
}

const (
	priority   = corev1.ResourceQuotaScopePriorityClass
	attributes = corev1.ResourceQuotaScopeVolumeAttributesClass
)

// scoped returns a quota with these scopes.
func scoped(scopes ...corev1.ResourceQuotaScope) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Scopes: scopes}}
}

// selecting returns a quota with a scope selector of one requirement.
func selecting(scope corev1.ResourceQuotaScope, operator corev1.ScopeSelectorOperator, values ...string) *corev1.ResourceQuota {
	return and(&corev1.ResourceQuota{}, scope, operator, values...)
}

// and adds a requirement to the scope selector of rq.
func and(rq *corev1.ResourceQuota, scope corev1.ResourceQuotaScope, operator corev1.ScopeSelectorOperator, values ...string) *corev1.ResourceQuota {
	if rq.Spec.ScopeSelector == nil {
		rq.Spec.ScopeSelector = &corev1.ScopeSelector{}
	}
	rq.Spec.ScopeSelector.MatchExpressions = append(rq.Spec.ScopeSelector.MatchExpressions,
		corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: operator, Values: values})
	return rq
}

func TestSelectedBy(t *testing.T) {
	const (
		in, notIn, exists, absent = corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn, corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist

		terminating, notTerminating = corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating
		bestEffort, notBestEffort   = corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort
		crossing                    = corev1.ResourceQuotaScopeCrossNamespacePodAffinity
	)
	ordinary, high := quota.Traits{}, quota.Traits{PriorityClass: "high"}
	claim, gold := quota.Traits{Claim: true}, quota.Traits{Claim: true, VolumeAttributesClass: "gold"}
	changing := quota.Traits{Claim: true, VolumeAttributesClass: "gold", CurrentVolumeAttributesClass: "silver", TargetVolumeAttributesClass: "bronze"}

	cases := map[string]struct {
		traits quota.Traits
		rq     *corev1.ResourceQuota
		want   bool
	}{
		"no quota":                                  {ordinary, nil, false},
		"no scopes":                                 {ordinary, scoped(), true},
		"no scopes, a claim":                        {claim, scoped(), true},
		"an empty scope selector":                   {ordinary, &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{ScopeSelector: &corev1.ScopeSelector{}}}, true},
		"Terminating":                               {quota.Traits{Terminating: true}, scoped(terminating), true},
		"Terminating, not":                          {ordinary, scoped(terminating), false},
		"NotTerminating":                            {ordinary, scoped(notTerminating), true},
		"NotTerminating, not":                       {quota.Traits{Terminating: true}, scoped(notTerminating), false},
		"BestEffort":                                {quota.Traits{BestEffort: true}, scoped(bestEffort), true},
		"BestEffort, not":                           {ordinary, scoped(bestEffort), false},
		"NotBestEffort":                             {ordinary, scoped(notBestEffort), true},
		"NotBestEffort, not":                        {quota.Traits{BestEffort: true}, scoped(notBestEffort), false},
		"CrossNamespacePodAffinity":                 {quota.Traits{CrossNamespacePodAffinity: true}, scoped(crossing), true},
		"CrossNamespacePodAffinity, not":            {ordinary, scoped(crossing), false},
		"several scopes":                            {high, scoped(notTerminating, priority), true},
		"several scopes, not all":                   {ordinary, scoped(notTerminating, priority), false},
		"scopes and a selector":                     {high, and(scoped(notTerminating), priority, in, "high"), true},
		"scopes and a selector, not the scopes":     {high, and(scoped(terminating), priority, in, "high"), false},
		"scopes and a selector, not the selector":   {high, and(scoped(notTerminating), priority, in, "low"), false},
		"a selector, not all of it":                 {high, and(selecting(priority, in, "high"), bestEffort, exists), false},
		"a selector that asks for nothing of class": {ordinary, selecting(notBestEffort, exists), true},
		"operators are for classes":                 {ordinary, selecting(notBestEffort, "Junk", "junk"), true},
		"PriorityClass":                             {high, scoped(priority), true},
		"PriorityClass, none":                       {ordinary, scoped(priority), false},
		"PriorityClass Exists":                      {high, selecting(priority, exists), true},
		"PriorityClass Exists, none":                {ordinary, selecting(priority, exists), false},
		"PriorityClass Exists disregards values":    {high, selecting(priority, exists, "low", "not a label!"), true},
		"PriorityClass DoesNotExist":                {ordinary, selecting(priority, absent), true},
		"PriorityClass DoesNotExist, one":           {high, selecting(priority, absent), false},
		"PriorityClass DoesNotExist, with values":   {ordinary, selecting(priority, absent, "low"), false},
		"PriorityClass In":                          {high, selecting(priority, in, "low", "high"), true},
		"PriorityClass In, another":                 {high, selecting(priority, in, "low"), false},
		"PriorityClass In, none":                    {ordinary, selecting(priority, in, "high"), false},
		"PriorityClass In, the empty one":           {ordinary, selecting(priority, in, ""), false},
		"PriorityClass In, without values":          {high, selecting(priority, in), false},
		"PriorityClass In, a malformed value":       {high, selecting(priority, in, "high", "not a label!"), false},
		"PriorityClass NotIn":                       {high, selecting(priority, notIn, "low"), true},
		"PriorityClass NotIn, one of them":          {high, selecting(priority, notIn, "low", "high"), false},
		"PriorityClass NotIn, none":                 {ordinary, selecting(priority, notIn, "high"), true},
		"PriorityClass NotIn, without values":       {high, selecting(priority, notIn), false},
		"an unknown operator":                       {high, selecting(priority, "Gt", "7"), false},
		"an operator in lower case":                 {high, selecting(priority, "in", "high"), false},
		"no operator":                               {high, selecting(priority, "", "high"), false},
		"an unknown scope":                          {high, scoped("Unknown"), false},
		"an unknown scope beside another":           {high, scoped(priority, "Unknown"), false},
		"an unknown scope in a selector":            {high, selecting("Unknown", exists), false},
		"no scopes, a ResourceClaim":                {quota.Traits{ResourceClaim: true}, scoped(), true},
		"a negation, a ResourceClaim":               {quota.Traits{ResourceClaim: true}, scoped(notTerminating), false},
		"a class that is none, a ResourceClaim":     {quota.Traits{ResourceClaim: true}, selecting(priority, absent), false},
		"VolumeAttributesClass of a pod":            {high, scoped(attributes), false},
		"VolumeAttributesClass of a pod, negated":   {ordinary, selecting(attributes, absent), false},
		"a pod's fields are not a claim's":          {quota.Traits{VolumeAttributesClass: "gold"}, selecting(attributes, in, "gold"), false},
		"a scope of pods and a claim":               {gold, scoped(notTerminating), false},
		"PriorityClass of a claim":                  {quota.Traits{Claim: true, PriorityClass: "high"}, scoped(priority), false},
		"VolumeAttributesClass":                     {gold, scoped(attributes), true},
		"VolumeAttributesClass, none":               {claim, scoped(attributes), false},
		"VolumeAttributesClass DoesNotExist":        {claim, selecting(attributes, absent), true},
		"VolumeAttributesClass DoesNotExist, one":   {gold, selecting(attributes, absent), false},
		"VolumeAttributesClass In":                  {gold, selecting(attributes, in, "gold"), true},
		"VolumeAttributesClass In, none":            {claim, selecting(attributes, in, "gold"), false},
		"VolumeAttributesClass In, of spec":         {changing, selecting(attributes, in, "gold"), true},
		"VolumeAttributesClass In, current":         {changing, selecting(attributes, in, "silver"), true},
		"VolumeAttributesClass In, target":          {changing, selecting(attributes, in, "bronze"), true},
		"VolumeAttributesClass In, no such":         {changing, selecting(attributes, in, "tin"), false},
		"VolumeAttributesClass NotIn":               {gold, selecting(attributes, notIn, "tin"), true},
		"VolumeAttributesClass NotIn, that one":     {gold, selecting(attributes, notIn, "gold"), false},
		"VolumeAttributesClass NotIn, none":         {claim, selecting(attributes, notIn, "gold"), true},
		"VolumeAttributesClass NotIn, one of three": {changing, selecting(attributes, notIn, "gold"), true},
		"VolumeAttributesClass NotIn, all three":    {changing, selecting(attributes, notIn, "gold", "silver", "bronze"), false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, c.traits.SelectedBy(c.rq))
			require.Equal(t, c.want, c.traits.SelectedBy(c.rq), "when asked again")

			stored, err := json.Marshal(c.traits)
			require.NoError(t, err)
			var read quota.Traits
			require.NoError(t, json.Unmarshal(stored, &read))
			require.Equal(t, c.traits, read)
		})
	}
}

func TestSelects(t *testing.T) {
	high := with(podOf(container("a", "cpu=1", "")), func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" })
	require.True(t, quota.Selects(scoped(), high))
	require.True(t, quota.Selects(selecting(priority, corev1.ScopeSelectorOpIn, "high"), high))
	require.False(t, quota.Selects(selecting(priority, corev1.ScopeSelectorOpIn, "low"), high))
	require.False(t, quota.Selects(nil, high))
	require.False(t, quota.Selects(scoped(), nil))
	require.False(t, quota.Selects(nil, nil))
}
