//go:build unix

// Scale prints what the library costs in a large cluster: memory, CPU time, and what is
// written for a migration. It needs no cluster.
//
//	go run ./examples/scale -namespaces 10000 -machines 5 -migrating 1000
//
// The caches are client-go's stores, full of objects as a real API server and the real
// virt-controller made them, without managed fields, as the controller keeps them. There
// is no API server: what is written is counted, and put into the stores.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/migration"
)

func main() {
	namespaces := flag.Int("namespaces", 10000, "how many namespaces there are, each with a quota that its machines fill")
	machines := flag.Int("machines", 5, "how many virtual machines each of them has")
	migrating := flag.Int("migrating", 1000, "in how many of them one machine migrates at the same time")
	file := flag.String("recording", "migration/testdata/recordings/basic.jsonl", "where the objects are taken from")
	flag.Parse()
	if err := run(*file, *namespaces, *machines, min(*migrating, *namespaces)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(file string, namespaces, machines, migrating int) error {
	patterns, err := readPatterns(file)
	if err != nil {
		return err
	}
	if machines < 1 {
		return fmt.Errorf("-machines is %d", machines)
	}
	fmt.Printf("%d namespaces, %d virtual machines, %d of them migrate at the same time\n\n", namespaces, namespaces*machines, migrating)

	before, started := heap(), cpu()
	c := newCluster(patterns, machines)
	for i := range namespaces {
		if err := c.fill(i); err != nil {
			return err
		}
	}
	row("CPU time to decode them all", "%.1f s", (cpu() - started).Seconds())
	row("memory of the caches", "%.0f MB", float64(heap()-before)/1e6)
	row("the same for a machine", "%.1f KB", float64(heap()-before)/1e3/float64(namespaces*machines))

	keeper, err := c.keeper()
	if err != nil {
		return err
	}
	look := func(n int) (time.Duration, error) {
		started := cpu()
		for i := range n {
			if _, err := keeper.Keep(context.Background(), namespaceName(i)); err != nil {
				return 0, err
			}
		}
		return cpu() - started, nil
	}
	idle := heap()
	spent, err := look(namespaces)
	if err != nil {
		return err
	}
	row("CPU time to look at every namespace once", "%.2f s", spent.Seconds())
	row("writes for that", "%d", c.written.count())

	var total time.Duration
	for _, phase := range []phase{blocked, charged, over} {
		for i := range migrating {
			if err := c.migrate(i, phase); err != nil {
				return err
			}
		}
		spent, err := look(migrating)
		if err != nil {
			return err
		}
		total += spent
		if phase == charged {
			row("memory that a migration adds", "%.1f KB", float64(max(heap(), idle)-idle)/1e3/float64(max(migrating, 1)))
		}
	}
	each := func(total int) float64 { return float64(total) / float64(max(migrating, 1)) }
	row("CPU time for a migration, from refused to over", "%.2f ms", each(int(total.Microseconds()))/1e3)
	row("writes for a migration: of quotas", "%.1f", each(c.written.quotas))
	row("    bytes of them", "%.0f", each(c.written.quotaBytes))
	row("writes for a migration: of the ledger", "%.1f", each(c.written.records))
	row("    bytes of them", "%.0f", each(c.written.recordBytes))
	row("a ConfigMap of the ledger, at most", "%d bytes", c.written.largestRecord)
	row("a raised quota, at most", "%d bytes", c.written.largestQuota)
	row("quotas that are not as they were", "%d", c.changed())
	row("ConfigMaps that are left", "%d", len(c.records.ListKeys()))
	runtime.KeepAlive(c)
	return nil
}

// keeper is all of the library on the caches of c.
func (c *cluster) keeper() (migration.Keeper, error) {
	caches := migration.Caches{
		Migrations: migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](c.vmims),
		VMIs:       migration.FromIndexer[kubevirtv1.VirtualMachineInstance](c.vmis),
		Pods:       migration.FromIndexer[corev1.Pod](c.pods),
	}
	quotas := migration.FromIndexer[corev1.ResourceQuota](c.quotas)
	record := configmap.New(configMaps{c}, system, configmap.WithInformer(informer{c}), configmap.WithWriter("scale"))
	writer, err := applier.New(applier.Config{Ledger: record, Quotas: resourceQuotas{c}, List: quotas, Now: time.Now})
	if err != nil {
		return migration.Keeper{}, err
	}
	return migration.Keeper{
		Observer: &migration.Observer{Caches: caches, Ledger: record, Now: time.Now},
		Applier:  writer,
		Nudger:   &migration.Nudger{Caches: caches, Quotas: quotas, Patch: patchNobody, Now: time.Now},
	}, nil
}

// patchNobody is for a cluster in which KubeVirt sleeps never.
func patchNobody(context.Context, string, string, []byte) error { return nil }

func row(what, format string, value any) {
	fmt.Printf("%-48s "+format+"\n", what, value)
}

// heap is what is in use after a garbage collection, in bytes.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// cpu is the time that this process has had a core for itself, so that it does not matter
// what else the machine does.
func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
