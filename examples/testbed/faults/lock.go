package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"

	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/process"
	"github.com/vmquota/headroom/examples/testbed/scenario"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
)

// lockedLabel is on the quotas that Rancher locks.
const lockedLabel = "resourcequota.management.cattle.io/default-resource-quota"

// reader is a user with the rights of the library, but for the right to enforce limits.
const reader = "headroom-without-status"

// refusedEvent is the reason of the event that tells of a refused write.
const refusedEvent = "HeadroomRefused"

// refusedFor is how long the library meets the refusal. It pauses for 0.5 s after the
// first one, and then twice as long each time.
const refusedFor = 12 * time.Second

// A LockReport is what came of [Lock].
type LockReport struct {
	Tries  int // to write status, without the right to, in refusedFor
	Writes int // of status, with the right
}

func (r LockReport) String() string {
	return fmt.Sprintf("with the right to update resourcequotas/status: the migration of a locked quota's VM succeeds, %d writes; without it: %d writes tried in %v and refused, told in the log and in an event",
		r.Writes, r.Tries, refusedFor)
}

// Lock installs the write lock of Rancher 2.14.6 and 2.15.2, as a policy, on a quota that
// is full. A library without the right to update resourcequotas/status says so, and does
// not try again and again; one that has this right lets the same migration in. The stage
// has no library of its own, and the lock is not installed yet.
func Lock(ctx context.Context, stage *onbed.Stage, log io.Writer) (LockReport, error) {
	var report LockReport
	f, err := stage.Fleet(ctx, "lock", 1, onbed.Label(lockedLabel, "true"))
	if err != nil {
		return report, err
	}
	if err := errors.Join(stage.Bed.LockQuotas(ctx), checkLock(ctx, stage, f)); err != nil {
		return report, err
	}
	if report.Tries, err = meetRefusals(ctx, stage, f, log); err != nil {
		return report, err
	}
	library, err := stage.StartProgram(ctx, process.Headroom, log)
	if err != nil {
		return report, err
	}
	succeeded := f.Await(ctx, "the migration has succeeded", func(s scenario.State) bool {
		return s.Phase("m1") == string(kubevirtv1.MigrationSucceeded)
	})
	if err := errors.Join(succeeded, f.AwaitRest(ctx), library.Stop()); err != nil {
		return report, err
	}
	report.Writes, err = checkWrites(f)
	return report, errors.Join(err, f.Close(ctx))
}

// install creates objects, for those that are not there yet.
func install(ctx context.Context, stage *onbed.Stage, content []byte) error {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		object := &unstructured.Unstructured{}
		switch err := decoder.Decode(object); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		resource := schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"}
		if object.GetKind() == "ValidatingAdmissionPolicyBinding" {
			resource.Resource = "validatingadmissionpolicybindings"
		}
		if _, err := stage.Objects.Resource(resource).Create(ctx, object, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
}

// checkLock checks that the API server enforces the policy, also against administrators:
// spec, annotations and labels are locked, status is open.
func checkLock(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet) error {
	quotas := stage.Client.CoreV1().ResourceQuotas(f.Namespace())
	try := func(patch string, subresources ...string) error {
		_, err := quotas.Patch(ctx, onbed.FleetQuota, types.MergePatchType, []byte(patch), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, subresources...)
		return err
	}
	if err := try(`{"metadata":{"annotations":{"trial":"true"}}}`); !apierrors.IsForbidden(err) {
		return fmt.Errorf("the lock lets annotations be written: %w", err)
	}
	if err := try(fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, lockedLabel), "status"); !apierrors.IsForbidden(err) {
		return fmt.Errorf("the lock lets the label be removed through status: %w", err)
	}
	if err := try(`{"status":{"hard":{"limits.cpu":"100"}}}`, "status"); err != nil {
		return fmt.Errorf("the lock does not leave status open: %w", err)
	}
	return nil
}

// meetRefusals migrates the VM of a fleet while the library has no right to update status,
// and returns how often it tried to.
func meetRefusals(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet, log io.Writer) (int, error) {
	if err := process.Grant(ctx, stage.Client, reader); err != nil {
		return 0, err
	}
	config, err := stage.Bed.User(reader)
	if err != nil {
		return 0, err
	}
	library, err := process.Start(process.Headroom, config, reader, log)
	if err != nil {
		return 0, err
	}
	met := await(ctx, library)
	if met == nil {
		met = f.CreateMigration(ctx, scenario.Migrate{Name: "m1", VM: f.VMs[0]})
	}
	if met == nil {
		met = wait(ctx, refusedFor)
	}
	if err := errors.Join(met, library.Stop()); err != nil {
		return 0, err
	}
	return checkRefusals(ctx, stage, f, library.Log())
}

// checkRefusals returns how often the library tried to write the quota without the right
// to, if it has told that it may not, and did not try too often.
func checkRefusals(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet, told []string) (int, error) {
	events, err := f.Audit()
	if err != nil {
		return 0, err
	}
	tries := 0
	for _, e := range events {
		if e.User == reader && e.Resource == "resourcequotas" {
			tries++
			if e.Code != 403 {
				return tries, fmt.Errorf("a write without the right to was answered with %d %s", e.Code, e.Message)
			}
		}
	}
	const most = 6 // at once, after 0.5, 1.5, 3.5 and 7.5 s, and once more for a change
	if tries == 0 || tries > most {
		return tries, fmt.Errorf("%d writes without the right to were tried, should be 1 to %d", tries, most)
	}
	if !strings.Contains(strings.Join(told, "\n"), "cannot update resource") {
		return tries, fmt.Errorf("the log does not say what was refused: %q", told)
	}
	written, err := stage.Client.CoreV1().Events(f.Namespace()).List(ctx, metav1.ListOptions{FieldSelector: "reason=" + refusedEvent})
	if err != nil {
		return tries, err
	}
	if len(written.Items) != 1 {
		return tries, fmt.Errorf("%d events %s, should be 1", len(written.Items), refusedEvent)
	}
	return tries, nil
}
