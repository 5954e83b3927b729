package migration_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
)

func TestNamespaceOfEvents(t *testing.T) {
	meta := func(labels map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "tenant", Name: "x", Labels: labels}
	}
	launcher := &corev1.Pod{ObjectMeta: meta(map[string]string{"kubevirt.io": "virt-launcher"})}
	for name, c := range map[string]struct {
		object any
		want   string
	}{
		"a VMIM":                  {&kubevirtv1.VirtualMachineInstanceMigration{ObjectMeta: meta(nil)}, "tenant"},
		"a VMI":                   {&kubevirtv1.VirtualMachineInstance{ObjectMeta: meta(nil)}, "tenant"},
		"a limit range":           {&corev1.LimitRange{ObjectMeta: meta(nil)}, "tenant"},
		"a virt-launcher pod":     {launcher, "tenant"},
		"an attachment pod":       {&corev1.Pod{ObjectMeta: meta(map[string]string{"kubevirt.io": "hotplug-disk"})}, "tenant"},
		"a missed deletion":       {cache.DeletedFinalStateUnknown{Key: "tenant/x", Obj: launcher}, "tenant"},
		"another pod":             {&corev1.Pod{ObjectMeta: meta(nil)}, ""},
		"a first backend claim":   {&corev1.PersistentVolumeClaim{ObjectMeta: meta(map[string]string{"persistent-state-for": "vm"})}, "tenant"},
		"a second backend claim":  {&corev1.PersistentVolumeClaim{ObjectMeta: meta(map[string]string{"kubevirt.io/migrationName": "m"})}, "tenant"},
		"another claim":           {&corev1.PersistentVolumeClaim{ObjectMeta: meta(nil)}, ""},
		"a backend claim by name": {&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "persistent-state-for-vm"}}, "tenant"},
		"a refusal":               {refusal("", "vm", metav1.Time{}), "tenant"},
		"a quota":                 {&corev1.ResourceQuota{ObjectMeta: meta(nil)}, "tenant"},
		"a namespace":             {&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant"}}, "tenant"},
		"another event":           {&corev1.Event{ObjectMeta: meta(nil)}, ""},
		"something else":          {&corev1.ConfigMap{ObjectMeta: meta(nil)}, ""},
		"nothing":                 {nil, ""},
	} {
		require.Equal(t, c.want, migration.NamespaceOf(c.object), name)
	}
}
