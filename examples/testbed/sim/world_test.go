package sim

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/examples/testbed/virt"
)

// namespace is where the tests' machines are.
const namespace = "tenant"

// A world is an API server in memory and a clock. What the simulator writes in one pass
// it sees in the next. The tests play virt-controller.
type world struct {
	*testing.T
	client *fake.Clientset
	virt   *dynamicfake.FakeDynamicClient
	sim    *Simulator
	now    time.Time
	log    bytes.Buffer
}

// newWorld returns a world with nodes a, b and c.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		T:      t,
		client: fake.NewClientset(),
		virt: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
			virt.Instances:  "VirtualMachineInstanceList",
			virt.Migrations: "VirtualMachineInstanceMigrationList",
		}),
		now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	w.client.PrependReactor("create", "pods/binding", w.bound)
	w.sim = New(w.client, w.virt, Config{Nodes: []string{"a", "b", "c"}, Step: time.Second, Log: &w.log})
	w.sim.pace.now = func() time.Time { return w.now }
	w.pass()
	w.pass()
	return w
}

// bound puts a pod on a node, which the fake clientset does not.
func (w *world) bound(action clienttesting.Action) (bool, runtime.Object, error) {
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	binding := action.(clienttesting.CreateAction).GetObject().(*corev1.Binding)
	object, err := w.client.Tracker().Get(pods, namespace, binding.Name)
	if err != nil {
		return true, nil, err
	}
	pod := object.(*corev1.Pod).DeepCopy()
	pod.Spec.NodeName = binding.Target.Name
	return true, binding, w.client.Tracker().Update(pods, pod, namespace)
}

// pass lets the simulator look once.
func (w *world) pass() {
	w.Helper()
	w.refresh()
	w.client.ClearActions()
	w.virt.ClearActions()
	w.sim.pass(w.Context())
}

// refresh fills the simulator's caches.
func (w *world) refresh() {
	w.Helper()
	pods := try.Must(w.client.CoreV1().Pods("").List(w.Context(), metav1.ListOptions{}))(w)
	nodes := try.Must(w.client.CoreV1().Nodes().List(w.Context(), metav1.ListOptions{}))(w)
	vmis := try.Must(virt.VMIs(w.virt, "").List(w.Context()))(w)
	vmims := try.Must(virt.VMIMs(w.virt, "").List(w.Context()))(w)
	w.sim.caches = caches{
		pods: store(w, pods.Items), nodes: store(w, nodes.Items), vmis: storeOf(w, vmis), vmims: storeOf(w, vmims),
	}
}

// play lets the simulator look four times a second for so long, and at the end.
func (w *world) play(long time.Duration) {
	w.Helper()
	end := w.now.Add(long)
	for ; w.now.Before(end); w.now = w.now.Add(time.Second / 4) {
		w.pass()
	}
	w.now = end
	w.pass()
}

func store[T any](t require.TestingT, objects []T) cache.Store {
	pointers := make([]*T, len(objects))
	for i := range objects {
		pointers[i] = &objects[i]
	}
	return storeOf(t, pointers)
}

func storeOf[T any](t require.TestingT, objects []*T) cache.Store {
	result := cache.NewStore(cache.MetaNamespaceKeyFunc)
	for _, object := range objects {
		require.NoError(t, result.Add(object))
	}
	return result
}

func (w *world) pod(name string) *corev1.Pod {
	w.Helper()
	return try.Must(w.client.CoreV1().Pods(namespace).Get(w.Context(), name, metav1.GetOptions{}))(w)
}

func (w *world) node(name string) *corev1.Node {
	w.Helper()
	return try.Must(w.client.CoreV1().Nodes().Get(w.Context(), name, metav1.GetOptions{}))(w)
}

func (w *world) vmi(name string) *kubevirtv1.VirtualMachineInstance {
	w.Helper()
	return try.Must(virt.VMIs(w.virt, namespace).Get(w.Context(), name))(w)
}

// newPod creates a pod.
func (w *world) newPod(name string, change ...func(*corev1.Pod)) {
	w.Helper()
	always := corev1.ContainerRestartPolicyAlways
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name)},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "first"}, {Name: "sidecar", RestartPolicy: &always}},
			Containers:     []corev1.Container{{Name: "compute", Image: "registry.test/compute:1"}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}
	for _, c := range change {
		c(pod)
	}
	try.Must(w.client.CoreV1().Pods(namespace).Create(w.Context(), pod, metav1.CreateOptions{}))(w)
}

// newVMI creates a VMI and its virt-launcher, and plays until the VMI runs on that node.
func (w *world) newVMI(name, node string) {
	w.Helper()
	vmi := virt.NewVMI(namespace, name, 1, resource.MustParse("1Gi"))
	vmi.UID = types.UID(name)
	try.Must(virt.VMIs(w.virt, namespace).Create(w.Context(), vmi))(w)
	w.newPod(name+"-source", launcherOf(name), onNode(node))
	w.play(2 * time.Second)
	require.Equal(w, corev1.PodRunning, w.pod(name+"-source").Status.Phase)
	w.changeVMI(name, func(vmi *kubevirtv1.VirtualMachineInstance) {
		vmi.Status.Phase = kubevirtv1.Scheduled
		vmi.Status.NodeName = node
	})
	w.play(2 * time.Second)
	require.Equal(w, kubevirtv1.Running, w.vmi(name).Status.Phase)
}

// newVMIM creates a migration of a VMI, and its target pod, and plays until the target
// is ready to receive and virt-controller would say so.
func (w *world) newVMIM(name, vmi, node string, annotations map[string]string) {
	w.Helper()
	vmim := virt.NewVMIM(namespace, name, vmi)
	vmim.UID, vmim.Annotations = types.UID(name), annotations
	vmim.Status.Phase = kubevirtv1.MigrationScheduled
	try.Must(virt.VMIMs(w.virt, namespace).Create(w.Context(), vmim))(w)
	w.newPod(vmi+"-target", launcherOf(vmi), onNode(node))
	w.play(2 * time.Second)
	w.changeVMI(vmi, func(v *kubevirtv1.VirtualMachineInstance) {
		v.Status.MigrationState = &kubevirtv1.VirtualMachineInstanceMigrationState{
			MigrationUID: vmim.UID, SourceNode: v.Status.NodeName, TargetNode: node,
			SourcePod: vmi + "-source", TargetPod: vmi + "-target",
		}
	})
	w.play(2 * time.Second)
	require.NotEmpty(w, w.vmi(vmi).Status.MigrationState.TargetNodeAddress)
	w.setPhase(name, kubevirtv1.MigrationTargetReady)
	w.play(2 * time.Second)
	require.NotNil(w, w.vmi(vmi).Status.MigrationState.StartTimestamp)
	w.setPhase(name, kubevirtv1.MigrationRunning)
}

func (w *world) setPhase(vmim string, phase kubevirtv1.VirtualMachineInstanceMigrationPhase) {
	w.Helper()
	object := try.Must(virt.VMIMs(w.virt, namespace).Get(w.Context(), vmim))(w)
	object.Status.Phase = phase
	try.Must(virt.VMIMs(w.virt, namespace).Update(w.Context(), object))(w)
}

func (w *world) changeVMI(name string, change func(*kubevirtv1.VirtualMachineInstance)) {
	w.Helper()
	vmi := w.vmi(name)
	change(vmi)
	try.Must(virt.VMIs(w.virt, namespace).Update(w.Context(), vmi))(w)
}

// deletePod sets a pod's deletion timestamp, as the API server does when somebody
// deletes one that runs.
func (w *world) deletePod(name string) {
	w.Helper()
	pod := w.pod(name)
	pod.DeletionTimestamp = &metav1.Time{Time: w.now}
	require.NoError(w, w.client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("pods"), pod, namespace))
}

func (w *world) changeNode(name string, change func(*corev1.Node)) {
	w.Helper()
	node := w.node(name)
	change(node)
	try.Must(w.client.CoreV1().Nodes().Update(w.Context(), node, metav1.UpdateOptions{}))(w)
}

func launcherOf(vmi string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Labels = map[string]string{kubevirtv1.AppLabel: "virt-launcher", kubevirtv1.CreatedByLabel: vmi}
	}
}

func onNode(name string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Spec.NodeName = name }
}

// writes returns what the simulator wrote in its last pass.
func (w *world) writes() []string {
	var result []string
	for _, action := range slices.Concat(w.client.Actions(), w.virt.Actions()) {
		switch action.GetVerb() {
		case "get", "list", "watch":
			continue
		}
		what := action.GetResource().Resource
		if action.GetSubresource() != "" {
			what += "/" + action.GetSubresource()
		}
		result = append(result, action.GetVerb()+" "+what)
	}
	return result
}
