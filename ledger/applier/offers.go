package applier

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/quota"
)

const (
	// A pod comes some milliseconds after the write. What loses a race is nudged within
	// offerLife by package migration.
	offerLife = time.Second
	// The pause after a lapse doubles with each, and ends when a migration ends anywhere.
	firstLapsePause = 2 * time.Second
	maxLapsePause   = time.Minute
	// The pause before an offer beyond KubeVirt's limits doubles with each: KubeVirt may be
	// configured for more than was thought.
	firstProbePause = 10 * time.Second
	maxProbePause   = 5 * time.Minute
	// learnPause is how long more migrations than were thought possible must run for the
	// limits to be learned.
	learnPause = time.Second
)

// Parallel is how many migrations KubeVirt runs at the same time
// (parallelMigrationsPerCluster and parallelOutboundMigrationsPerNode of its custom
// resource), and how many of them are made room for at the same time.
type Parallel struct {
	Cluster int // zero: 5, KubeVirt's default
	Node    int // zero: 2, KubeVirt's default
	// Open is for how many target pods that have not come room is open at the same time.
	// Zero means 2: KubeVirt creates one after the other, which takes some tens of
	// milliseconds each, and with one the next would be refused, so that KubeVirt backs off.
	Open int
}

func (p Parallel) orDefault() Parallel {
	return Parallel{Cluster: cmp.Or(max(p.Cluster, 0), 5), Node: cmp.Or(max(p.Node, 0), 2), Open: cmp.Or(max(p.Open, 0), 2)}
}

// Offers are those of one cluster; see the package comment. KubeVirt's limits are learned
// upwards: if more migrations run than were thought possible, that many are possible.
type offers struct {
	mu         sync.Mutex
	parallel   Parallel
	turns      map[turnOf]*turn
	probe      time.Time     // when the next offer beyond the limits may be made; zero: not known yet
	probePause time.Duration // after that one
}

func newOffers(parallel Parallel) *offers {
	return &offers{parallel: parallel.orDefault(), turns: map[turnOf]*turn{}}
}

type turnOf struct {
	namespace string
	uid       types.UID
}

// A turn is where one migration stands.
type turn struct {
	namespace string
	migration quota.Migration // without its lists
	running   time.Time       // since when it takes one of KubeVirt's parallel migrations; zero: it does not
	wants     bool            // it may have a turn
	needsRoom bool            // it does not fit without
	alone     bool            // no two of its namespace at the same time
	open      time.Time       // since when it has an offer; zero: it has none
	probes    bool            // the offer is beyond KubeVirt's limits, as they are known
	lapses    int             // in a row
	lapsed    time.Time       // the last time
	next      time.Time       // no offer before

	waits quota.DeferralReason // for what it waits in the queue; empty: it does not
}

// A standing is where migrations are in the queue: for what each of them waits, which is
// nothing if it has an open offer.
type standing map[types.UID]quota.DeferralReason

func (s standing) open(uid types.UID) bool {
	reason, known := s[uid]
	return known && reason == ""
}

// views returns the views of a namespace, with the standing of its migrations. Again is when
// to call it again (zero: after the next change only), and others are the other namespaces in
// which an offer was made or taken back.
func (o *offers) views(namespace string, s setting, quotas []*corev1.ResourceQuota, m memories) (views []*view, again time.Duration, others []string) {
	views = s.views(quotas, m)
	wants, alone := admit(views)
	now := s.now
	o.mu.Lock()
	defer o.mu.Unlock()
	if ended := o.record(namespace, s.inFlight, wants, alone, now); ended {
		for _, t := range o.turns {
			t.next = time.Time{} // a lapsed one is tried again
		}
	}
	o.lapse(now)
	others = o.make(namespace, now)
	at := standing{}
	for _, m := range s.inFlight {
		t := o.turns[turnOf{namespace, m.UID}]
		if t.waits != "" || !t.open.IsZero() {
			at[m.UID] = t.waits
		}
		switch {
		case !t.open.IsZero():
			again = sooner(again, t.open.Add(offerLife).Sub(now))
		case t.wants && t.next.After(now):
			again = sooner(again, t.next.Sub(now))
		case t.wants && o.probe.After(now):
			again = sooner(again, o.probe.Sub(now))
		}
	}
	for _, v := range views {
		v.standing = at
	}
	return views, again, others
}

// record takes over what namespace looks like now, and reports whether a migration there has
// left KubeVirt's parallel ones. Wants are those that may have a turn, and whether they need
// room; the others that are not charged wait for something else. Alone means one offer at a
// time in this namespace.
func (o *offers) record(namespace string, migrations []quota.Migration, wants map[types.UID]bool, alone bool, now time.Time) (ended bool) {
	gone := map[turnOf]*turn{}
	for of, t := range o.turns {
		if of.namespace == namespace {
			gone[of] = t
		}
	}
	for _, m := range migrations {
		of := turnOf{namespace, m.UID}
		t := gone[of]
		delete(gone, of)
		if t == nil {
			t = &turn{namespace: namespace}
			o.turns[of] = t
		}
		runs, ran := m.State >= quota.Charged && !m.Over, !t.running.IsZero()
		ended = ended || ran && !runs
		t.needsRoom, t.wants = wants[m.UID]
		t.alone, t.running = alone, sinceWhen(t.running, now, runs)
		m.Surge, m.Held, m.Growth, m.Shares = nil, nil, nil, nil
		t.migration = m
		if !t.wants {
			t.open = time.Time{}
		}
		if runs {
			t.lapses, t.lapsed, t.next = 0, time.Time{}, time.Time{}
		}
	}
	for of, t := range gone {
		ended = ended || !t.running.IsZero()
		delete(o.turns, of)
	}
	return ended
}

func (o *offers) lapse(now time.Time) {
	for _, t := range o.turns {
		if end := t.open.Add(offerLife); !t.open.IsZero() && !now.Before(end) {
			t.open, t.lapsed = time.Time{}, end
			t.next = end.Add(doubling(t.lapses, firstLapsePause, maxLapsePause))
			if t.lapses++; t.alone { // its room was taken, which says nothing of KubeVirt
				t.lapses = 0
			}
		}
	}
}

// before orders those that wait: those that never lapsed in KubeVirt's order, then the
// others, the one that lapsed first before. So nobody waits for ever behind migrations that
// KubeVirt does not start, for whatever reason.
func (t *turn) before(other *turn) int {
	return cmp.Or(t.lapsed.Compare(other.lapsed), quota.ByTurn(t.migration, other.migration))
}

// make makes the offers for which KubeVirt has a migration to start, and takes back those for
// which it has none any more, because it has started others. It returns the namespaces other
// than this one in which that changed anything.
func (o *offers) make(namespace string, now time.Time) (others []string) {
	taken := slots{Parallel: o.parallel, leaving: map[string]int{}, open: map[string]int{}}
	var open, waiting []*turn
	for _, t := range o.turns {
		t.waits = ""
		switch {
		case !t.running.IsZero():
			taken.take(t)
		case !t.open.IsZero():
			open = append(open, t)
		case t.wants && !t.next.After(now):
			waiting = append(waiting, t)
		case t.wants:
			t.waits = OfferLapsed
		}
	}
	changed := func(t *turn) {
		if t.namespace != namespace && !slices.Contains(others, t.namespace) {
			others = append(others, t.namespace)
		}
	}
	slices.SortFunc(open, func(a, b *turn) int { return cmp.Or(a.open.Compare(b.open), a.before(b)) })
	for _, t := range open {
		if t.probes || taken.left(t) {
			taken.take(t)
			continue
		}
		t.open = time.Time{}
		changed(t)
	}
	o.learn(now)
	taken.Parallel = o.parallel
	slices.SortFunc(waiting, (*turn).before)
	excluded := 0                 // by KubeVirt's limits, as they are known
	first := int32(math.MinInt32) // the highest priority of those that wait for KubeVirt
	for _, t := range waiting {
		t.probes = !taken.left(t)
		switch {
		case t.probes && t.migration.Priority < first:
			t.waits = Outranked
		case t.probes && taken.running >= taken.Cluster:
			t.waits, first = ParallelInCluster, max(first, t.migration.Priority)
		case t.probes:
			t.waits, first = ParallelFromNode, max(first, t.migration.Priority)
		default:
			t.waits = InTurn
		}
		if t.alone && taken.open[t.namespace] > 0 || t.needsRoom && taken.opened >= o.parallel.Open {
			continue
		}
		if t.probes {
			if !t.needsRoom { // where it fits, KubeVirt starts it without an offer
				continue
			}
			if excluded++; excluded > 1 || !o.mayProbe(now) {
				continue
			}
		}
		t.open, t.waits = now, ""
		taken.take(t)
		changed(t)
	}
	if excluded == 0 {
		o.probe, o.probePause = time.Time{}, 0
	}
	return others
}

// slots are KubeVirt's parallel migrations that are taken, by running migrations and by offers.
type slots struct {
	Parallel
	running int
	leaving map[string]int // by node
	opened  int            // offers of room
	open    map[string]int // offers by namespace
}

// left reports whether KubeVirt could start one more from the node of t.
func (s *slots) left(t *turn) bool {
	node := t.migration.Node
	return s.running < s.Cluster && (node == "" || s.leaving[node] < s.Node)
}

func (s *slots) take(t *turn) {
	s.running++
	s.leaving[t.migration.Node]++
	if t.open.IsZero() {
		return
	}
	s.open[t.namespace]++
	if t.needsRoom {
		s.opened++
	}
}

// learn raises the limits to what is seen to run. What has just begun may be the successor of
// a migration that the caches do not show as over yet.
func (o *offers) learn(now time.Time) {
	running, leaving, before := 0, map[string]int{}, o.parallel
	for _, t := range o.turns {
		if !t.running.IsZero() && now.Sub(t.running) >= learnPause {
			running++
			leaving[t.migration.Node]++
		}
	}
	delete(leaving, "") // not known
	o.parallel.Cluster = max(o.parallel.Cluster, running)
	for _, n := range leaving {
		o.parallel.Node = max(o.parallel.Node, n)
	}
	if o.parallel != before {
		o.probe, o.probePause = time.Time{}, 0
	}
}

// mayProbe reports whether it is time for an offer beyond the limits.
func (o *offers) mayProbe(now time.Time) bool {
	if o.probe.IsZero() {
		o.probe, o.probePause = now.Add(firstProbePause), firstProbePause
		return false
	}
	if now.Before(o.probe) {
		return false
	}
	o.probePause = min(2*o.probePause, maxProbePause)
	o.probe = now.Add(o.probePause)
	return true
}

// with adds uid to set, which may be nil.
func with(uids map[types.UID]bool, uid types.UID) map[types.UID]bool { return set(uids, uid, true) }

// doubling returns first, twice that, and so on for n = 0, 1, ..., up to limit.
func doubling(n int, first, limit time.Duration) time.Duration {
	return min(first<<min(n, 20), limit)
}

// sooner returns the lesser of two times to wait, of which zero is none at all.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
