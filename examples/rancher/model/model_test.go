package model

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
)

const ms = time.Millisecond

func limits(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

func at(latency time.Duration) fake.Span { return fake.Span{Min: latency, Max: latency} }

// A scene is a namespace n whose quota is Rancher's.
type scene struct {
	*testing.T
	*fake.Cluster
	rancher *Simulated
	name    string // of the quota
}

func newScene(t *testing.T, config fake.Config, latency time.Duration, hard corev1.ResourceList) *scene {
	s := &scene{T: t, Cluster: fake.New(config)}
	s.rancher = Simulate(s.Cluster, at(latency), nil)
	require.NoError(t, s.CreateNamespace("n", nil))
	s.Advance(10 * time.Second)
	require.Empty(t, s.quotas())
	require.NoError(t, s.rancher.SetLimit("n", hard))
	s.Advance(10 * time.Second)
	require.Len(t, s.quotas(), 1)
	s.name = s.quotas()[0].Name
	require.Regexp(t, "^default-", s.name)
	require.Equal(t, map[string]string{rancher.QuotaLabel: "true"}, s.quotas()[0].Labels)
	return s
}

func (s *scene) quotas() []corev1.ResourceQuota {
	list, err := s.Client("admin").CoreV1().ResourceQuotas("n").List(context.Background(), metav1.ListOptions{})
	require.NoError(s, err)
	return list.Items
}

func (s *scene) requireStatic(hard corev1.ResourceList, why ...any) {
	s.Helper()
	require.True(s, quota.Equal(hard, s.Quota("n", s.name).Spec.Hard), why...)
}

// raise changes spec.hard, as Harvester does.
func (s *scene) raise(hard corev1.ResourceList) {
	rq := s.Quota("n", s.name)
	rq.Spec.Hard, rq.Annotations = hard, map[string]string{"kept": "yes"}
	_, err := s.Client("somebody").CoreV1().ResourceQuotas("n").Update(context.Background(), rq, metav1.UpdateOptions{})
	require.NoError(s, err)
}

func TestResetsOnNamespaceEvents(t *testing.T) {
	bought, raised := limits("limits.cpu", "4", "pods", "7"), limits("limits.cpu", "8", "pods", "7")
	s := newScene(t, fake.Config{}, 20*ms, bought)
	s.requireStatic(bought)
	version, writes := s.Quota("n", s.name).ResourceVersion, s.Writes(fake.RancherUser, fake.Namespaces)
	s.rancher.Restart()
	s.Advance(time.Minute)
	require.Equal(t, version, s.Quota("n", s.name).ResourceVersion, "equal limits are not written")
	require.Equal(t, writes, s.Writes(fake.RancherUser, fake.Namespaces))

	s.raise(raised)
	s.Advance(time.Hour)
	s.requireStatic(raised, "it does not watch quotas")
	require.NoError(t, s.rancher.Touch("n"))
	s.Advance(49 * ms)
	s.requireStatic(raised)
	s.Advance(1 * ms)
	s.requireStatic(bought, "an event, a call and half another later")
	require.Equal(t, map[string]string{"kept": "yes"}, s.Quota("n", s.name).Annotations)
	require.Equal(t, writes+1, s.Writes(fake.RancherUser, fake.Namespaces), "the condition has a timestamp")

	s.Advance(time.Second)
	s.raise(raised)
	s.rancher.Restart()
	s.Advance(time.Second)
	s.requireStatic(bought)
	require.NoError(t, s.rancher.SetLimit("n", nil))
	s.Advance(time.Second)
	require.Nil(t, s.Quota("n", s.name))
}

func TestSlowRancherAndAReraiserChaseEachOther(t *testing.T) {
	raised := limits("limits.cpu", "8")
	count := func(latency time.Duration) int {
		s := newScene(t, fake.Config{}, latency, limits("limits.cpu", "4"))
		s.Start("us", func(p *fake.Process) fake.Program {
			return fake.Program{Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
				quotas := p.Client.CoreV1().ResourceQuotas(namespace)
				rq, err := quotas.Get(ctx, s.name, metav1.GetOptions{})
				if err != nil || quota.Equal(rq.Spec.Hard, raised) {
					return 0, err
				}
				rq.Spec.Hard = raised
				_, err = quotas.Update(ctx, rq, metav1.UpdateOptions{})
				return 0, err
			}}
		})
		s.Advance(10 * time.Second)
		before := s.Writes(fake.RancherUser, fake.ResourceQuotas)
		require.NoError(t, s.rancher.Touch("n"))
		s.Advance(15 * time.Second)
		return s.Writes(fake.RancherUser, fake.ResourceQuotas) - before
	}
	require.LessOrEqual(t, count(10*ms), 2)
	require.InDelta(t, 6, count(600*ms), 3, "as was measured")
}

func TestRetriesConflicts(t *testing.T) {
	s := newScene(t, fake.Config{}, 20*ms, limits("limits.cpu", "4"))
	s.raise(limits("limits.cpu", "5"))
	s.Advance(time.Second)
	require.NoError(t, s.rancher.Touch("n"))
	s.Advance(45 * ms)
	s.raise(limits("limits.cpu", "6")) // its cache will not have this one when it writes
	s.Advance(10 * ms)
	s.requireStatic(limits("limits.cpu", "6"))
	s.Advance(time.Minute)
	s.requireStatic(limits("limits.cpu", "4"))
}

// Rancher neither sees nor changes what is enforced, and with its lock the status is open for
// whoever enforces.
func TestEnforcedLimit(t *testing.T) {
	s := newScene(t, fake.Config{Lock: fake.RancherUser}, 20*ms, limits("limits.cpu", "4", "pods", "7"))
	rq := s.Quota("n", s.name)
	rq.Status.Hard["limits.cpu"], rq.Annotations = resource.MustParse("8"), map[string]string{"kept": "yes"}
	_, err := s.Client("headroom").CoreV1().ResourceQuotas("n").UpdateStatus(t.Context(), rq, metav1.UpdateOptions{})
	require.NoError(t, err)
	version := s.Quota("n", s.name).ResourceVersion
	s.rancher.Restart()
	s.Advance(time.Minute)
	require.Equal(t, version, s.Quota("n", s.name).ResourceVersion, "it writes nothing")

	require.NoError(t, s.rancher.SetLimit("n", limits("limits.cpu", "5", "pods", "7")))
	s.Advance(time.Second)
	s.requireStatic(limits("limits.cpu", "5", "pods", "7"))
	rq = s.Quota("n", s.name)
	require.True(t, quota.Equal(rq.Spec.Hard, rq.Status.Hard), "a new static limit resets what is enforced")
	require.Equal(t, map[string]string{"kept": "yes"}, rq.Annotations)
}

func TestLimitsOfTheProject(t *testing.T) {
	s := newScene(t, fake.Config{}, 0, limits("limits.cpu", "4", "limits.memory", "1Gi"))
	shared := func(cpu, memory string) {
		s.rancher.projects.Set("shared", Project{Limit: Limit{"limitsCpu": "10"}, Default: Limit{"limitsCpu": cpu, "limitsMemory": memory}})
	}
	shared("11", "2Gi")
	require.NoError(t, s.rancher.annotate("n", map[string]any{ProjectAnnotation: "shared", rancher.LimitsAnnotation: nil}))
	s.Advance(time.Second)
	s.requireStatic(limits("limits.cpu", "4", "limits.memory", "1Gi"), "what does not fit stays in the annotation")
	ns := s.Snapshot("n").Namespace
	require.Contains(t, ns.Annotations[rancher.LimitsAnnotation], `"limitsCpu":"11"`)
	require.Contains(t, ns.Annotations[statusAnnotation], `"Status":"False"`)

	require.NoError(t, s.rancher.SetLimit("n", nil))
	s.Advance(time.Second)
	require.NoError(t, s.rancher.annotate("n", map[string]any{ProjectAnnotation: "shared"}))
	s.Advance(time.Second)
	require.True(t, quota.Equal(limits("limits.cpu", "0", "limits.memory", "2Gi"), s.quotas()[0].Spec.Hard), "in a new quota it is zero")
}

// vms are the limits that n VMs fill exactly.
func vms(n int64) corev1.ResourceList {
	return corev1.ResourceList{
		"limits.cpu":    *resource.NewMilliQuantity(1015*n, resource.DecimalSI),
		"limits.memory": *resource.NewQuantity(2773714688*n, resource.BinarySI),
	}
}

// Rancher's agent starts over and over during a drain, near and far, with its lock in force, and
// its limits change in the middle.
func TestDrainUnderRancher(t *testing.T) {
	for _, latency := range []time.Duration{10 * ms, 600 * ms} {
		s := newScene(t, fake.Config{Seed: 1, Lock: fake.RancherUser}, latency, vms(12))
		for i := range 12 {
			require.NoError(t, s.CreateVMI(fake.NewVMI("n", fmt.Sprint("vm", i), 1, resource.MustParse("1Gi"))))
		}
		s.Advance(time.Minute)
		s.Start("embedder", func(p *fake.Process) fake.Program {
			program, err := p.Controller(migration.Options{})
			require.NoError(t, err)
			return program
		})
		before := s.Quota("n", s.name)
		s.Drain("node01")
		for i := 0; !s.moved("node01"); i++ {
			require.Less(t, i, 1000)
			s.rancher.Restart()
			s.Advance(500 * ms)
			if i == 10 {
				require.NoError(t, s.rancher.SetLimit("n", vms(13)))
			}
		}
		require.Empty(t, s.Finish(), "%v", latency)
		s.requireStatic(vms(13))
		require.Equal(t, before.Annotations, s.Quota("n", s.name).Annotations)
	}
}

func (s *scene) moved(node string) bool {
	for _, vmi := range s.Snapshot("n").VMIs {
		if vmi.Status.NodeName == node {
			return false
		}
	}
	return true
}
