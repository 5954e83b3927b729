package faults

import (
	"bytes"
	"context"
	_ "embed" // for the policies
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
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

//go:embed lock.yaml
var lockPolicy []byte

// The label of the quotas that Rancher locks, and who may still write them.
const (
	lockedLabel   = "resourcequota.management.cattle.io/default-resource-quota"
	lockNamespace = "cattle-system"
	lockAccount   = "rancher-webhook-sudo"
)

// refusedEvent is the reason of the event that tells of a refused write.
const refusedEvent = "HeadroomRefused"

// lockedFor is how long the library meets the lock. It pauses 5 s after the first
// refusal, and 10 s after the next one.
const lockedFor = 12 * time.Second

// A LockReport is what came of [Lock].
type LockReport struct {
	Tries int // to write the quota, without the right, in lockedFor
}

func (r LockReport) String() string {
	return fmt.Sprintf("without the right: %d writes tried in %v and refused, told in the log and in an event; with it: the migration succeeds", r.Tries, lockedFor)
}

// Lock installs the write lock of Rancher 2.14.6 and 2.15.2, as a policy. A library
// without the right to write says so, and does not try again and again; one that is the
// service account with the right lets the same migration in. The stage has no library of
// its own.
func Lock(ctx context.Context, stage *onbed.Stage, log io.Writer) (LockReport, error) {
	if err := install(ctx, stage, lockPolicy); err != nil {
		return LockReport{}, err
	}
	f, err := stage.Fleet(ctx, "lock", 1, onbed.Label(lockedLabel, "true"))
	if err != nil {
		return LockReport{}, err
	}
	if err := awaitLock(ctx, stage, f); err != nil {
		return LockReport{}, err
	}
	locked, err := stage.StartProgram(ctx, process.Headroom, onbed.User, log)
	if err != nil {
		return LockReport{}, err
	}
	if err := f.CreateMigration(ctx, scenario.Migrate{Name: "m1", VM: f.VMs[0]}); err != nil {
		return LockReport{}, err
	}
	if err := errors.Join(wait(ctx, lockedFor), locked.Stop()); err != nil {
		return LockReport{}, err
	}
	tries, err := checkRefusals(ctx, stage, f, locked.Log())
	if err != nil {
		return LockReport{}, err
	}
	free, err := startAs(ctx, stage, lockNamespace, lockAccount, log)
	if err != nil {
		return LockReport{}, err
	}
	succeeded := f.Await(ctx, "the migration has succeeded", func(s scenario.State) bool { return s.Phase("m1") == string(kubevirtv1.MigrationSucceeded) })
	if err := errors.Join(succeeded, f.AwaitRest(ctx), free.Stop()); err != nil {
		return LockReport{}, err
	}
	return LockReport{Tries: tries}, f.Close(ctx)
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

// awaitLock waits until the API server enforces the policy, also against administrators.
func awaitLock(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet) error {
	quotas := stage.Client.CoreV1().ResourceQuotas(f.Namespace())
	patch := []byte(`{"metadata":{"annotations":{"trial":"true"}}}`)
	return eventually(ctx, "the lock is on", func() bool {
		_, err := quotas.Patch(ctx, onbed.FleetQuota, types.MergePatchType, patch, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		return apierrors.IsForbidden(err)
	})
}

// checkRefusals returns how often the library tried to write the locked quota, if it has
// told that it may not, and did not try too often.
func checkRefusals(ctx context.Context, stage *onbed.Stage, f *onbed.Fleet, told []string) (int, error) {
	events, err := f.Audit()
	if err != nil {
		return 0, err
	}
	tries := 0
	for _, e := range events {
		if e.User == onbed.User && e.Resource == "resourcequotas" {
			tries++
			if e.Code != 403 {
				return tries, fmt.Errorf("a write to the locked quota was answered with %d %s", e.Code, e.Message)
			}
		}
	}
	const most = 3 // at once, after 5 s, and once more for a change
	if tries == 0 || tries > most {
		return tries, fmt.Errorf("%d writes to the locked quota were tried, should be 1 to %d", tries, most)
	}
	if !strings.Contains(strings.Join(told, "\n"), "users are forbidden from changing resources managed by Rancher") {
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

// startAs starts the library as a service account, which it creates.
func startAs(ctx context.Context, stage *onbed.Stage, namespace, name string, log io.Writer) (*process.Process, error) {
	core := stage.Client.CoreV1()
	_, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := core.ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, err
	}
	user := "system:serviceaccount:" + namespace + ":" + name
	if err := process.Grant(ctx, stage.Client, user, true); err != nil {
		return nil, err
	}
	config, err := stage.Bed.ServiceAccount(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	p, err := process.Start(process.Headroom, config, name, log)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.Ready():
		return p, nil
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), p.Kill())
	}
}
