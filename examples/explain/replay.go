package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
)

// replayAll plays the recordings up to the moment at (nil: to their ends). No two
// of them may be of the same namespace.
func replayAll(recordings []namedRecording, at *time.Duration) (scene, error) {
	s := scene{source: source{Kind: recordingSource}}
	from := map[string]string{}
	for _, rec := range recordings {
		if err := rec.check(at); err != nil {
			return scene{}, err
		}
		var cache recording.Cache
		for _, e := range rec.events {
			if at == nil || e.At <= *at {
				cache.Apply(e)
			}
		}
		for _, namespace := range rec.namespaces() {
			if other, ok := from[namespace]; ok {
				return scene{}, fmt.Errorf("%s: it shows namespace %s, as %s does", rec.name, namespace, other)
			}
			from[namespace] = rec.name
			s.tenants = append(s.tenants, newTenant(namespace, &cache))
		}
		s.source.Files = append(s.source.Files, rec.name)
	}
	slices.SortFunc(s.tenants, func(a, b tenant) int { return strings.Compare(a.name, b.name) })
	if at != nil {
		s.source.At = at.String()
	}
	if len(recordings) == 1 {
		s.source.End = recordings[0].end().String()
		if at == nil {
			s.source.At = s.source.End
		}
	}
	return s, nil
}

// check tells whether the recording can be shown at the moment at.
func (r namedRecording) check(at *time.Duration) error {
	if at != nil {
		switch begin, end := r.begin(), r.end(); {
		case *at < begin:
			return fmt.Errorf("%s: --at %s is before it begins, at %s", r.name, *at, begin)
		case *at > end:
			return fmt.Errorf("%s: --at %s is after it ends, at %s", r.name, *at, end)
		}
	}
	vmis := map[string]bool{}
	for _, e := range r.events {
		if vmi, ok := e.Object.(*kubevirtv1.VirtualMachineInstance); ok {
			vmis[vmi.Namespace+"/"+vmi.Name] = true
		}
	}
	for _, e := range r.events {
		m, ok := e.Object.(*kubevirtv1.VirtualMachineInstanceMigration)
		if ok && !m.IsFinal() && !vmis[m.Namespace+"/"+m.Spec.VMIName] {
			return fmt.Errorf("%s: at %s: VirtualMachineInstanceMigration %s/%s: its VirtualMachineInstance %q is not in the recording",
				r.name, e.At, m.Namespace, m.Name, m.Spec.VMIName)
		}
	}
	return nil
}

// namespaces returns those that have a quota or a migration at any time, sorted.
func (r namedRecording) namespaces() []string {
	seen := map[string]bool{}
	for _, e := range r.events {
		switch e.Object.(type) {
		case *corev1.ResourceQuota, *kubevirtv1.VirtualMachineInstanceMigration:
			seen[e.Object.GetNamespace()] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
