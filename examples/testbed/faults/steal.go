package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
)

// thiefUser is the tenant who steals.
const thiefUser = "headroom-testbed-thief"

// Steal drains all three nodes of a fleet of n virtual machines, one after the other,
// while a thief is at work in its namespace. It reports what the thief got, and that the
// drains came through all the same. The stage has the library.
//
// The manifests of the guard are in folder, such as examples/controller/guard/policy; ""
// is no guard. With it the stage's library has to be [process.Guarded].
func Steal(ctx context.Context, stage *onbed.Stage, n int, hold time.Duration, folder string) (Loot, error) {
	f, err := stage.Fleet(ctx, "thief", n, onbed.Linger(2*time.Second))
	if err != nil {
		return Loot{}, err
	}
	if folder != "" {
		if err := errors.Join(installGuard(ctx, stage, folder), guard(ctx, stage, f.Namespace())); err != nil {
			return Loot{}, err
		}
	}
	loot, err := stealWhile(ctx, stage, f, hold, look, func() error {
		for i := range 3 {
			if err := evacuateAtLast(ctx, f, fmt.Sprintf("node%02d", i+1)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return loot, err
	}
	return loot, errors.Join(f.AwaitRest(ctx), f.Close(ctx))
}

// stealWhile lets a thief, who looks again after pause, work in the namespace of f until do
// returns.
func stealWhile(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet, hold, pause time.Duration, do func() error) (Loot, error) {
	if err := GrantThief(ctx, stage.Client, f.Namespace(), thiefUser); err != nil {
		return Loot{}, err
	}
	config, err := stage.Bed.User(thiefUser)
	if err != nil {
		return Loot{}, err
	}
	thief, err := NewThief(config, f.Namespace(), hold)
	if err != nil {
		return Loot{}, err
	}
	thief.look = pause
	stealing, stop := context.WithCancel(ctx)
	defer stop()
	type outcome struct {
		loot Loot
		err  error
	}
	stolen := make(chan outcome, 1)
	go func() {
		loot, err := thief.Run(stealing)
		stolen <- outcome{loot, err}
	}()
	failed := do()
	stop()
	got := <-stolen
	return got.loot, errors.Join(failed, got.err)
}

// Loots are what thieves got, by what they did.
type Loots map[string]Loot

func (l Loots) String() string {
	text := ""
	for _, what := range slices.Sorted(maps.Keys(l)) {
		text += fmt.Sprintf("\n  %s: %v", what, l[what])
	}
	return text
}

// Mint lets a tenant who fills his quota give his virtual machine more memory than is left, so
// that KubeVirt tries for so long to create a target pod that can never come; and ten migrate,
// for each of three thieves that react sooner or later. The first keeps what he gets, the others
// for two seconds. There is no guard.
func Mint(ctx context.Context, stage *onbed.Stage, long time.Duration) (Loots, error) {
	f, err := stage.Fleet(ctx, "mint", 1)
	if err != nil {
		return nil, err
	}
	loots := Loots{}
	loots["hot-plugs his VM"], err = stealWhile(ctx, stage, f, time.Hour, look, func() error {
		if err := f.HotPlug(ctx, scenario.HotPlug{VM: f.VMs[0], Memory: *resource.NewQuantity(2<<30, resource.BinarySI)}); err != nil {
			return err
		}
		return wait(ctx, long)
	})
	if err := errors.Join(err, f.Close(ctx)); err != nil {
		return loots, err
	}
	for _, pause := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond} {
		if f, err = stage.Fleet(ctx, "react", 10); err != nil {
			return loots, err
		}
		loots[fmt.Sprintf("looks every %v", pause)], err = stealWhile(ctx, stage, f, 2*time.Second, pause, func() error {
			for i, vm := range f.VMs {
				if err := f.CreateMigration(ctx, scenario.Migrate{Name: fmt.Sprintf("m%d", i), VM: vm}); err != nil {
					return err
				}
			}
			var err error
			for range 5 { // with the patience that it takes beside a thief
				if err = f.Await(ctx, "all have migrated", allOver); err == nil {
					return nil
				}
			}
			return err
		})
		if err := errors.Join(err, f.Close(ctx)); err != nil {
			return loots, err
		}
	}
	return loots, nil
}

func allOver(s scenario.State) bool {
	return !slices.ContainsFunc(s.Migrations, func(m *kubevirtv1.VirtualMachineInstanceMigration) bool { return !m.IsFinal() })
}

// evacuateAtLast drains a node, with the patience that it takes where a thief is at work: each
// time that the room of a migration is taken, the library waits twice as long, up to a
// minute, until it offers room again.
func evacuateAtLast(ctx context.Context, f *onbed.Fleet, node string) error {
	var err error
	for range 5 {
		if err = f.Evacuate(ctx, node); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// annotate sets an annotation of the fleet's quota; nil: there is none.
func annotate(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet, name string, value any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{name: value}}})
	if err != nil {
		return err
	}
	_, err = stage.Client.CoreV1().ResourceQuotas(f.Namespace()).
		Patch(ctx, onbed.FleetQuota, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
