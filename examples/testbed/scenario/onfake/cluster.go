// Package onfake plays scenarios on a simulated cluster, in simulated time.
package onfake

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
)

const (
	namespace = "tenant"
	library   = "headroom" // the user
)

// A Cluster is a simulated one.
type Cluster struct {
	fake  *fake.Cluster
	waits []string
}

// Event implements record.EventRecorder.
func (c *Cluster) Event(object runtime.Object, _, reason, message string) {
	if o, ok := object.(metav1.Object); ok {
		c.waits = append(c.waits, scenario.Waits(o, reason, message)...)
	}
}

// Eventf implements record.EventRecorder.
func (c *Cluster) Eventf(object runtime.Object, kind, reason, format string, args ...any) {
	c.Event(object, kind, reason, fmt.Sprintf(format, args...))
}

// AnnotatedEventf implements record.EventRecorder.
func (c *Cluster) AnnotatedEventf(object runtime.Object, _ map[string]string, kind, reason, format string, args ...any) {
	c.Eventf(object, kind, reason, format, args...)
}

var _ scenario.Cluster = (*Cluster)(nil)

// New returns a cluster for one play of s. The same seed makes the same play.
func New(s *scenario.Scenario, seed uint64) (*Cluster, error) {
	c := &Cluster{fake: fake.New(fake.Config{Seed: seed})}
	if s.Overhead != 0 {
		c.fake.SetMemoryOverhead(s.Overhead)
	}
	for _, name := range []string{process.Namespace, namespace} {
		if err := c.fake.CreateNamespace(name, nil); err != nil {
			return nil, err
		}
	}
	var failed error
	c.fake.Start(library, func(p *fake.Process) fake.Program {
		options := migration.Options{Recorder: c}
		if s.Recorded {
			options.Ledger = configmap.New(p.Client.CoreV1(), process.Namespace)
		}
		program, err := p.Controller(options)
		failed = err
		return program
	})
	return c, failed
}

// Violations are the invariants that were broken.
func (c *Cluster) Violations() []fake.Violation { return c.fake.Violations() }

// Client implements scenario.Cluster.
func (c *Cluster) Client() kubernetes.Interface { return c.fake.Client("admin") }

// Namespace implements scenario.Cluster.
func (c *Cluster) Namespace() string { return namespace }

// admissionLag is longer than quota admission takes to know a new quota. Until then it
// charges nothing.
const admissionLag = 100 * time.Millisecond

// CreateVMI implements scenario.Cluster.
func (c *Cluster) CreateVMI(_ context.Context, vmi *kubevirtv1.VirtualMachineInstance) error {
	c.fake.Advance(admissionLag)
	return c.fake.CreateVMI(vmi)
}

// DeleteVMI implements scenario.Cluster.
func (c *Cluster) DeleteVMI(_ context.Context, name string) error {
	return c.fake.DeleteVMI(namespace, name)
}

// CreateMigration implements scenario.Cluster.
func (c *Cluster) CreateMigration(_ context.Context, m scenario.Migrate) error {
	outcome := fake.Outcome{Hang: m.Goes == scenario.Hang, Fail: m.Goes == scenario.Fail}
	switch m.Linger {
	case "":
	case scenario.Forever:
		outcome.Linger = 1000 * time.Hour
	default:
		var err error
		if outcome.Linger, err = time.ParseDuration(m.Linger); err != nil {
			return err
		}
	}
	return c.fake.Migrate(namespace, m.Name, m.VM, outcome)
}

// DeleteMigration implements scenario.Cluster.
func (c *Cluster) DeleteMigration(_ context.Context, name string) error {
	return c.fake.Abort(namespace, name)
}

// HotPlug implements scenario.Cluster.
func (c *Cluster) HotPlug(_ context.Context, h scenario.HotPlug) error {
	vmi := c.fake.VMI(namespace, h.VM)
	if vmi == nil || vmi.Spec.Domain.CPU == nil {
		return fmt.Errorf("no VMI %s with CPUs", h.VM)
	}
	c.fake.SetMemoryOverhead(h.Overhead)
	return c.fake.HotPlug(namespace, h.VM, vmi.Spec.Domain.CPU.Sockets, h.Memory)
}

// SetUtilityVolumes implements scenario.Cluster.
func (c *Cluster) SetUtilityVolumes(_ context.Context, vm string, volumes ...string) error {
	return c.fake.SetUtilityVolumes(namespace, vm, volumes...)
}

// Drain implements scenario.Cluster.
func (c *Cluster) Drain(_ context.Context, node string) error {
	c.fake.Drain(node)
	return nil
}

// Undrain implements scenario.Cluster.
func (c *Cluster) Undrain(_ context.Context, node string) error {
	c.fake.Uncordon(node)
	return nil
}

// SetOverhead implements scenario.Cluster.
func (c *Cluster) SetOverhead(_ context.Context, overhead scenario.Overhead) error {
	c.fake.SetMemoryOverhead(overhead.Bytes)
	return nil
}

// DeleteNamespace plays the namespace controller: it deletes all that is in the
// namespace, and the namespace when that is gone.
func (c *Cluster) DeleteNamespace(ctx context.Context) error {
	now := c.fake.Snapshot(namespace)
	client := c.Client().CoreV1()
	ignore := func(err error) error {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	quotas, err := client.ResourceQuotas(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, rq := range quotas.Items {
		if err := ignore(client.ResourceQuotas(namespace).Delete(ctx, rq.Name, metav1.DeleteOptions{})); err != nil {
			return err
		}
	}
	for _, pod := range now.Pods {
		if err := ignore(client.Pods(namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{})); err != nil {
			return err
		}
	}
	for _, m := range now.Migrations {
		if err := ignore(c.fake.Abort(namespace, m.Name)); err != nil {
			return err
		}
	}
	for _, vmi := range now.VMIs {
		if err := ignore(c.fake.DeleteVMI(namespace, vmi.Name)); err != nil {
			return err
		}
	}
	empty := c.fake.Until(time.Hour, func() bool {
		left := c.fake.Snapshot(namespace)
		return len(left.Pods)+len(left.Migrations)+len(left.VMIs) == 0
	})
	if !empty {
		return fmt.Errorf("namespace %s does not become empty", namespace)
	}
	return client.Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
}

// State implements scenario.Cluster.
func (c *Cluster) State(ctx context.Context) (scenario.State, error) {
	now := c.fake.Snapshot(namespace)
	s := scenario.State{Namespace: now.Namespace, Pods: now.Pods, VMIs: now.VMIs, Migrations: now.Migrations, Waits: c.waits}
	quotas, err := c.Client().CoreV1().ResourceQuotas(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return s, err
	}
	for i := range quotas.Items {
		s.Quotas = append(s.Quotas, &quotas.Items[i])
	}
	slices.SortFunc(s.Quotas, func(a, b *corev1.ResourceQuota) int { return strings.Compare(a.Name, b.Name) })
	s.Ledger, err = c.Client().CoreV1().ConfigMaps(process.Namespace).Get(ctx, configmap.Name(namespace), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		s.Ledger, err = nil, nil
	}
	return s, err
}

// patience is for how long something is awaited: more than KubeVirt's longest back-off.
const patience = time.Hour

// Until implements scenario.Cluster.
func (c *Cluster) Until(ctx context.Context, done func(scenario.State) bool) (bool, error) {
	var failed error
	ok := c.fake.Until(patience, func() bool {
		s, err := c.State(ctx)
		failed = err
		return err != nil || done(s)
	})
	return ok, failed
}

// Rest implements scenario.Cluster.
func (c *Cluster) Rest(context.Context) error {
	c.fake.Advance(10 * time.Minute)
	return nil
}

// Writes implements scenario.Cluster.
func (c *Cluster) Writes(context.Context) (int, error) {
	return c.fake.Writes(library, fake.ResourceQuotas), nil
}
