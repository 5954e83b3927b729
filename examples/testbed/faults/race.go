package faults

import (
	_ "embed" // for the rights
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/measure"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/migration"
)

//go:embed gate.yaml
var gatePolicy []byte

// backingOff is for how long quota refuses a migration before its room comes. KubeVirt has
// then tried for the eleventh time, 5.1 s after the first, and would try again 5.1 s later.
const backingOff = 5500 * time.Millisecond

// behind is how long quota admission's cache seems to be behind status.hard: KubeVirt is
// woken by status.hard at once, tries, and is refused.
const behind = 20 * time.Millisecond

// promised is within what time from when there is room the pod is to be let in.
const promised = 2 * time.Second

// races lets KubeVirt lose the race after a raise, so often, with as many virtual machines
// at a time: its tries are refused in quota's words until status.hard has room, and for a
// moment longer, as by quota admission whose cache is behind. Then nothing wakes it.
func races(t try.T, s *onbed.Stage, o Options) string {
	s.Bed.Create(t, gatePolicy)
	todo := make(chan string, o.Races)
	for i := range o.Races {
		todo <- fmt.Sprint("m", i)
	}
	close(todo)
	// By its own limits KubeVirt would not try, however often it is woken.
	s.Configure(t, onbed.Crowded)
	var mu sync.Mutex
	var waits []time.Duration
	var slow []string
	nudged := 0
	var ended []func()
	for range o.Abreast {
		ended = append(ended, try.Go(t, func(t try.T) {
			f := s.Fleet(t, "race", 1, onbed.FleetOptions{})
			opened := map[string]time.Time{}
			for name := range todo {
				opened[name] = lose(t, f, name)
			}
			events := f.Audit()
			mu.Lock()
			defer mu.Unlock()
			for name, from := range opened {
				admitted, byNudge := readRace(events, name, from)
				require.NotZero(t, admitted, "the audit log does not have the target pod of %s", name)
				took := admitted.Sub(from)
				waits = append(waits, took)
				if byNudge {
					nudged++
				}
				if took > promised {
					slow = append(slow, fmt.Sprintf("\n %s of %s, since there was room:%s", name, f.Namespace(), onbed.Timeline(events, from, from.Add(-promised), admitted)))
				}
			}
		}))
	}
	for _, wait := range ended {
		wait()
	}
	s.Configure(t, onbed.Alone)
	require.Len(t, waits, o.Races)
	require.True(t, o.Abreast > 1 || nudged > 0, "no race was ended by a nudge")
	slices.Sort(waits)
	slices.Sort(slow)
	rounded := func(p int) time.Duration { return measure.Percentile(waits, p).Round(time.Millisecond) }
	return fmt.Sprintf("%d lost races, %d of them ended by a nudge; from there being room to the pod: p50 %v, p90 %v, max %v; %d took longer than %v%s",
		len(waits), nudged, rounded(50), rounded(90), rounded(100), len(slow), promised, strings.Join(slow, ""))
}

// lose provokes one lost race and waits until the migration is over. It returns when the
// gate was opened.
func lose(t try.T, f *onbed.Fleet, name string) time.Time {
	setGate(t, f, true)
	f.Disable(true)
	f.CreateMigration(scenario.Migrate{Name: name, VM: f.VMs[0]})
	try.Sleep(t, backingOff)
	f.Disable(false)
	f.Raised()
	try.Sleep(t, behind)
	opened := time.Now()
	setGate(t, f, false)
	f.Succeeded(name)
	f.AwaitRest()
	return opened
}

// setGate closes or opens the gate, by a ConfigMap of that name.
func setGate(t try.T, f *onbed.Fleet, closed bool) {
	maps := f.Client().CoreV1().ConfigMaps(f.Namespace())
	state := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "gate"}, Data: map[string]string{"closed": fmt.Sprint(closed)}}
	_, err := maps.Update(t.Context(), state, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = maps.Create(t.Context(), state, metav1.CreateOptions{})
	}
	require.NoError(t, err)
}

// readRace finds out when the target pod of a migration was let in, for which there is room since
// from, and whether a nudge came before. If not, KubeVirt woke because another migration ended.
func readRace(events []bed.AuditEvent, name string, from time.Time) (admitted time.Time, nudged bool) {
	for _, e := range events {
		switch {
		case e.Received.Before(from):
		case e.Name == name && e.User == onbed.User && strings.Contains(string(e.RequestObject), migration.NudgedAnnotation):
			nudged = true
		case onbed.TargetOf(e) == name && e.Code == 201:
			return e.Answered, nudged
		}
	}
	return time.Time{}, nudged
}
