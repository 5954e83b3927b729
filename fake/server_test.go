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
	managed.Status.Used = quantities("pods", "1")
	_, err = ours.UpdateStatus(ctx, managed, metav1.UpdateOptions{})
	require.NoError(t, err, "the status is open")
	_, err = ours.Create(ctx, newQuota("n", "other", quantities("pods", "1")), metav1.CreateOptions{})
	require.NoError(t, err, "it is not Rancher's")
	require.NoError(t, theirs.Delete(ctx, "managed", metav1.DeleteOptions{}))
}
