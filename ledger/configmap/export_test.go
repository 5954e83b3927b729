package configmap

// PausesAfterConflicts is for tests that cannot wait.
var PausesAfterConflicts = &pausesAfterConflicts

// Remembered returns of how many namespaces the ledger knows more than its cache shows.
func (l *Ledger) Remembered() int { return len(l.cache.latest) }
