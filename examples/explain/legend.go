package main

import (
	"fmt"
	"io"
)

// legend explains the words of the tables that were printed.
func (r report) legend(out io.Writer) {
	used := r.vocabulary()
	for i, entry := range r.entries() {
		if !used[entry.word] {
			continue
		}
		if i == 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "%-9s  %s\n", entry.word, entry.meaning)
	}
}

type legendEntry struct{ word, meaning string }

func (r report) entries() []legendEntry {
	base := "STATIC (or REGULAR if more)"
	if r.Policy.Strict {
		base = "STATIC"
	}
	return []legendEntry{
		{"STATIC", "the limit that the tenant was given: spec.hard"},
		{"USED", "what counts against the quota now: REGULAR + TEMPORARY"},
		{"TEMPORARY", "counts only while VMs migrate: each has two pods then, a source and a target"},
		{"AVAILABLE", "what other workloads may still take: STATIC - REGULAR"},
		{enforcedTitle, "the limit that the API server enforces now: status.hard"},
		{"EFFECTIVE", "what status.hard must be now: " + base + " + surge of the granted"},
		{string(queued), "KubeVirt has not tried to start the target pod yet"},
		{string(blocked), "quota refused the target pod"},
		{string(charged), "source and target count, both"},
		{string(granted), "its surge is in EFFECTIVE"},
		{string(deferred), "its surge is not in EFFECTIVE yet"},
	}
}

// vocabulary is the words of the legend that r uses.
func (r report) vocabulary() map[string]bool {
	used := map[string]bool{}
	for _, n := range r.Namespaces {
		for _, q := range n.Quotas {
			for _, c := range q.columns() {
				used[c.title] = true
			}
		}
		for _, m := range n.Migrations {
			used[string(m.State)], used[string(m.Decision)] = true, true
		}
	}
	return used
}
