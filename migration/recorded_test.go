package migration_test

import (
	"context"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/migration"
)

// recorded is what caches hold at a moment of a recording, and can be moved on.
type recorded struct {
	events    []recording.Event
	cache     recording.Cache
	namespace string
}

func recordingOf(t *testing.T, name string) *recorded {
	if t != nil { // an example has none
		t.Helper()
	}
	file, err := os.Open("testdata/recordings/" + name + ".jsonl")
	if err != nil {
		panic(err)
	}
	defer file.Close()
	events, err := recording.Read(file)
	if err != nil {
		panic(err)
	}
	return &recorded{events: events, namespace: events[0].Object.GetNamespace()}
}

// until applies the events up to and including the time at.
func (r *recorded) until(at time.Duration) {
	for len(r.events) > 0 && r.events[0].At <= at {
		r.cache.Apply(r.events[0])
		r.events = r.events[1:]
	}
}

func (r *recorded) caches() migration.Caches {
	return migration.Caches{
		Migrations: func(_ context.Context, namespace string) ([]*kubevirtv1.VirtualMachineInstanceMigration, error) {
			return r.cache.Snapshot(namespace).Migrations, nil
		},
		VMIs: func(_ context.Context, namespace string) ([]*kubevirtv1.VirtualMachineInstance, error) {
			return r.cache.Snapshot(namespace).VMIs, nil
		},
		Pods: func(_ context.Context, namespace string) ([]*corev1.Pod, error) {
			return r.cache.Snapshot(namespace).Pods, nil
		},
		Events: func(_ context.Context, namespace string) ([]*corev1.Event, error) {
			return r.cache.Snapshot(namespace).Events, nil
		},
	}
}

func (r *recorded) quotas(_ context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
	return r.cache.Quotas(namespace), nil
}
