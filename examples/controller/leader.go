package main

import (
	"context"
	"errors"
	"fmt"
	_ "net/http/pprof" // in http.DefaultServeMux

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// errLost says that another replica may lead now.
var errLost = errors.New("the Lease could not be renewed in time")

// lead calls work as soon as this replica has the Lease. When ctx is done, the Lease is
// given back after work has returned, so that another replica takes over at once, and
// never two of them write. If the Lease is lost, the context of work ends, and the error
// is errLost: the process should end.
func lead(ctx context.Context, client kubernetes.Interface, o options, watchdog *leaderelection.HealthzAdaptor, work func(ctx context.Context)) error {
	if !o.leaderElect {
		work(ctx)
		return nil
	}
	// The Lease outlives ctx by as long as work needs.
	hold, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	worked := make(chan struct{})
	started := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: o.namespace, Name: o.shard.lease(o.leaseName)},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: o.identity},
		},
		Name:            o.leaseName,
		LeaseDuration:   o.leaseDuration,
		RenewDeadline:   o.renewDeadline,
		RetryPeriod:     o.retryPeriod,
		ReleaseOnCancel: true,
		WatchDog:        watchdog,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				close(started)
				defer close(worked)
				klog.FromContext(ctx).Info("Leading", "identity", o.identity)
				both, stop := context.WithCancel(leading)
				defer stop()
				defer context.AfterFunc(ctx, stop)()
				work(both)
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				klog.FromContext(ctx).Info("There is a leader", "identity", identity)
			},
		},
	})
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	watchdog.SetLeaderElection(elector)
	context.AfterFunc(ctx, func() {
		select {
		case <-started:
			<-worked
		default: // it does not lead, and will not
		}
		release()
	})
	elector.Run(hold)
	if ctx.Err() == nil {
		return errLost
	}
	return nil
}
