package onbed

import (
	"bytes"
	"fmt"
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

	"github.com/vmquota/headroom/examples/testbed/bed"
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

func TestCheckAudit(t *testing.T) {
	write := func(user, verb, subresource string, code int32, revision int, rest string) bed.AuditEvent {
		return bed.AuditEvent{
			Verb: verb, AuditUser: bed.AuditUser{User: user}, AuditAnswer: bed.AuditAnswer{Code: code},
			AuditObject:    bed.AuditObject{Resource: "resourcequotas", Subresource: subresource, Namespace: "n", Name: "q"},
			ResponseObject: fmt.Appendf(nil, `{"metadata":{"uid":"u","resourceVersion":"%d"%s}`, revision, rest),
		}
	}
	const (
		plain   = `,"annotations":{"a":"b"}},"spec":{"hard":{"pods":"1"}},"status":{"hard":{"pods":"1"},"used":{"pods":"1"}}`
		raised  = `,"annotations":{"a":"b"}},"spec":{"hard":{"pods":"1"}},"status":{"hard":{"pods":"2"},"used":{"pods":"1"}}`
		offered = `,"annotations":{"a":"b","headroom.vmquota.io/offer":"x"}},"spec":{"hard":{"pods":"1"}},"status":{"hard":{"pods":"2"},"used":{"pods":"1"}}`
		edited  = `,"annotations":{"a":"b"}},"spec":{"hard":{"pods":"2"}},"status":{"hard":{"pods":"2"},"used":{"pods":"1"}}`
		marked  = `,"annotations":{"a":"b","c":"d"}},"spec":{"hard":{"pods":"1"}},"status":{"hard":{"pods":"2"},"used":{"pods":"1"}}`
		counted = `,"annotations":{"a":"b"}},"spec":{"hard":{"pods":"1"}},"status":{"hard":{"pods":"2"},"used":{"pods":"0"}}`
		labeled = `,"annotations":{"a":"b"},"labels":{"e":"f"}},"spec":{"hard":{"pods":"1"}},"status":{"hard":{"pods":"2"},"used":{"pods":"1"}}`
	)
	first := write("admin", "create", "", 201, 7, plain)
	for _, test := range []struct {
		name   string
		events []bed.AuditEvent
		want   string // empty: nothing is wrong
	}{
		{"the limit is enforced", []bed.AuditEvent{first, write(User, "update", "status", 200, 8, raised)}, ""},
		{"an offer is announced", []bed.AuditEvent{first, write(User, "update", "status", 200, 8, offered)}, ""},
		{"somebody else edits", []bed.AuditEvent{first, write("admin", "update", "", 200, 8, edited)}, ""},
		{"logged in another order", []bed.AuditEvent{first, write(User, "update", "status", 200, 10, edited), write("admin", "update", "", 200, 9, edited)}, ""},
		{"spec is written", []bed.AuditEvent{first, write(User, "update", "", 200, 8, raised)}, "tried to update resourcequotas/"},
		{"spec is written in vain", []bed.AuditEvent{first, write(User, "update", "", 403, 8, "}")}, "tried to update resourcequotas/"},
		{"status is patched", []bed.AuditEvent{first, write(User, "patch", "status", 200, 8, raised)}, "tried to patch resourcequotas/status"},
		{"a quota is deleted", []bed.AuditEvent{first, write(User, "delete", "", 200, 8, "}")}, "tried to delete resourcequotas/"},
		{"spec has changed", []bed.AuditEvent{first, write(User, "update", "status", 200, 8, edited)}, "changed spec"},
		{"usage has changed", []bed.AuditEvent{first, write(User, "update", "status", 200, 8, counted)}, "changed status.used"},
		{"a label has changed", []bed.AuditEvent{first, write(User, "update", "status", 200, 8, labeled)}, "changed labels"},
		{"an annotation has changed", []bed.AuditEvent{first, write(User, "update", "status", 200, 8, marked)}, "changed annotations"},
	} {
		err := CheckAudit(test.events)
		if test.want == "" {
			require.NoError(t, err, test.name)
		} else {
			require.ErrorContains(t, err, test.want, test.name)
		}
	}
}
