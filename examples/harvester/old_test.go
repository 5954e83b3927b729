package main

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

// perVM is what one VM of the tests is charged, and what an old Harvester would add for it
// if it knew.
var perVM = corev1.ResourceList{"limits.cpu": resource.MustParse("1015m"), "limits.memory": resource.MustParse("2773714688")}

// oldHarvester is a Harvester without the library (v1.4.2 and newer): an entry for each
// migration that waits or runs, gone when the migration has ended and the VMI is there to
// tell of it, and limits that are the namespace's and the entries'. Breaks changes what it
// writes; nil: nothing.
func oldHarvester(breaks func(rq *corev1.ResourceQuota)) func(p *fake.Process) fake.Program {
	return oldHarvesterThatAdds(perVM, breaks)
}

// oldHarvesterThatAdds thinks that each target pod needs adds; nil: it writes no entry.
func oldHarvesterThatAdds(adds corev1.ResourceList, breaks func(rq *corev1.ResourceQuota)) func(p *fake.Process) fake.Program {
	return func(p *fake.Process) fake.Program {
		return fake.Program{Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
			client := p.Client.CoreV1()
			quotas, err := client.ResourceQuotas(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return 0, err
			}
			ns, err := client.Namespaces().Get(ctx, namespace, metav1.GetOptions{})
			if err != nil {
				return 0, err
			}
			asked, err := rancher.Limits(ns)
			if err != nil {
				return 0, nil // it logs this and goes on
			}
			for i := range quotas.Items {
				rq := quotas.Items[i].DeepCopy()
				if rq.Labels[fake.RancherLabel] != "true" {
					continue
				}
				scale(rq, p.Caches.Snapshot(namespace).Migrations, p.Caches.Snapshot(namespace).VMIs, asked, adds)
				if breaks != nil {
					breaks(rq)
				}
				if maps.Equal(rq.Annotations, quotas.Items[i].Annotations) && quota.Equal(rq.Spec.Hard, quotas.Items[i].Spec.Hard) {
					continue
				}
				if _, err := client.ResourceQuotas(namespace).Update(ctx, rq, metav1.UpdateOptions{}); err != nil {
					return 0, err
				}
			}
			return 0, nil
		}}
	}
}

func scale(rq *corev1.ResourceQuota, migrations []*kubevirtv1.VirtualMachineInstanceMigration, vmis []*kubevirtv1.VirtualMachineInstance, asked, adds corev1.ResourceList) {
	uids := map[string]string{}
	for _, vmi := range vmis {
		uids[vmi.Name] = string(vmi.UID)
	}
	entry, _ := json.Marshal(adds)
	for _, m := range migrations {
		uid, ok := uids[m.Spec.VMIName]
		switch {
		case !ok: // nobody tells whose entry to remove
		case m.IsFinal():
			delete(rq.Annotations, rancher.HarvesterUIDPrefix+uid)
		case m.Status.Phase == kubevirtv1.MigrationPending && adds != nil:
			metav1.SetMetaDataAnnotation(&rq.ObjectMeta, rancher.HarvesterUIDPrefix+uid, string(entry))
		}
	}
	if rancher.HarvesterSkips(rq) || asked == nil {
		return
	}
	record, err := rancher.ReadHarvester(rq)
	if err != nil {
		return // it skips the namespace
	}
	for name, base := range asked {
		for _, e := range record.Entries {
			base.Add(e.Surge[name])
		}
		if name == corev1.ResourceLimitsMemory {
			base.Add(record.Compensation[name])
		}
		rq.Spec.Hard[name] = base
	}
}

// traces are the annotations on rq that are Harvester's.
func traces(rq *corev1.ResourceQuota) []string {
	var found []string
	for key := range rq.Annotations {
		if strings.HasPrefix(key, "harvesterhci.io/migrating") {
			found = append(found, key)
		}
	}
	return found
}
