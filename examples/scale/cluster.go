//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/quota"
)

// system is the namespace of the ledger.
const system = "headroom"

// A cluster is what a controller's caches hold of one.
type cluster struct {
	*patterns
	machines                           int
	vmims, vmis, pods, quotas, records cache.Indexer
	static, surge                      corev1.ResourceList // of each quota; of each machine
	written                            written
}

func newCluster(p *patterns, machines int) *cluster {
	indexer := func() cache.Indexer {
		return cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	}
	return &cluster{
		patterns: p, machines: machines, surge: p.quota.Status.Used, static: times(p.quota.Status.Used, machines),
		vmims: indexer(), vmis: indexer(), pods: indexer(), quotas: indexer(), records: indexer(),
	}
}

func namespaceName(i int) string { return fmt.Sprintf("tenant-%05d", i) }

// times is n times list.
func times(list corev1.ResourceList, n int) corev1.ResourceList {
	result := corev1.ResourceList{}
	for name, amount := range list {
		sum := amount.DeepCopy()
		for range n - 1 {
			sum.Add(amount)
		}
		result[name] = sum
	}
	return result
}

// fill makes namespace i, in which nothing migrates.
func (c *cluster) fill(i int) error {
	rq := c.quota.DeepCopy()
	rq.Namespace, rq.ManagedFields = namespaceName(i), nil
	rq.Spec.Hard = c.static
	rq.Status = corev1.ResourceQuotaStatus{Hard: c.static, Used: c.static}
	if err := c.quotas.Add(rq.DeepCopy()); err != nil {
		return err
	}
	for machine := range c.machines {
		if err := c.put(i, machine, blocked, false); err != nil {
			return err
		}
	}
	return nil
}

// migrate brings the migration of the first machine of namespace i into a phase.
func (c *cluster) migrate(i int, to phase) error {
	if to > blocked {
		for _, store := range []cache.Indexer{c.vmims, c.vmis, c.pods} {
			objects, err := store.ByIndex(cache.NamespaceIndex, namespaceName(i))
			if err != nil {
				return err
			}
			for _, object := range objects {
				if err := store.Delete(object); err != nil {
					return err
				}
			}
		}
		for machine := 1; machine < c.machines; machine++ {
			if err := c.put(i, machine, blocked, false); err != nil {
				return err
			}
		}
	}
	used := c.static
	if to == charged {
		used = times(c.surge, c.machines+1)
	}
	stored, err := c.stored(namespaceName(i))
	if err != nil {
		return err
	}
	rq := stored.DeepCopy()
	rq.Status.Used = used
	if err := c.quotas.Update(rq); err != nil {
		return err
	}
	return c.put(i, 0, to, true)
}

// put puts the objects of one machine into the stores.
func (c *cluster) put(i, machine int, at phase, migrates bool) error {
	pairs := []string{c.namespace, namespaceName(i), c.machine, fmt.Sprintf("vm%d", machine)}
	for _, uid := range c.uids {
		pairs = append(pairs, uid, fmt.Sprintf("%08x%s", i*c.machines+machine, uid[8:]))
	}
	names := strings.NewReplacer(pairs...)
	if migrates {
		if err := add[kubevirtv1.VirtualMachineInstanceMigration](c.vmims, names, c.patterns.vmims[at]); err != nil {
			return err
		}
	}
	if err := add[kubevirtv1.VirtualMachineInstance](c.vmis, names, c.patterns.vmis[at]); err != nil {
		return err
	}
	return add[corev1.Pod](c.pods, names, c.patterns.pods[at])
}

// add decodes objects, under other names, and adds them to a store.
func add[T any](to cache.Indexer, names *strings.Replacer, texts []string) error {
	for _, text := range texts {
		object := new(T)
		if err := json.Unmarshal([]byte(names.Replace(text)), object); err != nil {
			return err
		}
		if err := to.Add(object); err != nil {
			return err
		}
	}
	return nil
}

// stored is the quota of namespace.
func (c *cluster) stored(namespace string) (*corev1.ResourceQuota, error) {
	object, _, err := c.quotas.GetByKey(namespace + "/" + c.quota.Name)
	if err != nil {
		return nil, err
	}
	rq, ok := object.(*corev1.ResourceQuota)
	if !ok {
		return nil, fmt.Errorf("namespace %s has no quota", namespace)
	}
	return rq, nil
}

// changed is how many quotas are raised, or not what they were.
func (c *cluster) changed() int {
	n := 0
	for _, object := range c.quotas.List() {
		if rq, ok := object.(*corev1.ResourceQuota); !ok || len(rq.Annotations) > len(c.quota.Annotations) || !quota.Equal(rq.Spec.Hard, c.static) {
			n++
		}
	}
	return n
}
