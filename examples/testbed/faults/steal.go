package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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
	var failed error
	for i := 0; i < 3 && failed == nil; i++ {
		failed = evacuateAtLast(ctx, f, fmt.Sprintf("node%02d", i+1))
	}
	stop()
	got := <-stolen
	if err := errors.Join(failed, got.err); err != nil {
		return got.loot, err
	}
	return got.loot, errors.Join(f.AwaitRest(ctx), f.Close(ctx))
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
