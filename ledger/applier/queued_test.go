package applier_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// queuedOf returns "uid reason missing" of each migration that waits, and "uid offered".
func queuedOf(q applier.QuotaResult) (all []string) {
	for _, uid := range q.Offered {
		all = append(all, string(uid)+" offered")
	}
	for _, d := range q.Queued {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", d.UID, d.Reason, amountsOf(d.Missing))))
	}
	return all
}

// What migrations wait for that are not deferred.
func TestQueued(t *testing.T) {
	from := func(m quota.Migration, node string, priority int32) quota.Migration {
		m.Node, m.Priority = node, priority
		return m
	}
	running := func(uid types.UID) quota.Migration { return from(charged(uid, "pods=1"), "n1", 0) }
	tiny := queued("b", "limits.cpu=0 pods=1") // which fits
	for name, test := range map[string]struct {
		parallel applier.Parallel
		inFlight []quota.Migration
		then     func(s *scene)
		want     []string
	}{
		"room is made for others": {inFlight: []quota.Migration{blocked("a", "limits.cpu=1"), blocked("b", "limits.cpu=1"), blocked("c", "limits.cpu=2")}, want: []string{"a offered", "b offered", "c InTurn limits.cpu=2"}},
		"the cluster":             {parallel: applier.Parallel{Cluster: 1}, inFlight: []quota.Migration{running("a"), tiny, blocked("c", "limits.cpu=2")}, want: []string{"b ParallelInCluster", "c ParallelInCluster limits.cpu=2"}},
		"the node": {
			parallel: applier.Parallel{Node: 1},
			inFlight: []quota.Migration{running("a"), from(blocked("b", "limits.cpu=1"), "n1", 0), from(blocked("c", "limits.cpu=1"), "n2", 0)},
			want:     []string{"c offered", "b ParallelFromNode limits.cpu=1"},
		},
		"priority": {
			parallel: applier.Parallel{Cluster: 1},
			inFlight: []quota.Migration{running("a"), from(blocked("b", "limits.cpu=1"), "n2", 0), from(blocked("c", "limits.cpu=1"), "n2", 50)},
			want:     []string{"b Outranked limits.cpu=1", "c ParallelInCluster limits.cpu=1"},
		},
		"it lapsed":              {inFlight: []quota.Migration{blocked("a", "limits.cpu=1")}, then: func(s *scene) { s.pass(time.Second) }, want: []string{"a OfferLapsed limits.cpu=1"}},
		"another of the same VM": {inFlight: []quota.Migration{blocked("a", "limits.cpu=1"), {UID: "b", VMI: "vm-a", Surge: list("limits.cpu=1")}}, want: []string{"a offered", "b Behind limits.cpu=1"}},
		"a claim that another of the same VM has left": {inFlight: []quota.Migration{
			blocked("a", "limits.cpu=1"),
			{UID: "b", VMI: "vm-a", State: quota.Charged, Over: true, Surge: list("requests.storage=1Gi"), Shares: []quota.Share{
				{Traits: quota.Traits{Claim: true}, Surge: list("requests.storage=1Gi")},
			}},
		}, want: []string{"a offered"}},
		"it is deferred": {inFlight: []quota.Migration{blocked("a", "limits.cpu=1")}, then: func(s *scene) { s.policy.Budget = list("limits.cpu=500m"); s.pass(time.Second); s.apply() }},
	} {
		t.Run(name, func(t *testing.T) {
			s := sceneOf(t, "limits.cpu=4 pods=9", "limits.cpu=4 pods=4")
			s.restart(func(c *applier.Config) { c.Parallel = test.parallel })
			s.inFlight(test.inFlight...)
			q := s.only()
			if test.then != nil {
				test.then(s)
				q = s.only()
			}
			require.Equal(t, test.want, queuedOf(q))
			for _, d := range q.Queued {
				require.NotEqual(t, string(d.Reason), applier.Sentence(d, quota.Migration{}), "a person reads that")
			}
		})
	}
}
