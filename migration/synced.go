package migration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The kinds whose caches are not in informers.all.
const (
	migrationsKind = "VirtualMachineInstanceMigrations"
	instancesKind  = "VirtualMachineInstances"
	podsKind       = "Pods"
	claimsKind     = "PersistentVolumeClaims"
)

const (
	// staleTime is for how long a kind can fail to be read until its cache is stale.
	staleTime = 30 * time.Second
	// failureTime is after what time without another failure a kind is read again: its
	// informer tries more often than that.
	failureTime = 2*maxWatchPause + 10*time.Second
)

// A failure is that a kind cannot be read.
type failure struct {
	since, last time.Time
	version     string // of the cache: another one is that of a later list
	err         error
}

// note records that kind could not be read, and returns when that is.
func (i *informers) note(kind string, err error) (now time.Time) {
	version := ""
	if informer, shared := i.all()[kind]; shared {
		version = informer.LastSyncResourceVersion()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	now = i.controller.options.Now()
	f := i.failing[kind]
	if f.version != version || now.Sub(f.last) > failureTime {
		f.since = now
	}
	f.last, f.version, f.err = now, version, err
	i.failing[kind] = f
	return now
}

// answered records that kind can be read.
func (i *informers) answered(kind string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.failing, kind)
}

// tryToRead reads one object of each kind that is watched only where virtual machines migrate,
// until the server answers: a process that must not read them should not lead.
func (i *informers) tryToRead(ctx context.Context) {
	core, kubeVirt := i.controller.clients.Core.CoreV1(), i.controller.clients.KubeVirt
	one := metav1.ListOptions{Limit: 1}
	for kind, read := range map[string]func() (any, error){
		podsKind:      func() (any, error) { return core.Pods("").List(ctx, one) },
		claimsKind:    func() (any, error) { return core.PersistentVolumeClaims("").List(ctx, one) },
		instancesKind: func() (any, error) { return kubeVirt.Resource(instancesResource).List(ctx, one) },
	} {
		go func() {
			if _, err := patiently(ctx, &listWatch{informers: i, kind: kind}, read); err == nil {
				i.mu.Lock()
				defer i.mu.Unlock()
				i.read[kind] = true
			}
		}()
	}
}

// canRead reports whether all of that was answered.
func (i *informers) canRead() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.read) == 3
}

// Synced returns an error that names the caches that have not synced yet, or could not be
// kept up to date for half a minute, each with the reason if it is known; nil if there is
// none. It is for a readiness probe. A leader should give its Lease back.
func (c *Controller) Synced() error {
	if c.informers == nil {
		return nil
	}
	i, now := c.informers, c.options.Now()
	pending := map[string]bool{migrationsKind: !i.progress.synced.Load()}
	for kind, informer := range i.all() {
		pending[kind] = !informer.HasSynced()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, kind := range []string{podsKind, claimsKind, instancesKind} {
		pending[kind] = !i.read[kind]
	}
	var errs []error
	for _, kind := range slices.Sorted(maps.Keys(pending)) {
		problem, f := "", i.failing[kind]
		fails := f.err != nil && now.Sub(f.last) <= failureTime
		switch {
		case pending[kind]:
			problem = "has not synced"
		case fails && f.last.Sub(f.since) >= staleTime:
			problem = "is not up to date"
		default:
			continue
		}
		err := fmt.Errorf("the cache of %s %s", kind, problem)
		if fails {
			err = fmt.Errorf("%w: %w", err, f.err)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
