package memory_test

import (
	"testing"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/ledgertest"
	"github.com/vmquota/headroom/ledger/memory"
)

func TestLedger(t *testing.T) {
	ledgertest.Run(t, func(*testing.T) ledger.Ledger { return memory.New() })
}
