package main

import (
	"errors"

	"github.com/vmquota/headroom/ledger/applier"
)

// trouble says why a quota is not as it should be; empty: it is.
func trouble(q applier.QuotaResult) string {
	switch {
	case errors.Is(q.Err, applier.ErrForbidden):
		return "forbidden"
	case errors.Is(q.Err, applier.ErrUnreadable):
		return "unreadable"
	case q.Err != nil:
		return "failed"
	case q.Resets > 0:
		return "reset"
	default:
		return ""
	}
}
