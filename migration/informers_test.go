package migration_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
)

var (
	vmimResource = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstancemigrations")
	vmiResource  = kubevirtv1.SchemeGroupVersion.WithResource("virtualmachineinstances")
)

// A served recording is what the clients of a Controller find.
type served struct {
	*recorded
	core    *fake.Clientset
	dynamic *dynamicfake.FakeDynamicClient
}

// serve returns clients that find what a recording has at some time; change may change it.
func serve(t *testing.T, name string, at time.Duration, change ...func(migration.Snapshot)) *served {
	t.Helper()
	s := &served{recorded: recordingOf(t, name)}
	s.until(at)
	s.dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		vmimResource: "VirtualMachineInstanceMigrationList", vmiResource: "VirtualMachineInstanceList",
	})
	snapshot := s.cache.Snapshot(s.namespace)
	for _, c := range change {
		c(snapshot)
	}
	objects := []runtime.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}}
	for _, rq := range s.cache.Quotas(s.namespace) {
		objects = append(objects, rq)
	}
	for _, pod := range snapshot.Pods {
		objects = append(objects, pod)
	}
	s.core = fake.NewClientset(objects...)
	for _, vmi := range snapshot.VMIs {
		s.add(t, vmiResource, "VirtualMachineInstance", vmi)
	}
	for _, vmim := range snapshot.Migrations {
		s.add(t, vmimResource, "VirtualMachineInstanceMigration", vmim)
	}
	return s
}

func (s *served) add(t *testing.T, resource schema.GroupVersionResource, kind string, object metav1.Object) {
	t.Helper()
	u := dynamic[metav1.Object](t, kind)(object).(*unstructured.Unstructured)
	require.NoError(t, s.dynamic.Tracker().Create(resource, u, s.namespace))
}

func (s *served) update(t *testing.T, vmim *kubevirtv1.VirtualMachineInstanceMigration) {
	t.Helper()
	require.NoError(t, s.dynamic.Tracker().Delete(vmimResource, s.namespace, vmim.Name))
	s.add(t, vmimResource, "VirtualMachineInstanceMigration", vmim)
}

func (s *served) clients() migration.Clients {
	return migration.Clients{Core: s.core, KubeVirt: s.dynamic}
}

func (s *served) controller(t *testing.T, options migration.Options) *migration.Controller {
	t.Helper()
	c, err := migration.NewController(s.clients(), options)
	require.NoError(t, err)
	return c
}

// onList has lists of a resource in a namespace, "" being all, fail where refuse returns an error.
func (s *served) onList(resource string, refuse func(namespace string) error) {
	for _, f := range []*clienttesting.Fake{&s.core.Fake, &s.dynamic.Fake} {
		f.PrependReactor("list", resource, func(action clienttesting.Action) (bool, runtime.Object, error) {
			err := refuse(action.GetNamespace())
			return err != nil, nil, err
		})
	}
}

var errForbidden = apierrors.NewForbidden(corev1.Resource("something"), "", errors.New("no role"))

// run runs a Controller until the test is over, and returns its reports.
func run(ctx context.Context, t *testing.T, clients migration.Clients, options migration.Options) <-chan migration.Report {
	t.Helper()
	reports := make(chan migration.Report, 10000)
	options.Recorder = &record.FakeRecorder{}
	options.Reconciled = func(_ context.Context, r migration.Report) { reports <- r }
	c, err := migration.NewController(clients, options)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			require.NoError(t, err)
		}
	})
	return reports
}

// await returns the first of reports with n migrations in flight.
func await(reports <-chan migration.Report, n int) migration.Report {
	for r := range reports {
		if len(r.InFlight) == n {
			return r
		}
	}
	return migration.Report{}
}

// buffered returns ctx with a logger, and what that has logged.
func buffered(t *testing.T) (ctx context.Context, log func() string) {
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	return klog.NewContext(t.Context(), logger), func() string { return logger.GetSink().(ktesting.Underlier).GetBuffer().String() }
}

func (s *served) hard(t *testing.T) string {
	t.Helper()
	rq, err := s.core.CoreV1().ResourceQuotas(s.namespace).Get(t.Context(), "q", metav1.GetOptions{})
	require.NoError(t, err)
	return rq.Status.Hard.Name(corev1.ResourceLimitsMemory, "").String()
}

// lists counts the lists of a kind in a namespace.
func (s *served) lists(resource string) (n int) {
	for _, action := range append(s.core.Actions(), s.dynamic.Actions()...) {
		if action.GetVerb() == "list" && action.GetResource().Resource == resource && action.GetNamespace() == s.namespace {
			n++
		}
	}
	return n
}

// With nothing but clients, a migration that quota has refused is given room.
func TestControllerWithItsOwnInformers(t *testing.T) {
	s := serve(t, "basic", 2*time.Second)
	await(run(t.Context(), t, s.clients(), migration.Options{}), 1)
	require.Equal(t, "5547429376", s.hard(t))
	require.Equal(t, 1, s.lists("pods"))
	require.Equal(t, 1, s.lists("virtualmachineinstances"))
	for _, resource := range []string{"limitranges", "persistentvolumeclaims", "resourceclaims", "deviceclasses", "events"} {
		require.Zero(t, s.lists(resource), resource)
	}
}

// persist gives the VMIs backend storage.
func persist(s migration.Snapshot) {
	yes := true
	for _, vmi := range s.VMIs {
		vmi.Spec.Domain.Devices.TPM = &kubevirtv1.TPMDevice{Persistent: &yes}
	}
}

// Claims are read where a VMI has backend storage.
func TestControllerReadsClaims(t *testing.T) {
	s := serve(t, "basic", 2*time.Second, persist)
	vmi := s.cache.Snapshot(s.namespace).VMIs[0]
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: s.namespace, Name: "state", UID: "state", Labels: map[string]string{"persistent-state-for": vmi.Name},
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(vmi, kubevirtv1.VirtualMachineInstanceGroupVersionKind)},
	}}
	claim.Spec.Resources.Requests = list("storage=1Gi")
	require.NoError(t, s.core.Tracker().Add(claim))
	reports := run(t.Context(), t, s.clients(), migration.Options{})
	require.Equal(t, "1Gi", await(reports, 1).InFlight[0].Surge.Name(corev1.ResourceRequestsStorage, "").String())
	require.Equal(t, 1, s.lists("persistentvolumeclaims"))
}

// useDevices gives the pods of a namespace ResourceClaims from a template.
func useDevices(s migration.Snapshot) {
	for _, pod := range s.Pods {
		template(pod)
	}
}

// What devices are charged for is read where a pod has ResourceClaims from templates. If the API
// server does not let it be read, the rest is done all the same, and that is logged once.
func TestControllerReadsResourceClaims(t *testing.T) {
	const devices = "nic.deviceclass.resource.k8s.io/devices"
	for _, forbidden := range []bool{false, true} {
		s := serve(t, "basic", 2*time.Second, useDevices)
		source := s.cache.Snapshot(s.namespace).Pods[0]
		claim := (&scene{}).nics(source, "net", 2)
		claim.Namespace = s.namespace
		require.NoError(t, s.core.Tracker().Add(claim))
		name := "example.com/nic"
		require.NoError(t, s.core.Tracker().Add(&resourcev1.DeviceClass{
			ObjectMeta: metav1.ObjectMeta{Name: "nic"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: &name},
		}))
		if forbidden {
			for _, resource := range []string{"resourceclaims", "deviceclasses"} {
				s.onList(resource, func(string) error { return errForbidden })
			}
		}
		ctx, log := buffered(t)
		surge := await(run(ctx, t, s.clients(), migration.Options{}), 1).InFlight[0].Surge
		for _, name := range []corev1.ResourceName{devices, "requests.example.com/nic"} {
			_, counted := surge[name]
			require.Equal(t, !forbidden, counted, name)
		}
		require.Equal(t, "5547429376", s.hard(t))
		for _, kind := range []string{"ResourceClaims", "DeviceClasses"} {
			require.Equal(t, forbidden, strings.Count(log(), `kind="`+kind) == 1, log())
		}
	}
}

// A namespace is not watched for ever, and not again because of a migration that was.
func TestControllerLeavesNamespaces(t *testing.T) {
	s := serve(t, "basic", 2*time.Second)
	now := &atomic.Int64{}
	now.Store(start.Add(time.Hour).UnixNano())
	reports := run(t.Context(), t, s.clients(), migration.Options{
		Resync: 20 * time.Millisecond, Now: func() time.Time { return time.Unix(0, now.Load()) },
	})
	await(reports, 1)
	vmim := s.cache.Snapshot(s.namespace).Migrations[0].DeepCopy()
	vmim.Status.Phase = kubevirtv1.MigrationFailed
	ended := metav1.NewTime(time.Unix(0, now.Load()))
	vmim.Status.PhaseTransitionTimestamps = []kubevirtv1.VirtualMachineInstanceMigrationPhaseTransitionTimestamp{{PhaseTransitionTimestamp: ended}}
	s.update(t, vmim)
	await(reports, 0)
	now.Add(int64(2 * time.Minute))
	for len(reports) > 0 {
		<-reports
	}
	for range 3 { // the second began after that
		await(reports, 0)
	}
	require.Equal(t, 1, s.lists("pods"))
	vmim.Name, vmim.UID, vmim.Status = "another", "another", kubevirtv1.VirtualMachineInstanceMigrationStatus{}
	s.add(t, vmimResource, "VirtualMachineInstanceMigration", vmim)
	await(reports, 1)
	require.Equal(t, 2, s.lists("pods"))
}

// One event of a migration asks for one reconcile, although two watches see it: the second one
// would wait for the gap of the loop.
func TestControllerEnqueuesAMigrationOnce(t *testing.T) {
	s := serve(t, "basic", 2*time.Second)
	enqueued := make(chan string, 1000)
	c := s.controller(t, migration.Options{Recorder: &record.FakeRecorder{}, Enqueue: func(namespace string) { enqueued <- namespace }})
	require.NoError(t, c.Start(t.Context()))
	reconcile := func() (asked int) {
		for ; len(enqueued) > 0; asked++ {
			<-enqueued
		}
		_, err := c.Reconcile(t.Context(), s.namespace)
		require.NoError(t, err)
		return asked
	}
	reconcile() // begins to watch
	require.Eventually(t, func() bool { reconcile(); return s.hard(t) == "5547429376" }, time.Minute, time.Millisecond)
	require.Eventually(t, func() bool { return reconcile() == 0 }, time.Minute, 10*time.Millisecond, "it does not rest")

	const migrations = 50
	first := s.cache.Snapshot(s.namespace).Migrations[0]
	for i := range migrations {
		vmim := first.DeepCopy()
		vmim.Name, vmim.UID = fmt.Sprintf("another%d", i), types.UID(fmt.Sprintf("another%d", i))
		s.add(t, vmimResource, "VirtualMachineInstanceMigration", vmim)
	}
	require.Eventually(t, func() bool { return len(enqueued) >= migrations }, time.Minute, time.Millisecond)
	require.Len(t, enqueued, migrations)
}

// A server that is away later on is logged in one line too.
func TestControllerLogsOnceThatANamespaceCannotBeRead(t *testing.T) {
	s := serve(t, "basic", 2*time.Second)
	for _, resource := range []string{"pods", "persistentvolumeclaims"} {
		s.onList(resource, func(namespace string) error {
			if namespace != "" {
				return errors.New("no answer")
			}
			return nil
		})
	}
	ctx, log := buffered(t)
	reports := run(ctx, t, s.clients(), migration.Options{})
	require.Eventually(t, func() bool { return s.lists("pods") > 1 }, time.Minute, time.Millisecond)
	require.Equal(t, 1, strings.Count(log(), "no answer"), log())
	require.Empty(t, reports, "half of what there is says nothing")
}

// What does not migrate is not read: neither pods nor VMIs of the namespace are listed.
func TestControllerReadsOnlyWhatMigrates(t *testing.T) {
	s := serve(t, "basic", time.Second) // the VM runs
	require.Empty(t, s.cache.Snapshot(s.namespace).Migrations)
	reports := run(t.Context(), t, s.clients(), migration.Options{Resync: 50 * time.Millisecond})
	for range 3 {
		require.Empty(t, (<-reports).InFlight)
	}
	require.Zero(t, s.lists("pods")+s.lists("virtualmachineinstances")+s.lists("events"))
}

// A shard leaves the namespaces of other shards alone.
func TestControllerOwns(t *testing.T) {
	s := serve(t, "basic", 2*time.Second)
	asked := make(chan string, 1000)
	reports := run(t.Context(), t, s.clients(), migration.Options{Owns: func(namespace string) bool {
		asked <- namespace
		return false
	}})
	require.Equal(t, s.namespace, <-asked)
	require.Empty(t, reports)
	require.Equal(t, "2773714688", s.hard(t))
}

// A label switches a namespace off.
func TestControllerNamespaceIsSwitchedOff(t *testing.T) {
	s := serve(t, "basic", 2*time.Second)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace, Labels: map[string]string{"headroom.vmquota.io/disabled": "true"}}}
	require.NoError(t, s.core.Tracker().Update(corev1.SchemeGroupVersion.WithResource("namespaces"), namespace, ""))
	await(run(t.Context(), t, s.clients(), migration.Options{}), 1)
	require.Equal(t, "2773714688", s.hard(t))
}

// A server that refuses to be listed is logged in one line, however often it refuses, and so is
// one without KubeVirt's custom resources. When the Controller is stopped it says for what it has
// waited.
func TestControllerLogsOnceWhatItWaitsFor(t *testing.T) {
	for kind, test := range map[string]struct {
		resource, logged string
		refusal          error
	}{
		"ResourceQuotas":                   {"resourcequotas", "Cannot list or watch", errForbidden},
		"VirtualMachineInstanceMigrations": {vmimResource.Resource, "Waiting for KubeVirt", apierrors.NewNotFound(vmimResource.GroupResource(), "")},
	} {
		t.Run(kind, func(t *testing.T) {
			s := serve(t, "basic", 2*time.Second)
			refused := make(chan struct{}, 100)
			s.onList(test.resource, func(string) error {
				refused <- struct{}{}
				return test.refusal
			})
			ctx, log := buffered(t)
			ctx, stop := context.WithCancel(ctx)
			c := s.controller(t, migration.Options{})
			ended := make(chan error, 1)
			go func() { ended <- c.Run(ctx) }()
			for range 3 {
				<-refused
			}
			require.ErrorContains(t, c.Synced(), "the cache of "+kind+" has not synced: ")
			require.ErrorIs(t, c.Synced(), test.refusal)
			require.NotContains(t, c.Synced().Error(), "Pods", "that can be read")
			stop()
			require.ErrorContains(t, <-ended, "the cache of "+kind+" has not synced")
			require.Equal(t, 1, strings.Count(log(), test.logged), log())
		})
	}
}

// Whoever may not read what is read only where VMs migrate does not start.
func TestControllerStartsWhenAllCanBeRead(t *testing.T) {
	for resource, kind := range map[string]string{
		"pods": "Pods", "persistentvolumeclaims": "PersistentVolumeClaims", "events": "Events", "virtualmachineinstances": "VirtualMachineInstances",
	} {
		t.Run(resource, func(t *testing.T) {
			s := serve(t, "basic", 2*time.Second)
			var repaired atomic.Bool
			s.onList(resource, func(string) error {
				if repaired.Load() {
					return nil
				}
				return errForbidden
			})
			c := s.controller(t, migration.Options{})
			started := make(chan error, 1)
			go func() { started <- c.Start(t.Context()) }()
			require.Eventually(t, func() bool {
				err := c.Synced()
				return err != nil && strings.Contains(err.Error(), "the cache of "+kind+" has not synced: ") &&
					strings.Contains(err.Error(), "no role") && strings.Count(err.Error(), "\n") == 0
			}, time.Minute, time.Millisecond, "%v", c.Synced())
			require.Empty(t, started)
			repaired.Store(true)
			require.NoError(t, <-started)
			require.NoError(t, c.Synced())
		})
	}
}

// A cache that cannot be kept up to date is named after half a minute, until it can.
func TestControllerNamesCachesThatAreNotUpToDate(t *testing.T) {
	s := serve(t, "basic", 2*time.Second)
	var passed atomic.Int64
	var repaired atomic.Bool
	refused := make(chan struct{}, 1000)
	s.onList("pods", func(namespace string) error {
		if namespace == "" || repaired.Load() {
			return nil
		}
		refused <- struct{}{}
		return errForbidden
	})
	start := time.Now()
	now := func() time.Time { return start.Add(time.Duration(passed.Load())) }
	c := s.controller(t, migration.Options{Now: now, Recorder: &record.FakeRecorder{}})
	require.NoError(t, c.Start(t.Context()))
	go c.Work(t.Context())
	<-refused
	require.NoError(t, c.Synced())
	passed.Store(int64(31 * time.Second))
	<-refused
	require.Eventually(t, func() bool { return c.Synced() != nil }, time.Minute, time.Millisecond)
	require.ErrorContains(t, c.Synced(), "the cache of Pods is not up to date: ")
	require.ErrorContains(t, c.Synced(), "no role")
	repaired.Store(true)
	require.Eventually(t, func() bool { return c.Synced() == nil }, time.Minute, time.Millisecond)
}
