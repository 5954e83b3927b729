//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/fake/recording"
)

// A phase is a moment of a migration.
type phase int

const (
	blocked phase = iota
	charged
	over
)

// moments are when the recording is in which phase.
var moments = []time.Duration{blocked: 2 * time.Second, charged: 4 * time.Second, over: time.Minute}

// patterns are the objects of one machine, as JSON without managed fields.
type patterns struct {
	namespace, machine string
	uids               []string
	quota              *corev1.ResourceQuota // one machine fills it
	vmims, vmis, pods  [over + 1][]string
}

func readPatterns(file string) (*patterns, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	events, err := recording.Read(f)
	if err != nil {
		return nil, err
	}
	p := &patterns{}
	seen := map[string]bool{}
	var played recording.Cache
	for at := blocked; at <= over; at++ {
		for len(events) > 0 && events[0].At <= moments[at] {
			played.Apply(events[0])
			events = events[1:]
		}
		names := played.Namespaces()
		if len(names) != 1 || len(played.Quotas(names[0])) != 1 || len(played.Snapshot(names[0]).VMIs) != 1 {
			return nil, fmt.Errorf("%s is not of one namespace with one quota and one virtual machine", file)
		}
		s := played.Snapshot(names[0])
		if at == blocked {
			p.namespace, p.machine, p.quota = names[0], s.VMIs[0].Name, played.Quotas(names[0])[0]
		}
		var objects []metav1.Object
		for _, o := range s.Migrations {
			objects = append(objects, o)
		}
		if p.vmims[at], err = texts(s.Migrations); err != nil {
			return nil, err
		}
		for _, o := range s.VMIs {
			objects = append(objects, o)
		}
		if p.vmis[at], err = texts(s.VMIs); err != nil {
			return nil, err
		}
		for _, o := range s.Pods {
			objects = append(objects, o)
		}
		if p.pods[at], err = texts(s.Pods); err != nil {
			return nil, err
		}
		for _, o := range objects {
			if uid := string(o.GetUID()); !seen[uid] {
				seen[uid] = true
				p.uids = append(p.uids, uid)
			}
		}
	}
	return p, nil
}

// texts are the objects as JSON.
func texts[T metav1.Object](objects []T) ([]string, error) {
	var all []string
	for _, o := range objects {
		o.SetManagedFields(nil)
		data, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		all = append(all, string(data))
	}
	return all, nil
}
