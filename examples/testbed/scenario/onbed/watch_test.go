package onbed

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/vmquota/headroom/examples/testbed/try"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/fake/recording"
)

// lines is a file that can be read while it is written.
type lines struct {
	sync.Mutex
	bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.Buffer.Write(p)
}

func (l *lines) read(t try.T) (read []string) {
	l.Lock()
	defer l.Unlock()
	for _, e := range try.Must(recording.Read(bytes.NewReader(l.Bytes())))(t) {
		require.Empty(t, e.Object.GetManagedFields())
		read = append(read, string(e.Type)+" "+e.Object.GetName())
	}
	return read
}

// What Record writes is what package recording reads: of this namespace, in order, and no more when
// its test has ended.
func TestRecord(t *testing.T) {
	client := fake.NewClientset()
	objects := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		virt.Instances: "VirtualMachineInstanceList", virt.Migrations: "VirtualMachineInstanceMigrationList",
	})
	stage := &Stage{Client: client, Objects: objects, watch: newWatch(t, client, objects)}
	quotas := client.CoreV1().ResourceQuotas("n")
	var file lines
	awaits := func(want ...string) {
		try.Eventually(t, func(c try.T) { require.Equal(c, want, file.read(c)) })
	}
	t.Run("while it records", func(t *testing.T) {
		c := &Cluster{T: t, stage: stage, namespace: "n"}
		c.Record(&file)
		rq := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}}}
		try.Must(client.CoreV1().ResourceQuotas("other").Create(t.Context(), rq, metav1.CreateOptions{}))(t)
		try.Must(quotas.Create(t.Context(), rq, metav1.CreateOptions{}))(t)
		awaits("ADDED q")
		try.Must(c.VMIMs().Create(t.Context(), virt.NewVMIM("n", "m", "vm")))(t)
		awaits("ADDED q", "ADDED m")
		rq.Labels = map[string]string{"a": "b"}
		try.Must(quotas.Update(t.Context(), rq, metav1.UpdateOptions{}))(t)
		awaits("ADDED q", "ADDED m", "MODIFIED q")
		require.NoError(t, quotas.Delete(t.Context(), "q", metav1.DeleteOptions{}))
		awaits("ADDED q", "ADDED m", "MODIFIED q", "DELETED q")
	})
	try.Must(quotas.Create(t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "later"}}, metav1.CreateOptions{}))(t)
	try.Eventually(t, func(c try.T) { require.Len(c, stage.watch.state("n").Quotas, 1) })
	time.Sleep(20 * time.Millisecond)
	require.Len(t, file.read(t), 4)
}
