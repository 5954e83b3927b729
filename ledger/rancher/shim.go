package rancher

import (
	"cmp"
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// DefaultNamespace is the namespace of the ConfigMap ledger if Config.Namespace is empty.
const DefaultNamespace = "headroom"

// A Config is what a [Shim] works with.
type Config struct {
	// Client is a client of the downstream cluster. It is required.
	Client kubernetes.Interface
	// Now returns the time. It is required; time.Now is what most callers want.
	Now func() time.Time

	// Quotas is an informer of all ResourceQuotas in the cluster that the process has
	// anyway, with the index cache.NamespaceIndex. Its owner starts it, before or after
	// Start. If nil, the Shim runs one of its own.
	Quotas cache.SharedIndexInformer
	// Namespace is the namespace of the ConfigMap ledger. If empty, it is DefaultNamespace.
	Namespace string
	// Own enforces the cluster's own migrations until its context is done; see the package
	// comment. If it returns before, it is called again after Probe. If nil, a cluster without
	// a ledger is left alone.
	Own func(ctx context.Context) error
	// Probe is how often the cluster is asked whether it has a ledger and KubeVirt. Zero
	// means a minute.
	Probe time.Duration

	// The rest are those of applier.Config; Own has its own. If DisabledFor is nil, it is [HarvesterSkips].
	Policy      func(namespace string) quota.Policy
	Disabled    func() bool
	DisabledFor func(rq *corev1.ResourceQuota) bool
	Parallel    applier.Parallel
	Guard       bool
	Recorder    record.EventRecorder
	Metrics     applier.Metrics
}

// A Shim enforces the effective limits of one downstream cluster. [Start] makes one.
type Shim struct {
	config Config
	stop   context.CancelFunc
	done   chan struct{}
}

// A source is where the migrations of a cluster are known from.
type source string

const (
	nowhere source = "" // there is no ledger, and no KubeVirt or no Config.Own
	records source = "the ledger"
	own     source = "the cluster's own migrations"
)

// awayPause is the time between two tries to ask a cluster that is out of reach.
const awayPause = 5 * time.Second

// kubeVirt is the API of KubeVirt that package migration reads.
const kubeVirt = "kubevirt.io/v1"

// Start starts a Shim, which runs until ctx is done or Stop is called. It does not wait for
// the cluster: while that is out of reach the Shim retries. It returns an error, and
// starts nothing, if something required is missing or if Config.Quotas has been stopped.
//
// Nothing of a Shim outlives it, so a start that was cancelled can be repeated.
func Start(ctx context.Context, config Config) (*Shim, error) {
	if config.Client == nil || config.Now == nil {
		return nil, errors.New("a shim needs Client and Now")
	}
	if config.Quotas != nil && config.Quotas.IsStopped() {
		return nil, errors.New("the informer of ResourceQuotas has been stopped")
	}
	config.Namespace = cmp.Or(config.Namespace, DefaultNamespace)
	config.Probe = cmp.Or(config.Probe, time.Minute)
	if config.DisabledFor == nil {
		config.DisabledFor = HarvesterSkips
	}
	ctx, stop := context.WithCancel(ctx)
	s := &Shim{config: config, stop: stop, done: make(chan struct{})}
	go s.run(ctx)
	return s, nil
}

// Done returns a channel that is closed when everything that Start started has ended.
func (s *Shim) Done() <-chan struct{} { return s.done }

// Stop stops the Shim, and returns when everything that Start started has ended. Limits
// that are raised are reset by kube-controller-manager.
func (s *Shim) Stop() {
	s.stop()
	<-s.done
}

// run enforces from one source after the other until ctx is done, never from two at once.
func (s *Shim) run(ctx context.Context) {
	defer close(s.done)
	defer s.stop()
	from := nowhere
	ended, end := s.begin(ctx, from)
	defer func() { end() }()
	for pause, told := time.Duration(0), false; ; {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			from, ended = nowhere, nil
		case <-time.After(wait.Jitter(pause, 0.2)):
			other, err := s.source(ctx)
			switch {
			case err == nil && other != from:
				end()
				from = other
				ended, end = s.begin(ctx, from)
			case err != nil && !told && ctx.Err() == nil:
				klog.FromContext(ctx).Info("Cannot tell where the migrations are known from, trying again", "err", err)
			}
			if pause, told = s.config.Probe, err != nil; told {
				pause = min(pause, awayPause)
			}
		}
	}
}

// begin enforces from a source. The channel is closed when everything that it started has
// ended, which end waits for.
func (s *Shim) begin(ctx context.Context, from source) (ended <-chan struct{}, end func()) {
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.enforce(ctx, from); ctx.Err() == nil {
			klog.FromContext(ctx).Info("Enforcing has ended, trying again", "from", from, "err", err)
		}
	}()
	return done, func() {
		stop()
		<-done
	}
}

// source asks the cluster which source to use.
func (s *Shim) source(ctx context.Context) (source, error) {
	_, err := s.config.Client.CoreV1().Namespaces().Get(ctx, s.config.Namespace, metav1.GetOptions{})
	switch {
	case !apierrors.IsNotFound(err):
		return records, err
	case s.config.Own == nil:
		return nowhere, nil
	}
	_, err = s.config.Client.Discovery().ServerResourcesForGroupVersion(kubeVirt)
	if apierrors.IsNotFound(err) {
		return nowhere, nil
	}
	return own, err
}

// enforce enforces until ctx is done.
func (s *Shim) enforce(ctx context.Context, from source) error {
	if from == nowhere {
		<-ctx.Done()
		return nil
	}
	klog.FromContext(ctx).Info("Enforcing the limits that migrations need", "from", from)
	if from == own {
		return s.config.Own(ctx)
	}
	r, err := newReader(s.config)
	if err != nil {
		return err
	}
	return r.run(ctx)
}
