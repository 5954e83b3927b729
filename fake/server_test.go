package fake

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

func quantities(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

func newQuota(namespace, name string, hard corev1.ResourceList) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.ResourceQuotaSpec{Hard: hard},
	}
}

func TestStaleUpdatesAreRefused(t *testing.T) {
	ctx, c := context.Background(), New(Config{})
	quotas := c.Client("user").CoreV1().ResourceQuotas("n")
	first, err := quotas.Create(ctx, newQuota("n", "q", quantities("pods", "1")), metav1.CreateOptions{})
	require.NoError(t, err)
	second := first.DeepCopy()
	second.Spec.Hard = quantities("pods", "2")
	second, err = quotas.Update(ctx, second, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.NotEqual(t, first.ResourceVersion, second.ResourceVersion)

	_, err = quotas.Update(ctx, first, metav1.UpdateOptions{})
	require.True(t, apierrors.IsConflict(err))
	require.EqualError(t, err, `Operation cannot be fulfilled on resourcequotas "q": the object has been modified; please apply your changes to the latest version and try again`)
	_, err = quotas.UpdateStatus(ctx, first, metav1.UpdateOptions{})
	require.True(t, apierrors.IsConflict(err))
	_, err = quotas.Patch(ctx, "q", types.MergePatchType, []byte(`{"metadata":{"resourceVersion":"1"},"spec":{"hard":{"pods":"3"}}}`), metav1.PatchOptions{})
	require.True(t, apierrors.IsConflict(err))

	first.ResourceVersion = "" // then the last writer wins
	_, err = quotas.Update(ctx, first, metav1.UpdateOptions{})
	require.NoError(t, err)
	first.UID = "another"
	_, err = quotas.Update(ctx, first, metav1.UpdateOptions{})
	require.True(t, apierrors.IsConflict(err), "the quota was recreated meanwhile")
	first.Name = "missing"
	_, err = quotas.Update(ctx, first, metav1.UpdateOptions{})
	require.True(t, apierrors.IsNotFound(err))
}

func TestUpdateThatChangesNothingIsNoNewVersion(t *testing.T) {
	ctx, c := context.Background(), New(Config{})
	quotas := c.Client("user").CoreV1().ResourceQuotas("n")
	first, err := quotas.Create(ctx, newQuota("n", "q", quantities("pods", "1")), metav1.CreateOptions{})
	require.NoError(t, err)
	same, err := quotas.Update(ctx, first, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Equal(t, first.ResourceVersion, same.ResourceVersion)
}

func TestStatusIsWrittenOnItsOwn(t *testing.T) {
	ctx, c := context.Background(), New(Config{})
	quotas := c.Client("user").CoreV1().ResourceQuotas("n")
	rq := newQuota("n", "q", quantities("pods", "1"))
	rq.Status.Used = quantities("pods", "7")
	rq, err := quotas.Create(ctx, rq, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Empty(t, rq.Status.Used, "a new quota has no status")

	rq.Spec.Hard, rq.Status.Used = quantities("pods", "2"), quantities("pods", "1")
	rq, err = quotas.UpdateStatus(ctx, rq, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Equal(t, "{pods=1}", list(rq.Spec.Hard))
	require.Equal(t, "{pods=1}", list(rq.Status.Used))

	rq.Spec.Hard, rq.Status.Used = quantities("pods", "2"), quantities("pods", "5")
	rq, err = quotas.Update(ctx, rq, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Equal(t, "{pods=2}", list(rq.Spec.Hard))
	require.Equal(t, "{pods=1}", list(rq.Status.Used))

	rq, err = quotas.Patch(ctx, "q", types.MergePatchType, []byte(`{"spec":{"hard":{"pods":"9"}},"status":{"used":{"pods":"3"}}}`), metav1.PatchOptions{}, "status")
	require.NoError(t, err)
	require.Equal(t, "{pods=2}", list(rq.Spec.Hard))
	require.Equal(t, "{pods=3}", list(rq.Status.Used))
}

// An update of the status takes over annotations and labels, but for custom resources.
func TestStatusUpdateTakesMetadata(t *testing.T) {
	ctx, c := context.Background(), New(Config{})
	quotas := c.Client("user").CoreV1().ResourceQuotas("n")
	rq := newQuota("n", "q", quantities("pods", "1"))
	rq.Annotations = map[string]string{"goes": "away", "stays": "1"}
	rq, err := quotas.Create(ctx, rq, metav1.CreateOptions{})
	require.NoError(t, err)
	want := rq.DeepCopy()
	rq.Annotations, rq.Labels = map[string]string{"stays": "2", "comes": "3"}, map[string]string{"a": "b"}
	rq.Spec.Hard, rq.Status.Hard = quantities("pods", "9"), quantities("pods", "2")
	rq.CreationTimestamp, rq.DeletionTimestamp = metav1.Time{}, &metav1.Time{Time: c.Now()}
	want.Annotations, want.Labels, want.Status.Hard = rq.Annotations, rq.Labels, rq.Status.Hard
	rq, err = quotas.UpdateStatus(ctx, rq, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.NotEqual(t, want.ResourceVersion, rq.ResourceVersion)
	want.ResourceVersion = rq.ResourceVersion
	require.Equal(t, want, rq)

	pods := c.Client("user").CoreV1().Pods("n")
	pod := podOf("p", limits("cpu", "1"))
	pod.OwnerReferences = []metav1.OwnerReference{{Name: "owner"}}
	pod, err = pods.Create(ctx, pod, metav1.CreateOptions{})
	require.NoError(t, err)
	pod.Annotations, pod.OwnerReferences, pod.Spec.NodeName, pod.Status.Phase = map[string]string{"a": "b"}, nil, "elsewhere", corev1.PodRunning
	pod, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "b"}, pod.Annotations)
	require.Equal(t, []metav1.OwnerReference{{Name: "owner"}}, pod.OwnerReferences)
	require.Empty(t, pod.Spec.NodeName)
	require.Equal(t, corev1.PodRunning, pod.Status.Phase)

	require.NoError(t, c.CreateMigration(newMigration("n", "m", "vm")))
	m := c.Migration("n", "m")
	m.Annotations, m.Status.Phase = map[string]string{"a": "b"}, kubevirtv1.MigrationPending
	_, err = c.update("user", m, true)
	require.NoError(t, err)
	require.Empty(t, c.Migration("n", "m").Annotations)
	require.Equal(t, kubevirtv1.MigrationPending, c.Migration("n", "m").Status.Phase)
}

func TestCreate(t *testing.T) {
	ctx, c := context.Background(), New(Config{})
	c.Advance(1500 * time.Millisecond)
	maps := c.Client("user").CoreV1().ConfigMaps("n")
	created, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "made-"}, Data: map[string]string{"a": "b"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Regexp(t, "^made-[a-z0-9]{5}$", created.Name)
	require.Equal(t, "n", created.Namespace)
	require.NotEmpty(t, created.UID)
	require.NotEmpty(t, created.ResourceVersion)
	require.Equal(t, epoch.Add(time.Second), created.CreationTimestamp.Time, "Kubernetes stores whole seconds")

	_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "other"}}, metav1.CreateOptions{})
	require.True(t, apierrors.IsBadRequest(err))
	_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: created.Name}}, metav1.CreateOptions{})
	require.True(t, apierrors.IsAlreadyExists(err))
	created.Data["a"] = "changed by its reader"
	read, err := maps.Get(ctx, created.Name, metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "b", read.Data["a"], "readers have memory of their own")
	_, err = maps.Get(ctx, "missing", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err))
}

func TestList(t *testing.T) {
	ctx, c := context.Background(), New(Config{})
	client := c.Client("user").CoreV1()
	for _, name := range []string{"b", "a", "c"} {
		_, err := client.ConfigMaps("n").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"is": name}}}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	_, err := client.ConfigMaps("m").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "d"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	names := func(namespace, selector string) []string {
		found, err := client.ConfigMaps(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		require.NoError(t, err)
		var names []string
		for _, item := range found.Items {
			names = append(names, item.Name)
		}
		return names
	}
	require.Equal(t, []string{"a", "b", "c"}, names("n", ""))
	require.Equal(t, []string{"b"}, names("n", "is=b"))
	require.Equal(t, []string{"d", "a", "b", "c"}, names("", ""))
	require.Empty(t, names("other", ""))
}

func TestPatches(t *testing.T) {
	ctx, c := context.Background(), New(Config{})
	maps := c.Client("user").CoreV1().ConfigMaps("n")
	_, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", Annotations: map[string]string{"a": "1"}}}, metav1.CreateOptions{})
	require.NoError(t, err)
	for kind, patch := range map[types.PatchType]string{
		types.MergePatchType:          `{"metadata":{"annotations":{"merge":"1","a":null}}}`,
		types.StrategicMergePatchType: `{"metadata":{"annotations":{"strategic":"1"}}}`,
		types.JSONPatchType:           `[{"op":"add","path":"/metadata/annotations/json","value":"1"}]`,
	} {
		patched, err := maps.Patch(ctx, "x", kind, []byte(patch), metav1.PatchOptions{})
		require.NoError(t, err)
		read, err := maps.Get(ctx, "x", metav1.GetOptions{})
		require.NoError(t, err)
		require.Equal(t, read, patched)
	}
	read, err := maps.Get(ctx, "x", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"merge": "1", "strategic": "1", "json": "1"}, read.Annotations)
	_, err = maps.Patch(ctx, "missing", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
	require.True(t, apierrors.IsNotFound(err))
}

func TestWhatIsNotThere(t *testing.T) {
	ctx, c := context.Background(), New(Config{})
	client := c.Client("user").CoreV1()
	_, err := client.Pods("n").Watch(ctx, metav1.ListOptions{})
	require.ErrorIs(t, err, errNoWatch)
	_, err = client.ConfigMaps("n").Patch(ctx, "x", types.ApplyPatchType, []byte(`{}`), metav1.PatchOptions{})
	require.ErrorContains(t, err, "server-side apply")
	err = client.Pods("n").Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p"}}, metav1.CreateOptions{})
	require.ErrorContains(t, err, "pods/binding")
}

func TestDelete(t *testing.T) {
	ctx, c := context.Background(), New(Config{})
	maps := c.Client("user").CoreV1().ConfigMaps("n")
	created, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	stale := "0"
	err = maps.Delete(ctx, "x", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &stale}})
	require.True(t, apierrors.IsConflict(err))
	other := types.UID("other")
	err = maps.Delete(ctx, "x", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}})
	require.True(t, apierrors.IsConflict(err))
	require.NoError(t, maps.Delete(ctx, "x", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &created.UID}}))
	require.True(t, apierrors.IsNotFound(maps.Delete(ctx, "x", metav1.DeleteOptions{})))
}

func TestDeleteWaitsForFinalizers(t *testing.T) {
	c := New(Config{})
	require.NoError(t, c.CreateMigration(newMigration("n", "m", "vm")))
	require.NoError(t, c.Abort("n", "m"))
	deleted := c.Migration("n", "m")
	require.NotNil(t, deleted.DeletionTimestamp)
	require.NoError(t, c.Abort("n", "m"))
	require.Equal(t, deleted.ResourceVersion, c.Migration("n", "m").ResourceVersion, "it is being deleted already")
	write(c, "user", deleted, func(m *kubevirtv1.VirtualMachineInstanceMigration) { m.Finalizers = nil })
	require.Nil(t, c.Migration("n", "m"))
}

func TestPodsHaveAGracePeriod(t *testing.T) {
	ctx, c := context.Background(), New(Config{})
	pods := c.Client("user").CoreV1().Pods("n")
	create := func(name string) *corev1.Pod {
		pod, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}, metav1.CreateOptions{})
		require.NoError(t, err)
		return pod
	}
	create("unscheduled")
	require.NoError(t, pods.Delete(ctx, "unscheduled", metav1.DeleteOptions{}))
	_, err := pods.Get(ctx, "unscheduled", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), "it runs nowhere")

	create("runs")
	c.Advance(time.Second)
	require.NoError(t, pods.Delete(ctx, "runs", metav1.DeleteOptions{}))
	pod, err := pods.Get(ctx, "runs", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, int64(30), *pod.DeletionGracePeriodSeconds)
	require.Equal(t, c.Now().Truncate(time.Second).Add(30*time.Second), pod.DeletionTimestamp.Time)
	require.NoError(t, pods.Delete(ctx, "runs", metav1.DeleteOptions{}))
	require.NoError(t, pods.Delete(ctx, "runs", *metav1.NewDeleteOptions(0)))
	_, err = pods.Get(ctx, "runs", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), "it was deleted by force")

	create("ends")
	c.Advance(time.Second)
	require.NoError(t, pods.Delete(ctx, "ends", metav1.DeleteOptions{}))
	c.Advance(time.Second)
	_, err = pods.Get(ctx, "ends", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), "the kubelet ended it")
}

func TestLock(t *testing.T) {
	ctx, c := context.Background(), New(Config{Lock: RancherUser})
	ours, theirs := c.Client("harvester").CoreV1().ResourceQuotas("n"), c.Client(RancherUser).CoreV1().ResourceQuotas("n")
	managed := newQuota("n", "managed", quantities("pods", "1"))
	managed.Labels = map[string]string{RancherLabel: "true"}
	locked := func(err error) {
		t.Helper()
		require.True(t, apierrors.IsForbidden(err))
		require.ErrorContains(t, err, "users are forbidden from changing resources managed by Rancher")
	}
	_, err := ours.Create(ctx, managed, metav1.CreateOptions{})
	locked(err)
	managed, err = theirs.Create(ctx, managed, metav1.CreateOptions{})
	require.NoError(t, err)
	managed.Annotations = map[string]string{"a": "b"}
	_, err = ours.Update(ctx, managed, metav1.UpdateOptions{})
	locked(err)
	locked(ours.Delete(ctx, "managed", metav1.DeleteOptions{}))
	_, err = ours.Patch(ctx, "managed", types.MergePatchType, []byte(`{"metadata":{"labels":null}}`), metav1.PatchOptions{})
	locked(err)
	_, err = ours.Create(ctx, newQuota("n", "other", quantities("pods", "1")), metav1.CreateOptions{})
	require.NoError(t, err, "it is not Rancher's")
	_, err = ours.Patch(ctx, "other", types.MergePatchType, []byte(`{"metadata":{"labels":{"`+RancherLabel+`":"true"}}}`), metav1.PatchOptions{})
	locked(err)
	require.NoError(t, theirs.Delete(ctx, "managed", metav1.DeleteOptions{}))
}

func TestLockLeavesTheStatusOpen(t *testing.T) {
	ctx, c := context.Background(), New(Config{Lock: RancherUser})
	ours, theirs := c.Client("headroom").CoreV1().ResourceQuotas("n"), c.Client(RancherUser).CoreV1().ResourceQuotas("n")
	managed := newQuota("n", "managed", quantities("pods", "1"))
	managed.Labels = map[string]string{RancherLabel: "true"}
	managed, err := theirs.Create(ctx, managed, metav1.CreateOptions{})
	require.NoError(t, err)
	managed.Status.Hard, managed.Annotations = quantities("pods", "2"), map[string]string{"a": "b"}
	managed, err = ours.UpdateStatus(ctx, managed, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Equal(t, "{pods=2}", list(managed.Status.Hard))
	require.Equal(t, map[string]string{"a": "b"}, managed.Annotations)

	managed.Labels = map[string]string{RancherLabel: "false"}
	_, err = ours.UpdateStatus(ctx, managed, metav1.UpdateOptions{})
	require.ErrorContains(t, err, "managed by Rancher", "it takes the label away")
	other, err := ours.Create(ctx, newQuota("n", "other", quantities("pods", "1")), metav1.CreateOptions{})
	require.NoError(t, err)
	other.Labels = map[string]string{RancherLabel: "true"}
	_, err = ours.UpdateStatus(ctx, other, metav1.UpdateOptions{})
	require.ErrorContains(t, err, "managed by Rancher", "it adds the label")
	_, err = theirs.UpdateStatus(ctx, other, metav1.UpdateOptions{})
	require.NoError(t, err)
}

func TestLockIsOnLimitRangesAndOpenToNamespaceController(t *testing.T) {
	ctx, c := context.Background(), New(Config{Lock: RancherUser})
	labels := metav1.ObjectMeta{Name: "managed", Labels: map[string]string{RancherLabel: "true"}}
	_, err := c.Client("admin").CoreV1().LimitRanges("n").Create(ctx, &corev1.LimitRange{ObjectMeta: labels}, metav1.CreateOptions{})
	require.ErrorContains(t, err, "managed by Rancher")
	_, err = c.Client("admin").CoreV1().ConfigMaps("n").Create(ctx, &corev1.ConfigMap{ObjectMeta: labels}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = c.Client(RancherUser).CoreV1().LimitRanges("n").Create(ctx, &corev1.LimitRange{ObjectMeta: labels}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.ErrorContains(t, c.Client("admin").CoreV1().LimitRanges("n").Delete(ctx, "managed", metav1.DeleteOptions{}), "managed by Rancher")
	require.NoError(t, c.Client(namespaceController).CoreV1().LimitRanges("n").Delete(ctx, "managed", metav1.DeleteOptions{}))
}
