package applier_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/quota"
)

// epoch is when the tests begin.
var epoch = time.Date(2026, time.August, 3, 14, 5, 6, 0, time.UTC)

// A scene is an applier with a server, a ledger and a clock of its own, and what it has
// told. The namespace is "tenant" and the quota "q", where nothing else is said.
type scene struct {
	*server
	ctx     context.Context
	record  *memory.Ledger
	now     time.Time
	policy  quota.Policy
	config  applier.Config
	applier *applier.Applier
	events  []string
	counts  []string
}

func newScene(t tb, configure ...func(c *applier.Config)) *scene {
	s := &scene{server: newServer(t), ctx: klog.NewContext(context.Background(), klog.Logger{}), record: memory.New(), now: epoch}
	s.config = applier.Config{
		Ledger:   s.record,
		Quotas:   s.CoreV1(),
		Now:      func() time.Time { return s.now },
		Policy:   func(string) quota.Policy { return s.policy },
		Recorder: s,
		Metrics:  s,
	}
	s.restart(configure...)
	return s
}

// sceneOf is a scene with the quota q.
func sceneOf(t tb, limits, used string, configure ...func(c *applier.Config)) *scene {
	s := newScene(t, configure...)
	s.limit("q", limits, used)
	return s
}

// restart makes a new applier, which remembers nothing.
func (s *scene) restart(configure ...func(c *applier.Config)) {
	s.t.Helper()
	for _, change := range configure {
		change(&s.config)
	}
	a, err := applier.New(s.config)
	require.NoError(s.t, err)
	s.applier = a
}

// limit creates a quota with these limits, and this usage.
func (s *scene) limit(name, limits, used string, scopes ...corev1.ResourceQuotaScope) {
	s.t.Helper()
	rq := quotaIn("tenant", name, limits)
	rq.Spec.Scopes, rq.Status.Used = scopes, list(used)
	s.create(rq)
}

func quotaIn(namespace, name, limits string) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.ResourceQuotaSpec{Hard: list(limits)},
	}
}

// use sets status.used, as quota admission does. Like the other things that happen it returns
// the scene.
func (s *scene) use(name, used string) *scene {
	s.t.Helper()
	s.edit("tenant/"+name, func(rq *corev1.ResourceQuota) { rq.Status.Used = list(used) })
	return s
}

// recount makes status.hard spec.hard, as kube-controller-manager does together with the usage.
func (s *scene) recount(used string) *scene {
	s.t.Helper()
	s.edit("tenant/q", func(rq *corev1.ResourceQuota) {
		rq.Status = corev1.ResourceQuotaStatus{Hard: rq.Spec.Hard.DeepCopy(), Used: list(used)}
	})
	return s
}

// write sets spec.hard as its owner does.
func (s *scene) write(name, limits string) {
	s.t.Helper()
	s.edit("tenant/"+name, func(rq *corev1.ResourceQuota) { rq.Spec.Hard = list(limits) })
}

func (s *scene) inFlight(migrations ...quota.Migration) *scene {
	s.t.Helper()
	require.NoError(s.t, s.record.Replace(s.ctx, "tenant", migrations))
	return s
}

// apply expects no error.
func (s *scene) apply() applier.Result {
	s.t.Helper()
	result, err := s.applier.Apply(s.ctx, "tenant")
	require.NoError(s.t, err)
	return result
}

// only applies, and expects that one quota is concerned.
func (s *scene) only() applier.QuotaResult {
	s.t.Helper()
	result := s.apply()
	require.Len(s.t, result.Quotas, 1)
	return result.Quotas[0]
}

// expect applies, and expects what was done to the only quota that is concerned, and its limits then.
func (s *scene) expect(action applier.Action, hard string) {
	s.t.Helper()
	require.Equal(s.t, action, s.only().Action)
	require.Equal(s.t, hard, s.hard("q"))
}

func (s *scene) pass(d time.Duration) *scene {
	s.now = s.now.Add(d)
	return s
}

func (s *scene) quota(name string) *corev1.ResourceQuota {
	s.t.Helper()
	require.Contains(s.t, s.quotas, "tenant/"+name)
	return s.quotas["tenant/"+name].DeepCopy()
}

// hard returns status.hard for comparison.
func (s *scene) hard(name string) string {
	s.t.Helper()
	return amountsOf(s.quota(name).Status.Hard)
}

// requireUntouched expects that the quota is as rq was, but for its usage.
func (s *scene) requireUntouched(rq *corev1.ResourceQuota) {
	s.t.Helper()
	is := s.quota(rq.Name)
	require.Equal(s.t, jsonOf(s.t, rq.Spec), jsonOf(s.t, is.Spec))
	require.Equal(s.t, jsonOf(s.t, rq.Status.Hard), jsonOf(s.t, is.Status.Hard))
	require.Equal(s.t, jsonOf(s.t, rq.ObjectMeta.Annotations), jsonOf(s.t, is.ObjectMeta.Annotations))
}

// Event implements record.EventRecorder.
func (s *scene) Event(_ runtime.Object, kind, reason, message string) {
	s.events = append(s.events, kind+" "+reason+" "+message)
}

// Eventf implements record.EventRecorder.
func (s *scene) Eventf(o runtime.Object, kind, reason, format string, args ...any) {
	s.Event(o, kind, reason, fmt.Sprintf(format, args...))
}

// AnnotatedEventf implements record.EventRecorder.
func (s *scene) AnnotatedEventf(o runtime.Object, _ map[string]string, kind, reason, format string, args ...any) {
	s.Eventf(o, kind, reason, format, args...)
}

// reasons returns the reasons of the events since the last time.
func (s *scene) reasons() []string {
	var reasons []string
	for _, event := range s.events {
		reasons = append(reasons, strings.Fields(event)[1])
	}
	s.events = nil
	return reasons
}

// Wrote implements applier.Metrics.
func (s *scene) Wrote(_, name string, action applier.Action) { s.count("%s %s", action, name) }

// Refused implements applier.Metrics.
func (s *scene) Refused(_, name string) { s.count("Refused %s", name) }

// Taken implements applier.Metrics.
func (s *scene) Taken(_, name string, amount corev1.ResourceList) {
	s.count("Taken %s %s", name, amountsOf(amount))
}

func (s *scene) count(format string, args ...any) {
	s.counts = append(s.counts, fmt.Sprintf(format, args...))
}

// counted returns what was counted since the last time.
func (s *scene) counted() []string {
	counts := s.counts
	s.counts = nil
	return counts
}

// list reads "limits.cpu=2 limits.memory=4Gi".
func list(text string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for _, part := range strings.Fields(text) {
		name, amount, _ := strings.Cut(part, "=")
		l[corev1.ResourceName(name)] = resource.MustParse(amount)
	}
	return l
}

// amountsOf is the reverse of list.
func amountsOf(l corev1.ResourceList) string {
	if len(l) == 0 {
		return ""
	}
	value, err := json.Marshal(l)
	if err != nil {
		return err.Error()
	}
	return strings.NewReplacer(`{`, "", `}`, "", `"`, "", ":", "=", ",", " ").Replace(string(value))
}

func jsonOf(t tb, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	require.NoError(t, err)
	return string(text)
}

func blocked(uid types.UID, surge string) quota.Migration {
	return quota.Migration{UID: uid, VMI: "vm-" + string(uid), State: quota.Blocked, Surge: list(surge)}
}

func charged(uid types.UID, surge string) quota.Migration {
	m := blocked(uid, surge)
	m.State = quota.Charged
	return m
}

func queued(uid types.UID, surge string) quota.Migration {
	m := blocked(uid, surge)
	m.State = quota.Queued
	return m
}

func setAnnotation(rq *corev1.ResourceQuota, key, value string) {
	if rq.Annotations == nil {
		rq.Annotations = map[string]string{}
	}
	rq.Annotations[key] = value
}
