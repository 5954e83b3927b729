package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// errRefused says that quota would refuse a migration.
var errRefused = errors.New("quota would refuse a migration")

// A Forecast says which migrations the quotas would refuse if every running VM had to migrate, at
// most parallel of them at the same time, and nobody made room. It is what -o json and -o yaml
// print. Amounts are quantities of Kubernetes, in the units of the quota.
type Forecast struct {
	metav1.TypeMeta `json:",inline"`

	Source     source              `json:"source"`
	Parallel   int                 `json:"parallel"`
	Overhead   resource.Quantity   `json:"overhead"` // what an upgrade adds to the memory of each target
	Refused    int                 `json:"refused"`  // how many migrations at least one quota would refuse
	Namespaces []namespaceForecast `json:"namespaces"`
	Notes      []string            `json:"notes"`
}

type namespaceForecast struct {
	Name   string          `json:"name"`
	VMs    []vmForecast    `json:"vms"`
	Quotas []quotaForecast `json:"quotas"`
}

type vmForecast struct {
	Name string `json:"name"`
	// State is queued, blocked or charged, as in an Explanation, or fixed: it cannot migrate.
	State   string              `json:"state"`
	Why     string              `json:"why"`                    // a sentence; empty if a migration is possible
	Twice   corev1.ResourceList `json:"chargedTwice,omitempty"` // by its migration
	Refused []refusalForecast   `json:"refused,omitempty"`
}

// fixed is the state of a VM that cannot live-migrate.
const fixed = "fixed"

// A refusalForecast says what is missing in a quota, at worst. A resource of which nothing is
// missing is absent.
type refusalForecast struct {
	Quota           string              `json:"quota"`
	Missing         corev1.ResourceList `json:"missing,omitempty"` // if VMs migrate one at a time
	MissingParallel corev1.ResourceList `json:"missingParallel"`   // if parallel VMs migrate at the same time
}

// A quotaForecast has the static limits, and those at which no migration would be refused.
type quotaForecast struct {
	Name           string              `json:"name"`
	Static         corev1.ResourceList `json:"static"` // spec.hard
	Used           corev1.ResourceList `json:"used"`
	Enough         corev1.ResourceList `json:"enough"`         // if VMs migrate one at a time
	EnoughParallel corev1.ResourceList `json:"enoughParallel"` // if parallel VMs migrate at the same time
}

// forecast prints the forecast.
func (o *options) forecast(ctx context.Context) error {
	if o.parallel < 1 {
		return fmt.Errorf("--parallel: %d is less than 1", o.parallel)
	}
	w, err := o.read(ctx)
	if err != nil {
		return err
	}
	f := &Forecast{
		TypeMeta: metav1.TypeMeta{APIVersion: apiVersion, Kind: "Forecast"},
		Source:   w.source, Parallel: o.parallel, Overhead: o.overhead.Quantity,
		Namespaces: []namespaceForecast{}, Notes: append([]string{}, w.notes...),
	}
	for _, t := range w.tenants() {
		n := o.foretell(t)
		f.Namespaces = append(f.Namespaces, n)
		f.Refused += n.refused()
	}
	if err := o.write(w, f, f.table); err != nil {
		return err
	}
	if f.Refused > 0 {
		return errRefused
	}
	return nil
}

// foretell returns the forecast for one namespace.
func (o *options) foretell(t tenant) namespaceForecast {
	n := namespaceForecast{Name: t.name, VMs: []vmForecast{}, Quotas: []quotaForecast{}}
	all := migration.IfAllMigrated(t.snapshot, o.overhead.Quantity)
	refused := map[types.UID][]refusalForecast{}
	for _, rq := range t.quotas {
		under := quota.Under(rq, all)
		one := quota.Foresee(rq.Spec.Hard, under, rq.Status.Used, 1)
		several := quota.Foresee(rq.Spec.Hard, under, rq.Status.Used, o.parallel)
		n.Quotas = append(n.Quotas, quotaForecast{
			Name: rq.Name, Static: rq.Spec.Hard, Used: rq.Status.Used, Enough: one.Enough, EnoughParallel: several.Enough,
		})
		for uid, missing := range several.Refused {
			refused[uid] = append(refused[uid], refusalForecast{Quota: rq.Name, Missing: one.Refused[uid], MissingParallel: missing})
		}
	}
	byVMI := map[string]quota.Migration{}
	for _, m := range all {
		byVMI[m.VMI] = m
	}
	for _, vmi := range t.snapshot.VMIs {
		m, ok := byVMI[vmi.Name]
		vm := vmForecast{Name: vmi.Name, State: strings.ToLower(m.State.String()), Twice: m.Surge, Refused: refused[m.UID]}
		switch {
		case !ok && vmi.IsRunning():
			vm.State, vm.Why = fixed, whyFixed(vmi)
		case !ok:
			continue // it does not run
		case m.State == quota.Charged:
			vm.Why = "It migrates already."
		}
		n.VMs = append(n.VMs, vm)
	}
	return n
}

// whyFixed says in KubeVirt's words why vmi cannot live-migrate.
func whyFixed(vmi *kubevirtv1.VirtualMachineInstance) string {
	for _, c := range vmi.Status.Conditions {
		if c.Type == kubevirtv1.VirtualMachineInstanceIsMigratable && c.Status == corev1.ConditionFalse {
			return fmt.Sprintf("It cannot live-migrate (%s): %s.", c.Reason, strings.TrimSuffix(c.Message, "."))
		}
	}
	return "Nothing of it would be charged twice."
}

// refused counts the migrations that a quota would refuse.
func (n namespaceForecast) refused() int {
	count := 0
	for _, vm := range n.VMs {
		if len(vm.Refused) > 0 {
			count++
		}
	}
	return count
}

// table prints f for people.
func (f *Forecast) table(out io.Writer) {
	fmt.Fprintf(out, "%s, if every VM migrated and nobody made room\n", f.Source.title())
	for _, n := range f.Namespaces {
		n.table(out, f.Parallel)
	}
	notes(out, f.Notes)
}

func (n namespaceForecast) table(out io.Writer, parallel int) {
	fmt.Fprintf(out, "\nNAMESPACE %s: quota would refuse %d of %d VMs\n", n.Name, n.refused(), len(n.VMs))
	last := fmt.Sprintf("%d AT A TIME", parallel)
	rows := [][]string{{"VM", "QUOTA", "RESOURCE", "CHARGED TWICE", "ONE AT A TIME", last}}
	for _, vm := range n.VMs {
		for _, r := range vm.Refused {
			for _, name := range amounts.Names(r.MissingParallel) {
				rows = append(rows, []string{vm.Name, r.Quota, string(name), cell(name, vm.Twice), cell(name, r.Missing), cell(name, r.MissingParallel)})
			}
		}
	}
	section(out, "Missing in the static limits, at worst:", rows, parallel)
	for _, vm := range n.VMs {
		if vm.Why != "" {
			paragraph(out, "VM "+vm.Name+": "+vm.Why)
		}
	}
	rows = [][]string{{"QUOTA", "RESOURCE", "STATIC", "USED", "ONE AT A TIME", last}}
	for _, q := range n.Quotas {
		for _, name := range amounts.Names(q.Static) {
			rows = append(rows, []string{q.Name, string(name), cell(name, q.Static), cell(name, q.Used), cell(name, q.Enough), cell(name, q.EnoughParallel)})
		}
	}
	section(out, "Static limits at which quota would refuse none of them:", rows, parallel)
	if len(n.Quotas) == 0 {
		fmt.Fprintln(out, "\nNo ResourceQuota: nothing limits its migrations.")
	}
}

// section prints rows, if there are any below the first. If VMs migrate one at a time, the last
// column is the one before it, and left out.
func section(out io.Writer, title string, rows [][]string, parallel int) {
	if len(rows) == 1 {
		return
	}
	if parallel == 1 {
		for i, row := range rows {
			rows[i] = row[:len(row)-1]
		}
	}
	fmt.Fprintf(out, "\n%s\n\n", title)
	columns(out, rows)
}

func cell(name corev1.ResourceName, list corev1.ResourceList) string {
	text, _ := short(name, list[name])
	return text
}
