package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
)

// A film is a recording.
type film struct {
	name   string
	events []recording.Event // at least one
}

// begin and end are when the first event came, and the last.
func (f *film) begin() time.Duration { return slices.MinFunc(f.events, byTime).At }
func (f *film) end() time.Duration   { return slices.MaxFunc(f.events, byTime).At }

func byTime(a, b recording.Event) int { return cmp.Compare(a.At, b.At) }

// namespaces returns those that have a quota or a migration at any time, sorted.
func (f *film) namespaces() []string {
	seen := map[string]bool{}
	for _, e := range f.events {
		switch e.Object.(type) {
		case *corev1.ResourceQuota, *kubevirtv1.VirtualMachineInstanceMigration:
			seen[e.Object.GetNamespace()] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// narrow returns the namespace to show: that of -n, or the only one there is. Empty means all.
func (f *film) narrow(o *options) (string, error) {
	names, asked := f.namespaces(), *o.config.Namespace
	switch {
	case len(names) == 0:
		return "", fmt.Errorf("%s: no ResourceQuota and no VirtualMachineInstanceMigration in it", f.name)
	case asked != "" && !slices.Contains(names, asked):
		return "", fmt.Errorf("%s: nothing of namespace %s in it, but of %s", f.name, asked, enumerate(names))
	case asked == "" && len(names) == 1:
		return names[0], nil
	}
	return asked, nil
}

// replay returns the world at the moment of --at.
func (f *film) replay(o *options) (*world, error) {
	w := newWorld(recordingSource, f.name)
	at := f.end()
	if o.at >= 0 {
		at = o.at
	}
	if at < f.begin() || at > f.end() {
		return nil, fmt.Errorf("%s: --at %s is not in it: it begins at %s and ends at %s", f.name, at, f.begin(), f.end())
	}
	for _, e := range f.events {
		if e.At <= at {
			w.cache.Apply(e)
		}
	}
	w.source.At, w.source.End = at.String(), f.end().String()
	var err error
	w.namespace, err = f.narrow(o)
	return w, err
}
