package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// pageWidth is how wide sentences are printed.
const pageWidth = 100

// table prints r for people.
func (r report) table(out io.Writer) {
	fmt.Fprintln(out, r.Source.title())
	for _, n := range r.Namespaces {
		n.table(out)
	}
	for _, note := range r.Notes {
		fmt.Fprintln(out)
		paragraph(out, "Note: ", note)
	}
	r.legend(out)
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
	case s.At == "":
		return name + ", each at its end"
	case s.At == s.End:
		return fmt.Sprintf("%s at its end, %s", name, s.At)
	case s.End == "":
		return fmt.Sprintf("%s at %s", name, s.At)
	default:
		return fmt.Sprintf("%s at %s of %s", name, s.At, s.End)
	}
}

func (n namespaceReport) table(out io.Writer) {
	fmt.Fprintf(out, "\nNAMESPACE %s\n", n.Name)
	for _, q := range n.Quotas {
		q.table(out)
	}
	if len(n.Quotas) == 0 {
		fmt.Fprintln(out, "\nNo ResourceQuota: nothing limits its migrations.")
	}
	n.migrationTable(out)
}

func (q quotaReport) table(out io.Writer) {
	fmt.Fprintln(out)
	head := "ResourceQuota " + q.Name
	if len(q.Scopes) > 0 {
		head += " (only " + enumerate(q.Scopes) + ")"
	}
	paragraph(out, head+": ", q.Why)
	fmt.Fprintln(out)
	columns := q.columns()
	rows := [][]string{{"RESOURCE"}}
	for _, c := range columns {
		rows[0] = append(rows[0], c.title)
	}
	for _, r := range q.Resources {
		rows = append(rows, r.rows(columns)...)
	}
	align(out, rows)
}

// A column is one amount of every resource.
type column struct {
	title string
	of    func(resourceReport) resource.Quantity
}

const enforcedTitle = "ENFORCED"

// raised tells whether status.hard is anything but the static limits.
func (q quotaReport) raised() bool {
	return slices.ContainsFunc(q.Resources, func(r resourceReport) bool { return r.Enforced.Cmp(r.Static) != 0 })
}

// columns leaves out status.hard if it says nothing new.
func (q quotaReport) columns() []column {
	columns := []column{
		{"STATIC", func(r resourceReport) resource.Quantity { return r.Static }},
		{"USED", func(r resourceReport) resource.Quantity { return r.Used }},
		{"REGULAR", func(r resourceReport) resource.Quantity { return r.Regular }},
		{"TEMPORARY", func(r resourceReport) resource.Quantity { return r.Temporary }},
		{"AVAILABLE", func(r resourceReport) resource.Quantity { return r.Available }},
	}
	if q.raised() {
		columns = append(columns, column{enforcedTitle, func(r resourceReport) resource.Quantity { return r.Enforced }})
	}
	return append(columns, column{"EFFECTIVE", func(r resourceReport) resource.Quantity { return r.Effective }})
}

// rows are one in units that people read, and an exact one if that is rounded.
func (r resourceReport) rows(columns []column) [][]string {
	u := unitOf(r.Resource)
	row, exact, rounded := []string{string(r.Resource)}, []string{"  in bytes"}, false
	for _, c := range columns {
		q := c.of(r)
		_, cut := u.short(q)
		rounded = rounded || cut
		row = append(row, u.cell(q))
		exact = append(exact, plain(q))
	}
	if !rounded {
		return [][]string{row}
	}
	return [][]string{row, exact}
}

// align prints rows in columns: the first to the left, the others to the right.
func align(out io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := fmt.Sprintf("  %-*s", widths[0], row[0])
		for i, cell := range row[1:] {
			line += fmt.Sprintf("  %*s", widths[i+1], cell)
		}
		fmt.Fprintln(out, line)
	}
}

func (n namespaceReport) migrationTable(out io.Writer) {
	var ended []string
	for _, m := range n.Migrations {
		if m.State == over {
			ended = append(ended, m.ended())
			continue
		}
		fmt.Fprintf(out, "\nMigration %s\n", m.title())
		if len(m.limited) > 0 {
			paragraph(out, "  "+m.State.twice()+": ", chargedTwice(m.limited)+".")
		}
		paragraph(out, "  ", m.Why)
	}
	switch {
	case len(ended) > 5:
		fmt.Fprintf(out, "\nMigrations that are over and charge nothing twice: %d.\n", len(ended))
	case len(ended) > 0:
		fmt.Fprintln(out)
		paragraph(out, "Over, and charged no more: ", strings.Join(ended, ", ")+".")
	case len(n.Migrations) == 0:
		fmt.Fprintln(out, "\nNo migration is in flight.")
	}
}

func (m migrationReport) title() string {
	name := m.Name
	if name == "" {
		name = "with UID " + string(m.UID)
	}
	title := fmt.Sprintf("%s of VM %s: %s", name, m.VMI, m.State)
	switch m.Decision {
	case granted, deferred:
		return title + ", " + string(m.Decision)
	default:
		return title
	}
}

func (m migrationReport) ended() string {
	if m.Phase == "" {
		return m.Name
	}
	return fmt.Sprintf("%s (%s)", m.Name, m.Phase)
}

func chargedTwice(list corev1.ResourceList) string {
	var parts []string
	for _, name := range sortedNames(list) {
		part := string(name) + " " + unitOf(name).withUnit(list[name])
		if _, rounded := unitOf(name).short(list[name]); rounded {
			part += " (" + plain(list[name]) + " bytes)"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// paragraph prints head and text, broken at pageWidth and indented as head is.
func paragraph(out io.Writer, head, text string) {
	indent := head[:len(head)-len(strings.TrimLeft(head, " "))]
	line := strings.TrimRight(head, " ")
	for _, word := range strings.Fields(text) {
		switch {
		case strings.TrimSpace(line) == "":
			line = indent + word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > pageWidth:
			fmt.Fprintln(out, line)
			line = indent + word
		default:
			line += " " + word
		}
	}
	fmt.Fprintln(out, line)
}

func (s state) twice() string {
	if s == charged {
		return "Charged twice"
	}
	return "Will be charged twice"
}
