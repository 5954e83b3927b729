package faults

import (
	"context"
	_ "embed" // for the gate
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/migration"
)

//go:embed gate.yaml
var gatePolicy []byte

// gate is the ConfigMap that opens and closes the gate.
const gate = "gate"

// backingOff is for how long quota refuses a migration before its room comes. KubeVirt has
// then tried for the eleventh time, 5.1 s after the first, and would try again 5.1 s later.
const backingOff = 5500 * time.Millisecond

// behind is how long quota admission's cache seems to be behind status.hard: KubeVirt is
// woken by status.hard at once, tries, and is refused.
const behind = 20 * time.Millisecond

// A RaceReport is what came of [Races].
type RaceReport struct {
	// Waits are from the moment in which there was room for a target pod, and KubeVirt
	// slept, to the moment in which the pod was let in, in ascending order.
	Waits []time.Duration
	// Nudged is how many of them were ended by a nudge. The others KubeVirt ended by
	// itself: it also wakes when any other migration ends.
	Nudged int
	// Slow tells what happened in those that took longer than promised.
	Slow []string
}

// promised is within what time the pod is to be let in.
const promised = 2 * time.Second

func (r RaceReport) String() string {
	text := fmt.Sprintf("%d lost races, %d of them ended by a nudge; from there being room to the pod: p50 %v, p90 %v, max %v; %d took longer than %v",
		len(r.Waits), r.Nudged, Percentile(r.Waits, 50), Percentile(r.Waits, 90), Percentile(r.Waits, 100), len(r.Slow), promised)
	for _, slow := range r.Slow {
		text += "\n  " + slow
	}
	return text
}

// Races lets KubeVirt lose the race after a raise, so often, with as many virtual machines
// at a time: its tries are refused in quota's words until status.hard has room, and for a
// moment longer, as by quota admission whose cache is behind. Then nothing wakes it. The
// stage has the library.
func Races(ctx context.Context, stage *onbed.Stage, races, abreast int) (RaceReport, error) {
	if err := install(ctx, stage, gatePolicy); err != nil {
		return RaceReport{}, err
	}
	todo := make(chan int, races)
	for i := range races {
		todo <- i + 1
	}
	close(todo)
	// By its own limits KubeVirt would not try, however often it is woken.
	if err := stage.Configure(ctx, onbed.Crowded); err != nil {
		return RaceReport{}, err
	}
	reports, failed := make([]RaceReport, abreast), make([]error, abreast)
	var group sync.WaitGroup
	for i := range abreast {
		group.Go(func() { reports[i], failed[i] = racesOf(ctx, stage, todo) })
	}
	group.Wait()
	var all RaceReport
	for _, r := range reports {
		all.Waits = append(all.Waits, r.Waits...)
		all.Nudged += r.Nudged
		all.Slow = append(all.Slow, r.Slow...)
	}
	slices.Sort(all.Waits)
	slices.Sort(all.Slow)
	return all, errors.Join(append(failed, stage.Configure(ctx, onbed.Alone))...)
}

// racesOf provokes races one after the other.
func racesOf(ctx context.Context, stage *onbed.Stage, todo <-chan int) (RaceReport, error) {
	f, err := stage.Fleet(ctx, "race", 1)
	if err != nil {
		return RaceReport{}, err
	}
	if err := createGate(ctx, stage, f, true); err != nil {
		return RaceReport{}, err
	}
	opened := map[string]time.Time{}
	for i := range todo {
		name := fmt.Sprintf("m%d", i)
		if opened[name], err = lose(ctx, stage, f, name); err != nil {
			return RaceReport{}, fmt.Errorf("race %d: %w", i, err)
		}
	}
	report, err := readRaces(f, opened)
	return report, errors.Join(err, f.Close(ctx))
}

// lose provokes one lost race and waits until the migration is over. It returns when the
// gate was opened.
func lose(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet, name string) (time.Time, error) {
	if err := setGate(ctx, stage, f, true); err != nil {
		return time.Time{}, err
	}
	if err := setSwitch(ctx, stage, f, true); err != nil {
		return time.Time{}, err
	}
	if err := f.CreateMigration(ctx, scenario.Migrate{Name: name, VM: f.VMs[0]}); err != nil {
		return time.Time{}, err
	}
	if err := wait(ctx, backingOff); err != nil {
		return time.Time{}, err
	}
	if err := setSwitch(ctx, stage, f, false); err != nil {
		return time.Time{}, err
	}
	err := f.Await(ctx, "the raise is enforced", func(s scenario.State) bool {
		return s.Raised(onbed.FleetQuota)
	})
	if err != nil {
		return time.Time{}, err
	}
	if err := wait(ctx, behind); err != nil {
		return time.Time{}, err
	}
	opened := time.Now()
	if err := setGate(ctx, stage, f, false); err != nil {
		return time.Time{}, err
	}
	done := f.Await(ctx, "the migration has succeeded", func(s scenario.State) bool { return s.Phase(name) == string(kubevirtv1.MigrationSucceeded) })
	return opened, errors.Join(done, f.AwaitRest(ctx))
}

func createGate(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet, closed bool) error {
	state := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: gate}, Data: map[string]string{"closed": fmt.Sprint(closed)}}
	_, err := stage.Client.CoreV1().ConfigMaps(f.Namespace()).Create(ctx, state, metav1.CreateOptions{})
	return err
}

func setGate(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet, closed bool) error {
	maps := stage.Client.CoreV1().ConfigMaps(f.Namespace())
	state, err := maps.Get(ctx, gate, metav1.GetOptions{})
	if err != nil {
		return err
	}
	state.Data["closed"] = fmt.Sprint(closed)
	_, err = maps.Update(ctx, state, metav1.UpdateOptions{})
	return err
}

// setSwitch turns the kill switch of the quota on or off.
func setSwitch(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet, on bool) error {
	value := any(nil)
	if on {
		value = "true"
	}
	return annotate(ctx, stage, f, applier.DisabledAnnotation, value)
}

// readRaces finds in the audit log how the races ended.
func readRaces(f *onbed.Fleet, opened map[string]time.Time) (RaceReport, error) {
	events, err := f.Audit()
	if err != nil {
		return RaceReport{}, err
	}
	var report RaceReport
	for name, from := range opened {
		r := readRace(events, name, from)
		if r.admitted.IsZero() {
			return report, fmt.Errorf("the audit log does not have the target pod of %s", name)
		}
		if r.nudged {
			report.Nudged++
		}
		took := r.admitted.Sub(from)
		report.Waits = append(report.Waits, took)
		if took > promised {
			report.Slow = append(report.Slow, fmt.Sprintf("%s of %s, since there was room: %s", name, f.Namespace(), strings.Join(r.story, "; ")))
		}
	}
	return report, nil
}

// A race is what the audit log tells of one.
type race struct {
	nudged   bool // after there was room
	admitted time.Time
	story    []string
}

// readRace finds the race of a migration, for whose pod there is room since from.
func readRace(events []bed.AuditEvent, name string, from time.Time) race {
	var r race
	for _, e := range events {
		what := ""
		switch {
		case !r.admitted.IsZero() || e.Received.Before(from.Add(-promised)):
			continue
		case e.Resource == "virtualmachineinstancemigrations" && e.Name == name && e.User == onbed.User &&
			strings.Contains(string(e.RequestObject), migration.NudgedAnnotation):
			what = "nudged"
			r.nudged = r.nudged || !e.Received.Before(from)
		case onbed.Wrote(e):
			what = "quota written"
		case !isTarget(e, name):
			continue
		case e.Code == 201:
			what, r.admitted = "let in", e.Answered
		default:
			what = "refused"
		}
		r.story = append(r.story, fmt.Sprintf("%s at %.2f s, asked %.2f s before", what, e.Answered.Sub(from).Seconds(), e.Answered.Sub(e.Received).Seconds()))
	}
	return r
}

// isTarget reports whether e is a try to create the target pod of a migration.
func isTarget(e bed.AuditEvent, name string) bool {
	if e.Verb != "create" || e.Resource != "pods" || e.Subresource != "" {
		return false
	}
	var pod corev1.Pod
	return json.Unmarshal(e.RequestObject, &pod) == nil && pod.Annotations[kubevirtv1.MigrationJobNameAnnotation] == name
}

// Percentile returns the p-th percentile of sorted durations, in milliseconds; zero of none.
func Percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*p/100].Round(time.Millisecond)
}
