// Package onbed plays scenarios on a real control plane, many side by side on the same.
package onbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/virt"
)

// Who the processes are on a bed.
const (
	User      = "headroom-library"     // the library
	OtherUser = "other-quota-policies" // policies that write spec.hard
)

// A Stage is a running bed, with the library at work in a process of its own.
type Stage struct {
	Bed     *bed.Bed             // if it has two API servers, the library reaches the other one
	Client  kubernetes.Interface // an administrator's
	Objects dynamic.Interface    // an administrator's
	watch   *watch
	library *process.Process
	stop    context.CancelFunc
}

// NewStage makes a stage of a bed, with a program at work. If it is empty, no process is
// started. What the process logs goes to log, too.
func NewStage(ctx context.Context, b *bed.Bed, program process.Program, log io.Writer) (*Stage, error) {
	client, err := kubernetes.NewForConfig(b.Config())
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(b.Config())
	if err != nil {
		return nil, err
	}
	s := &Stage{Bed: b, Client: client, Objects: objects}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	if err := process.Grant(ctx, client, User, process.EnforceLimits); err != nil {
		return nil, err
	}
	if s.watch, err = newWatch(watching, client, objects); err != nil {
		return nil, err
	}
	// As virt-operator is told, so that a hot-plug is carried out by migrating.
	if err := s.configure(ctx, map[string]any{"workloadUpdateStrategy": map[string]any{"workloadUpdateMethods": []string{"LiveMigrate"}}}); err != nil {
		return nil, err
	}
	if program == "" {
		return s, nil
	}
	if s.library, err = s.StartProgram(ctx, program, log); err != nil {
		return nil, err
	}
	return s, nil
}

// StartProgram starts a process with the rights that the program needs, and waits until it
// works.
func (s *Stage) StartProgram(ctx context.Context, program process.Program, log io.Writer) (*process.Process, error) {
	user, more := User, []process.Right(nil)
	switch program {
	case process.Recorded:
		more = append(more, process.WriteLedger)
	case process.RaisePending:
		user, more = OtherUser, append(more, process.WriteQuotas)
	default: // it has no more
	}
	if err := process.Grant(ctx, s.Client, user, more...); err != nil {
		return nil, err
	}
	config, err := s.Bed.User(user)
	if err != nil {
		return nil, err
	}
	p, err := process.Start(program, s.Bed.Other(config), user, log)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.Ready():
		return p, nil
	case <-p.Ended():
		return nil, fmt.Errorf("%s ended: %v", program, p.Log())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), p.Kill())
	}
}

// Close ends the library's process, and checks the audit log: see [CheckAudit]. The bed
// goes on.
func (s *Stage) Close() error {
	s.stop()
	var stopped error
	if s.library != nil {
		stopped = s.library.Stop()
	}
	events, err := s.Bed.Audit()
	return errors.Join(stopped, err, CheckAudit(events))
}

// Library is the process.
func (s *Stage) Library() *process.Process { return s.library }

// configure changes the spec of the KubeVirt object.
func (s *Stage) configure(ctx context.Context, spec map[string]any) error {
	patch, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return err
	}
	_, err = s.Objects.Resource(virt.KubeVirts).Namespace(bed.KubeVirtNamespace).
		Patch(ctx, "kubevirt", types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// configurationLag is after what time virt-controller goes by a changed KubeVirt object.
// It does not say so anywhere.
const configurationLag = time.Second

// Configure changes KubeVirt's configuration: nil is a default. It returns when
// virt-controller goes by it.
func (s *Stage) Configure(ctx context.Context, configuration map[string]any) error {
	if err := s.configure(ctx, map[string]any{"configuration": configuration}); err != nil {
		return err
	}
	return sleep(ctx, configurationLag)
}

// Crowded are the limits of KubeVirt for many scenarios at once, which must not wait for
// each other's migrations.
var Crowded = map[string]any{"migrations": map[string]any{"parallelMigrationsPerCluster": 200, "parallelOutboundMigrationsPerNode": 200}}

// Alone are KubeVirt's own.
var Alone = map[string]any{"migrations": nil}

// AwaitEmpty waits until no pod is left of the plays before, which would count where VMs are
// spread over the nodes.
func (s *Stage) AwaitEmpty(ctx context.Context) error {
	for end := time.Now().Add(patience); len(s.watch.pods.GetIndexer().ListKeys()) > 0; {
		if time.Now().After(end) {
			return errors.New("pods are left")
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// Cluster returns a fresh namespace for one play of a scenario.
func (s *Stage) Cluster(ctx context.Context, of *scenario.Scenario) (*Cluster, error) {
	namespace, err := s.Bed.NewNamespace(ctx, of.Name+"-")
	if err != nil {
		return nil, err
	}
	return &Cluster{stage: s, namespace: namespace}, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
