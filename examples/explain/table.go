package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/cli-runtime/pkg/printers"
)

// pageWidth is how wide sentences are printed.
const pageWidth = 100

// table prints e for people.
func (e *Explanation) table(out io.Writer) {
	fmt.Fprintln(out, e.Source.title())
	words := map[string]bool{}
	for _, n := range e.Namespaces {
		n.table(out, words)
	}
	if e.Leader != nil {
		paragraph(out, e.Leader.Why)
	}
	notes(out, e.Notes)
	e.legend(out, words)
}

func (s source) title() string {
	name := strings.Join(s.Files, "")
	if len(s.Files) > 1 {
		name = fmt.Sprintf("%d files", len(s.Files))
	}
	switch {
	case s.Kind == clusterSource:
		return "Cluster " + s.Context
	case s.Kind == filesSource:
		return name
	case s.At == s.End:
		return fmt.Sprintf("%s at its end, %s", name, s.At)
	default:
		return fmt.Sprintf("%s at %s of %s", name, s.At, s.End)
	}
}

// table prints n, and notes the words that the legend has to explain.
func (n namespaceReport) table(out io.Writer, words map[string]bool) {
	fmt.Fprintf(out, "\nNAMESPACE %s\n", n.Name)
	if len(n.Quotas) == 0 {
		fmt.Fprintln(out, "\nNo ResourceQuota: nothing limits its migrations.")
	}
	for _, q := range n.Quotas {
		head := "ResourceQuota " + q.Name
		if len(q.Scopes) > 0 {
			head += " (only " + enumerate(q.Scopes) + ")"
		}
		paragraph(out, head+": "+q.Why)
		fmt.Fprintln(out)
		columns(out, q.rows(words))
	}
	var ended []string
	for _, m := range n.Migrations {
		if m.State == over && m.ended() {
			ended = append(ended, strings.TrimSpace(fmt.Sprintf("%s (%s)", m.Name, m.Phase)))
			continue
		}
		words[m.State], words[m.Decision] = true, true
		m.table(out)
	}
	switch {
	case len(n.Migrations) == 0:
		fmt.Fprintln(out, "\nNo migration is in flight.")
	case len(ended) > 5:
		fmt.Fprintf(out, "\nMigrations that are over and charge nothing twice: %d.\n", len(ended))
	case len(ended) > 0:
		paragraph(out, "Over, and charged no more: "+strings.Join(ended, ", ")+".")
	}
	for _, e := range n.Events {
		paragraph(out, fmt.Sprintf("Event %s on ResourceQuota %s, last at %s: %s", e.Reason, e.Quota, stamp(e.Last.Time), e.Message))
	}
}

// rows are the table of a quota. Status.hard is left out if it says nothing new.
func (q quotaReport) rows(words map[string]bool) [][]string {
	raised := slices.ContainsFunc(q.Resources, func(r resourceReport) bool { return r.Enforced.Cmp(r.Static) != 0 })
	rows := [][]string{{"RESOURCE", "STATIC", "USED", "REGULAR", "TEMPORARY", "AVAILABLE", "ENFORCED", "EFFECTIVE"}}
	for _, r := range q.Resources {
		row, bytes, rounded := []string{string(r.Resource)}, []string{"  in bytes"}, false
		for _, amount := range []resource.Quantity{r.Static, r.Used, r.Regular, r.Temporary, r.Available, r.Enforced, r.Effective} {
			text, inexact := short(r.Resource, amount)
			row, bytes, rounded = append(row, text), append(bytes, exact(amount)), rounded || inexact
		}
		rows = append(rows, row)
		if rounded {
			rows = append(rows, bytes)
		}
	}
	if !raised {
		for i, row := range rows {
			rows[i] = slices.Delete(row, 6, 7)
		}
	}
	for _, title := range rows[0] {
		words[title] = true
	}
	return rows
}

// columns prints rows below each other.
func columns(out io.Writer, rows [][]string) {
	w := printers.GetNewTabWriter(out)
	for _, row := range rows {
		fmt.Fprintln(w, "  "+strings.Join(row, "\t"))
	}
	_ = w.Flush() // out takes everything
}

// notes prints each as a paragraph.
func notes(out io.Writer, notes []string) {
	for _, note := range notes {
		paragraph(out, "Note: "+note)
	}
}

func (m migrationReport) table(out io.Writer) {
	title := "Migration " + m.Name
	if m.Name == "" {
		title = "A deleted migration"
	}
	title += fmt.Sprintf(" of VM %s: %s", m.VMI, m.State)
	if m.Decision == granted || m.Decision == deferred {
		title += ", " + m.Decision
	}
	fmt.Fprintf(out, "\n%s\n", title)
	switch {
	case len(m.Twice) == 0:
	case m.State == charged:
		paragraph(out, "  Charged twice: "+texts(m.Twice)+".")
	default:
		paragraph(out, "  Will be charged twice: "+texts(m.Twice)+".")
	}
	paragraph(out, "  "+m.Why)
}

// legend explains words.
func (e *Explanation) legend(out io.Writer, words map[string]bool) {
	base := "STATIC (or REGULAR if more)"
	if e.Strict {
		base = "STATIC"
	}
	first := true
	for _, entry := range [][2]string{
		{"STATIC", "the limit that the tenant was given: spec.hard"},
		{"USED", "what counts against the quota now: REGULAR + TEMPORARY"},
		{"TEMPORARY", "counts only while VMs migrate: each has two pods then, a source and a target"},
		{"AVAILABLE", "what other workloads may still take: STATIC - REGULAR"},
		{"ENFORCED", "the limit that the API server enforces now: status.hard"},
		{"EFFECTIVE", "what status.hard must be now: " + base + " + surge of the granted"},
		{queued, "KubeVirt has not tried to start the target pod yet"},
		{blocked, "quota refused the target pod"},
		{charged, "source and target count, both"},
		{granted, "its surge is in EFFECTIVE"},
		{deferred, "its surge is not in EFFECTIVE yet"},
	} {
		if !words[entry[0]] {
			continue
		}
		if first {
			fmt.Fprintln(out)
			first = false
		}
		fmt.Fprintf(out, "%-9s  %s\n", entry[0], entry[1])
	}
}

// paragraph prints text, broken at pageWidth and indented as it is, below a blank line if it is not.
func paragraph(out io.Writer, text string) {
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
	if indent == "" {
		fmt.Fprintln(out)
	}
	line := indent
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
			line += word
		case len([]rune(line))+1+len([]rune(word)) > pageWidth:
			fmt.Fprintln(out, line)
			line = indent + word
		default:
			line += " " + word
		}
	}
	fmt.Fprintln(out, line)
}
