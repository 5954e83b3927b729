package configmap_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/informers"
	k8stesting "k8s.io/client-go/testing"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/ledgertest"
)

// counted tells the suite how many writes it made.
type counted struct {
	*configmap.Ledger
	server *server
}

func (c counted) Writes() int { return c.server.writes() }

func TestLedger(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T) ledger.Ledger {
		s := newServer(t)
		return counted{configmap.New(s.CoreV1(), system), s}
	})
}

// TestLedgerWithCache runs the suite on caches of all ages.
func TestLedgerWithCache(t *testing.T) {
	t.Run("of client-go", func(t *testing.T) {
		ledgertest.Run(t, func(t *testing.T) ledger.Ledger {
			s := newServer(t)
			return counted{configmap.New(s.CoreV1(), system, configmap.WithInformer(startInformer(t, s))), s}
		})
	})
	for name, lag := range map[string]func(t *testing.T, s *server, i *informer){
		"one write behind": func(t *testing.T, s *server, i *informer) {
			s.fault = func(action k8stesting.Action) (before, after error) {
				if action.GetVerb() != "get" {
					i.sync(t)
				}
				return nil, nil
			}
		},
		"of every third write": func(t *testing.T, s *server, i *informer) {
			n := 0
			s.changed = func() {
				if n++; n%3 == 0 {
					i.sync(t)
				}
			}
		},
		"that is stuck": func(*testing.T, *server, *informer) {},
		"not synced":    func(_ *testing.T, _ *server, i *informer) { i.synced = false },
	} {
		t.Run(name, func(t *testing.T) {
			ledgertest.Run(t, func(t *testing.T) ledger.Ledger {
				s := newServer(t)
				i := newInformer(s)
				lag(t, s, i)
				return counted{configmap.New(s.CoreV1(), system, configmap.WithInformer(i)), s}
			})
		})
	}
}

func startInformer(t *testing.T, s *server) configmap.Informer {
	factory := informers.NewSharedInformerFactoryWithOptions(s, 0,
		informers.WithNamespace(system), informers.WithTweakListOptions(configmap.Select))
	i := factory.Core().V1().ConfigMaps().Informer()
	stop := make(chan struct{})
	factory.Start(stop)
	t.Cleanup(func() {
		close(stop)
		factory.Shutdown()
	})
	// The fake's watch misses what is written before it starts.
	watching := func(action k8stesting.Action) bool { return action.GetVerb() == "watch" }
	require.Eventually(t, func() bool {
		return i.HasSynced() && slices.ContainsFunc(s.Actions(), watching)
	}, time.Minute, time.Millisecond)
	s.ClearActions()
	return i
}
