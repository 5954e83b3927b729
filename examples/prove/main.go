// Command prove lets the whole library run through random schedules on simulated clusters, and prints what
// breaks. See the README beside it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/vmquota/headroom/quota/amounts"
)

// Exit codes.
const (
	exitOK     = 0
	exitBroken = 1 // an invariant
	exitUsage  = 2
)

func main() {
	// The library logs every reset and every theft, and here there are many.
	klog.SetLogger(klog.Logger{})
	os.Exit(prove(os.Args[1:], os.Stdout, os.Stderr))
}

// options are the flags.
type options struct {
	seed        uint64
	runs, steps int
	actions     int
	time        time.Duration
	without     string
	verbose     bool
}

func prove(args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("prove", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Uint64Var(&o.seed, "seed", 1, "the seed of the first run; the next one has the next seed")
	flags.IntVar(&o.runs, "runs", 0, "end after so many runs")
	flags.IntVar(&o.steps, "steps", 0, "end after so many steps: actions, and events of the simulated clusters")
	flags.DurationVar(&o.time, "for", 0, "end after so much time")
	flags.IntVar(&o.actions, "actions", 60, "actions of each run")
	flags.StringVar(&o.without, "without", "", "take a mechanism out of the library: "+strings.Join(names(), ", "))
	flags.BoolVar(&o.verbose, "v", false, "print the actions of each run")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	m := whole
	if o.without != "" {
		i := slices.IndexFunc(mutants, func(m mutant) bool { return m.name == o.without })
		if i < 0 || flags.NArg() > 0 {
			fmt.Fprintf(stderr, "there is no %q to take out; there are: %s\n", o.without, strings.Join(names(), ", "))
			return exitUsage
		}
		m = mutants[i]
	}
	if o.runs == 0 && o.steps == 0 && o.time == 0 {
		o.runs = 100
	}
	return o.prove(m, stdout)
}

func (o options) prove(m mutant, stdout io.Writer) int {
	start := time.Now()
	steps, acts, run := 0, 0, 0
	for ; !o.enough(run, steps, time.Since(start)); run++ {
		seed := o.seed + uint64(run)
		r, wrong := o.once(seed, m, stdout)
		steps += r.acts + r.Steps()
		acts += r.acts
		if len(wrong) > 0 {
			fmt.Fprintf(stdout, "BROKEN by seed %d, in run %d after %d steps:\n\n%s\n\nIts actions were:\n  %s\n\nAgain: go -C examples/prove run . -seed %d -runs 1 -actions %d%s\n",
				seed, run+1, steps, strings.Join(wrong, "\n\n"), strings.Join(r.log, "\n  "), seed, o.actions, o.flag())
			return exitBroken
		}
	}
	fmt.Fprintf(stdout, "%d runs, %d steps, of which %d are actions: no invariant was broken (seeds %d to %d, %v)\n",
		run, steps, acts, o.seed, o.seed+uint64(run)-1, time.Since(start).Round(time.Second))
	return exitOK
}

func (o options) flag() string {
	if o.without == "" {
		return ""
	}
	return fmt.Sprintf(" -without %q", o.without)
}

func (o options) enough(runs, steps int, elapsed time.Duration) bool {
	return o.runs > 0 && runs >= o.runs || o.steps > 0 && steps >= o.steps || o.time > 0 && elapsed >= o.time
}

// once is the run of one seed, and what was wrong in it.
func (o options) once(seed uint64, m mutant, stdout io.Writer) (*run, []string) {
	random := rand.New(rand.NewPCG(seed, 0))
	r := newRun(func(_ string, n int) int { return random.IntN(n) }, m)
	if o.verbose {
		fmt.Fprintf(stdout, "seed %d\n", seed)
		r.tell = func(line string) { fmt.Fprintf(stdout, "  %s\n", line) }
	}
	r.act(o.actions)
	if broken := r.broken(); len(broken) > 0 {
		return r, broken
	}
	return r, r.end()
}

func names() []string {
	var all []string
	for _, m := range mutants {
		all = append(all, fmt.Sprintf("%q", m.name))
	}
	return all
}

// list writes limits for people.
func list(limits corev1.ResourceList) string { return amounts.Text(limits, " ") }
