package applier

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

// roomPatience is for how long a migration may stay refused although by the numbers there
// is room for it. What has merely lost a race ends before that, with the first nudge (see
// migration.Nudger). What lasts is asked for more than its surge: a guest that grows, by
// what no ledger knows.
const roomPatience = 5 * time.Second

// watch takes notice, in the memory, of the granted migrations that are refused although
// there is room for them.
func (v *view) watch() {
	before := v.memory.refused
	v.memory.refused = nil
	d := v.decide(v.rq.Status.Used)
	if v.raise != nil || !v.fits(v.claimed(d), v.rq.Spec.Hard) {
		return
	}
	for i := range v.migrations {
		m := &v.migrations[i]
		if !v.waits(m) || !contains(d.Granted, m.UID) {
			continue
		}
		since, known := before[m.UID]
		if !known {
			since = v.now
		}
		if v.memory.refused == nil {
			v.memory.refused = map[types.UID]time.Time{}
		}
		v.memory.refused[m.UID] = since
	}
}

// suffices reports whether what d grants, of which c is the claim, is left to the limits
// as they are.
func (v *view) suffices(d quota.Decision, c claim) bool {
	if v.raise != nil || !v.fits(c, v.rq.Spec.Hard) {
		return false
	}
	for i := range v.migrations {
		if m := &v.migrations[i]; v.doubts(m) && contains(d.Granted, m.UID) {
			return false
		}
	}
	return true
}

// doubts reports whether m has been refused for too long for the room that there seems to
// be for it.
func (v *view) doubts(m *quota.Migration) bool {
	since, refused := v.memory.refused[m.UID]
	return refused && v.raise == nil && v.waits(m) && v.now.Sub(since) >= roomPatience
}

// waits reports whether m is without its target pod, and quota has refused it, or may
// have: of a charged one it is not recorded.
func (v *view) waits(m *quota.Migration) bool {
	if m.State == quota.Blocked {
		return true
	}
	if m.State < quota.Blocked || m.Held == nil {
		return false
	}
	for name := range v.static {
		surge, held := m.Surge[name], m.Held[name]
		if surge.Sign() > 0 && held.Sign() <= 0 {
			return true // a claim is there, and no pod
		}
	}
	return false
}

// doubtAgain returns when to look again for what is refused, zero if for nothing.
func (m *memory) doubtAgain(now time.Time) time.Duration {
	var again time.Duration
	for _, since := range m.refused {
		again = sooner(again, max(since.Add(roomPatience).Sub(now), 0))
	}
	return again
}
