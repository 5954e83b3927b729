package configmap

// PausesAfterConflicts is for tests that cannot wait.
var PausesAfterConflicts = &pausesAfterConflicts

// Remembered returns of how many namespaces the ledger knows more than its cache shows.
func (l *Ledger) Remembered() int { return len(l.cache.latest) }

// Waiting returns how many have a turn for namespace, or wait for one.
func (l *Ledger) Waiting(namespace string) int {
	l.turns.mu.Lock()
	defer l.turns.mu.Unlock()
	if mine := l.turns.byNamespace[namespace]; mine != nil {
		return mine.users
	}
	return 0
}
