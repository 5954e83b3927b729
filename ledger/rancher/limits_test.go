package rancher_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/ledger/rancher"
)

func namespaceWith(annotation string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant", Annotations: map[string]string{rancher.LimitsAnnotation: annotation}}}
}

func TestLimitsOfAllFields(t *testing.T) {
	for annotation, want := range map[string]string{
		`{"limit":{"limitsCpu":"4000m"}}`:              "limits.cpu=4",
		`{"limit":{"limitsMemory":"4952Mi"}}`:          "limits.memory=4952Mi",
		`{"limit":{"requestsCpu":"1"}}`:                "requests.cpu=1",
		`{"limit":{"requestsMemory":"1Gi"}}`:           "requests.memory=1Gi",
		`{"limit":{"requestsStorage":"1Ti"}}`:          "requests.storage=1Ti",
		`{"limit":{"persistentVolumeClaims":"3"}}`:     "persistentvolumeclaims=3",
		`{"limit":{"configMaps":"4"}}`:                 "configmaps=4",
		`{"limit":{"replicationControllers":"5"}}`:     "replicationcontrollers=5",
		`{"limit":{"servicesNodePorts":"6"}}`:          "services.nodeports=6",
		`{"limit":{"servicesLoadBalancers":"7"}}`:      "services.loadbalancers=7",
		`{"limit":{"pods":"8"}}`:                       "pods=8",
		`{"limit":{"services":"9"}}`:                   "services=9",
		`{"limit":{"secrets":"10"}}`:                   "secrets=10",
		`{"limit":{"extended":{"count/pods":"11"}}}`:   "count/pods=11",
		`{"limit":{"extended":{"limits.cpu":"12"}}}`:   "limits.cpu=12",
		`{"limit":{"limitsCpu":"0"}}`:                  "limits.cpu=0",
		`{"limit":{"limitsCpu":""}}`:                   "",
		`{"limit":{"limitsGpu":"1"},"usedLimit":null}`: "",
		`{"limit":{}}`:                                 "",
		`{"Limit":{"limitsCPU":"4","PODS":"8"}}`:       "limits.cpu=4 pods=8",
		`{"limit":{"pods":"8","Pods":"9"}}`:            "pods=9",
		`{}`:                                           "",
		`{"limit":{"limitsCpu":"1","extended":{"limits.cpu":"2","requests.nvidia.com/gpu":"3"}}}`:  "limits.cpu=1 requests.nvidia.com/gpu=3",
		`{"limit":{"limitsMemory":"9223372036854775807","extended":{"x":"12345678901234567890"}}}`: "limits.memory=9223372036854775807 x=12345678901234567890",
	} {
		limits, err := rancher.Limits(namespaceWith(annotation))
		require.NoError(t, err, annotation)
		require.NotNil(t, limits, annotation)
		require.Equal(t, want, amounts(limits), annotation)
	}
}

func TestLimitsThatNobodyAskedFor(t *testing.T) {
	for _, ns := range []*corev1.Namespace{nil, {}, namespaceWith(""), namespaceWith(" \n")} {
		limits, err := rancher.Limits(ns)
		require.NoError(t, err)
		require.Nil(t, limits)
	}
}

func TestLimitsThatAreMalformed(t *testing.T) {
	for annotation, field := range map[string]string{
		`null`:                            "",
		`{"limit"`:                        "",
		`[]`:                              "",
		`"4"`:                             "",
		`{"limit":null}`:                  "limit",
		`{"limit":"4"}`:                   "limit",
		`{"limit":{"extended":null}}`:     "limit.extended",
		`{"limit":{"extended":["pods"]}}`: "limit.extended",
		`{"limit":{"extended":{"count/pods":null}}}`:           "limit.extended[count/pods]",
		`{"limit":{"extended":{"count/pods":""}}}`:             "limit.extended[count/pods]",
		`{"limit":{"extended":{"b":"-1","a":"x"},"pods":"y"}}`: "limit.extended[a]",
		`{"limit":{"limitsCpu":null}}`:                         "limit.limitsCpu",
		`{"limit":{"limitsCpu":4}}`:                            "limit.limitsCpu",
		`{"limit":{"limitsCpu":"four"}}`:                       "limit.limitsCpu",
		`{"limit":{"limitsCpu":"-1"}}`:                         "limit.limitsCpu",
		`{"limit":{"limitsCpu":"1e999999999"}}`:                "limit.limitsCpu",
		`{"limit":{"limitsCpu":"100000000000000000000000000000000000000000000000000000000000000000"}}`: "limit.limitsCpu",
		`{"limit":{"pods":"` + strings.Repeat("9", 300) + `"}}`:                                        "limit.pods",
		`{"limit":{"secrets":"x","pods":"y"}}`:                                                         "limit.pods",
	} {
		limits, err := rancher.Limits(namespaceWith(annotation))
		require.Nil(t, limits, annotation)
		require.ErrorIs(t, err, rancher.ErrMalformed, annotation)
		var typed *rancher.Error
		require.ErrorAs(t, err, &typed, annotation)
		require.Equal(t, "tenant", typed.Namespace, annotation)
		require.Equal(t, field, typed.Field, annotation)
		require.ErrorContains(t, err, "namespace tenant: field.cattle.io/resourceQuota: "+field, annotation)
		require.Less(t, len(err.Error()), 250, annotation)
	}
}

func TestNotGiven(t *testing.T) {
	for _, row := range []struct{ asked, given, want string }{
		{asked: "", given: "limits.cpu=4"},
		{asked: `{"limit":{}}`, given: "limits.cpu=4"},
		{asked: `{"limit":{"limitsCpu":"4000m"}}`, given: "limits.cpu=4 limits.memory=1Gi"},
		{asked: `{"limit":{"limitsCpu":"4","limitsMemory":"8Gi"}}`, given: "limits.cpu=4 limits.memory=0", want: "limits.memory=8Gi"},
		{asked: `{"limit":{"limitsCpu":"8","limitsMemory":"8Gi"}}`, given: "limits.cpu=4 limits.memory=8Gi", want: "limits.cpu=8"},
		{asked: `{"limit":{"pods":"8"}}`, given: "limits.cpu=4", want: "pods=8"},
	} {
		rq := scaledBy(row.given)
		rq.Status.Hard = listOf("limits.cpu=8 limits.memory=8Gi") // raised for migrations
		before := rq.DeepCopy()
		limits, err := rancher.NotGiven(namespaceWith(row.asked), rq)
		require.NoError(t, err)
		require.Equal(t, row.want, amounts(limits))
		require.Equal(t, row.want == "", limits == nil)
		require.Equal(t, before, rq)
	}
	limits, err := rancher.NotGiven(namespaceWith(`{"limit":{"pods":"8"}}`), nil)
	require.NoError(t, err)
	require.Equal(t, "pods=8", amounts(limits))
	_, err = rancher.NotGiven(namespaceWith(`null`), scaledBy("limits.cpu=4"))
	require.ErrorIs(t, err, rancher.ErrMalformed)
}

func sorted(parts []string) string {
	slices.Sort(parts)
	return strings.Join(parts, " ")
}
