// Package ledgertest is the conformance suite for implementations of ledger.Ledger.
// A backend passes it in a test of a few lines:
//
//	func TestLedger(t *testing.T) {
//		ledgertest.Run(t, func(t *testing.T) ledger.Ledger { return memory.New() })
//	}
package ledgertest

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/vmquota/headroom/ledger"
)

// A Counter is a Ledger that tells how many writes to its store it has tried so far,
// those that failed included. It is how the suite sees that nothing was written where
// nothing changed. A backend that has no use for such a method is wrapped in the test, by a
// struct that embeds it and has this method.
type Counter interface {
	Writes() int
}

// Run checks every sentence of the contract of ledger.Ledger on ledgers that open
// returns. Each of them must be empty and apart from the others; open is called some
// hundred times, and cleans up with t.Cleanup. Writes are not counted on a ledger that
// is not a [Counter].
//
// The state machine is a rapid test: its flags, such as -rapid.checks, apply. Run it
// under -race, too.
func Run(t *testing.T, open func(t *testing.T) ledger.Ledger) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if err := c.run(func() ledger.Ledger { return open(t) }); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("StateMachine", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) {
			if err := play(open(t), schedules().Draw(rt, "schedule")); err != nil {
				rt.Fatal(err)
			}
		})
	})
}

// A check is a part of the contract. It returns an error instead of failing a test,
// so that the suite itself can be tested on ledgers that break the contract.
type check struct {
	name string
	run  func(open opener) error
}

// An opener returns a new, empty ledger.
type opener func() ledger.Ledger

var checks = []check{
	{"ReplacesTheWhole", plays(wholes())},
	{"FieldsSurvive", fieldsSurvive},
	{"AnyUID", plays(anyUID())},
	{"DuplicateOnce", duplicateOnce},
	{"ChangesAreSeen", plays(changes())},
	{"WritesNothingWhenEqual", plays(rewrites())},
	{"SharesNothing", sharesNothing},
	{"NamespacesIsolated", plays(namespaces())},
	{"RefusesCalls", refusesCalls},
	{"ConcurrentWriters", concurrentWriters},
}
