// Package old is the quota scaling of a Harvester without the library (v1.9), for tests
// that run it beside headroom. It is written anew from what Harvester does.
package old

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// The annotations that it writes to quotas.
const (
	Entry  = "harvesterhci.io/migratingUID-" // and the UID of a VMI
	Resync = "harvesterhci.io/migratingScalingResyncNeeded"
)

// Sync does one round of it in a namespace, as the quota and the migration controller of
// Harvester would together: for each VMI with a pending migration it writes an entry with
// adds, for each with a final one it removes the entry, and then it sets the limits of the
// quota to those of the namespace and all entries. Each is a write of its own. A quota that
// a person has told it to skip, and one that Rancher does not manage, are left alone.
//
// It returns the errors of the writes.
func Sync(ctx context.Context, client kubernetes.Interface, namespace string, vmis []*kubevirtv1.VirtualMachineInstance, migrations []*kubevirtv1.VirtualMachineInstanceMigration, adds corev1.ResourceList) error {
	ns, err := client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if err != nil {
		return err
	}
	quotas, err := client.CoreV1().ResourceQuotas(namespace).List(ctx, metav1.ListOptions{LabelSelector: rancher.QuotaLabel + "=true"})
	if err != nil || len(quotas.Items) == 0 {
		return err
	}
	var failed []error
	rq := &quotas.Items[0]
	for _, step := range []func(rq *corev1.ResourceQuota){
		func(rq *corev1.ResourceQuota) { enter(rq, vmis, migrations, adds) },
		func(rq *corev1.ResourceQuota) { scale(rq, ns) },
	} {
		next := rq.DeepCopy()
		step(next)
		if maps.Equal(next.Annotations, rq.Annotations) && quota.Equal(next.Spec.Hard, rq.Spec.Hard) {
			continue
		}
		written, err := client.CoreV1().ResourceQuotas(namespace).Update(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			failed = append(failed, err)
			continue
		}
		rq = written
	}
	return errors.Join(failed...)
}

// enter writes and removes entries.
func enter(rq *corev1.ResourceQuota, vmis []*kubevirtv1.VirtualMachineInstance, migrations []*kubevirtv1.VirtualMachineInstanceMigration, adds corev1.ResourceList) {
	uids := map[string]string{}
	for _, vmi := range vmis {
		uids[vmi.Name] = string(vmi.UID)
	}
	value, err := json.Marshal(adds)
	if err != nil {
		return
	}
	before := maps.Clone(rq.Annotations)
	for _, m := range migrations {
		uid, ok := uids[m.Spec.VMIName]
		switch {
		case !ok: // without the VMI, nobody knows whose entry to remove
		case m.IsFinal():
			delete(rq.Annotations, Entry+uid)
		case m.Status.Phase == kubevirtv1.MigrationPending && !rancher.HarvesterSkips(rq):
			metav1.SetMetaDataAnnotation(&rq.ObjectMeta, Entry+uid, string(value))
		}
	}
	if !maps.Equal(before, rq.Annotations) {
		metav1.SetMetaDataAnnotation(&rq.ObjectMeta, Resync, "true")
	}
}

// scale sets the limits.
func scale(rq *corev1.ResourceQuota, ns *corev1.Namespace) {
	asked, err := rancher.Limits(ns)
	if err != nil || asked == nil || rancher.HarvesterSkips(rq) {
		return
	}
	limits := asked.DeepCopy()
	for key, value := range rq.Annotations {
		if !strings.HasPrefix(key, Entry) {
			continue
		}
		var entry corev1.ResourceList
		if json.Unmarshal([]byte(value), &entry) != nil {
			return // one malformed entry, and nothing is scaled
		}
		for _, name := range []corev1.ResourceName{corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory} {
			if limit, limited := limits[name]; limited {
				limit.Add(entry[name])
				limits[name] = limit
			}
		}
	}
	maps.Copy(rq.Spec.Hard, limits)
	if rq.Annotations[Resync] == "true" {
		rq.Annotations[Resync] = "false"
	}
}
