// Package scenario plays small stories about a namespace with quotas and migrating
// virtual machines on a [Cluster], and tells how they end. A scenario is a YAML file.
//
// Every scenario has a namespace of its own. Its steps are taken one after the other, and
// a step that waits says for what. Then it is waited until everything is as end says,
// and until nothing moves any more. Whatever the scenario, in the end spec.hard and status.hard
// of every quota are to be the static limits to the byte, which are those that the file gave the
// quota last, with no annotation of the library, and the ledger without a record of the namespace.
//
// The two clusters are package onfake, which is simulated, and package onbed, which is a
// real control plane. An [End] is the same on both, or one of them is wrong.
package scenario

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/vmquota/headroom/examples/testbed/sim"
)

// A Scenario is a file, decoded by [Parse].
type Scenario struct {
	// Name is that of the file.
	Name string `json:"-"`
	// About says in a sentence what the scenario is about.
	About string `json:"about"`
	// Alone says that the scenario changes the whole cluster, or needs it for itself.
	Alone bool `json:"alone,omitempty"`
	// Recorded says that the ledger is in ConfigMaps, not in the memory of the process.
	Recorded bool `json:"recorded,omitempty"`
	// Overhead is how many bytes KubeVirt adds to the memory of each virt-launcher pod of
	// this scenario. Zero: 283115520, as for one core and 1Gi. A simulated KubeVirt is
	// told, a real one is held to it.
	Overhead int64 `json:"overhead,omitempty"`
	// Steps are what happens.
	Steps []Step `json:"steps"`
	// End is what is there afterwards.
	End Expectation `json:"end"`
}

// A Step is one of these.
type Step struct {
	Quota      *Quota      `json:"quota,omitempty"`      // is created
	LimitRange *LimitRange `json:"limitRange,omitempty"` // is created
	Claim      *Claim      `json:"claim,omitempty"`      // is created
	VM         *VM         `json:"vm,omitempty"`         // is started, and waited for
	Pod        *Pod        `json:"pod,omitempty"`        // is created by the tenant
	Migrate    *Migrate    `json:"migrate,omitempty"`    // a migration is created
	HotPlug    *HotPlug    `json:"hotPlug,omitempty"`    // a VM gets more memory, by migrating
	Attach     string      `json:"attach,omitempty"`     // a utility volume, to this VM
	Detach     string      `json:"detach,omitempty"`     // all of them, from this VM
	Backup     *Backup     `json:"backup,omitempty"`     // of a VM, begins or ends
	Refuse     string      `json:"refuse,omitempty"`     // another quota than a ResourceQuota refuses all pods in these words
	Relent     bool        `json:"relent,omitempty"`     // it lets them in again
	Template   *Template   `json:"template,omitempty"`   // of ResourceClaims, is created
	Resize     *Resize     `json:"resize,omitempty"`     // a source pod is resized in place
	Drain      string      `json:"drain,omitempty"`      // a node is drained
	Undrain    string      `json:"undrain,omitempty"`    // and in service again
	Overhead   *Overhead   `json:"overhead,omitempty"`   // KubeVirt's configuration is changed
	Edit       *Edit       `json:"edit,omitempty"`       // a quota is edited by an admin
	KillSwitch *KillSwitch `json:"killSwitch,omitempty"` // is turned on or off
	Ledger     *Ledger     `json:"ledger,omitempty"`     // the ledger is edited by hand
	Delete     *Delete     `json:"delete,omitempty"`     // something is deleted
	Await      *Await      `json:"await,omitempty"`      // something is waited for
	Rest       bool        `json:"rest,omitempty"`       // as much time passes as anything takes
}

// A Quota is a ResourceQuota.
type Quota struct {
	Name   string                      `json:"name"`
	Hard   corev1.ResourceList         `json:"hard"`
	Scopes []corev1.ResourceQuotaScope `json:"scopes,omitempty"`
}

// A LimitRange gives these limits to containers that have none.
type LimitRange struct {
	Name    string              `json:"name"`
	Default corev1.ResourceList `json:"default"`
}

// A VM is one or some virtual machines.
type VM struct {
	Name   string            `json:"name"`
	Count  int               `json:"count,omitempty"` // more than one: Name1, Name2, ...
	Cores  uint32            `json:"cores"`
	Memory resource.Quantity `json:"memory"` // of the guest
	// Limits are set on the VM. Nil: KubeVirt sets what a quota demands, as it does.
	Limits corev1.ResourceList `json:"limits,omitempty"`
	// Template is that of the ResourceClaim for its devices. Empty: it has none.
	Template string `json:"template,omitempty"`
	// TPM says that it has one whose state KubeVirt keeps in a claim of 10Mi.
	TPM bool `json:"tpm,omitempty"`
	// Volume is a claim that is plugged in while it runs, which takes a pod of its own on its
	// node. Empty: there is none.
	Volume string `json:"volume,omitempty"`
	// Refused says that quota does not let it in, so that nobody waits for it.
	Refused bool `json:"refused,omitempty"`
}

// A Claim is a PersistentVolumeClaim, bound to a volume that many nodes can mount.
type Claim struct {
	Name    string            `json:"name"`
	Storage resource.Quantity `json:"storage"`
}

// A Backup is one of the disks of a running VM.
type Backup struct {
	VM    string `json:"vm"`
	Ended bool   `json:"ended,omitempty"`
}

// A Template is a ResourceClaimTemplate for devices of a class.
type Template struct {
	Name    string `json:"name"`
	Class   string `json:"class"`
	Devices int64  `json:"devices"`
}

// A Resize gives containers of the source pod of a migration other limits of CPU, as somebody
// who may resize pods does. The node has not done it yet: the status of these containers is
// what spec was.
type Resize struct {
	Source string                       `json:"source"` // of this migration
	CPU    map[string]resource.Quantity `json:"cpu"`    // by the name of the container
}

// A Pod is one that is no virtual machine's.
type Pod struct {
	Name    string              `json:"name"`
	Limits  corev1.ResourceList `json:"limits"`
	Refused bool                `json:"refused,omitempty"` // by quota
}

// A Migrate is a VirtualMachineInstanceMigration.
type Migrate struct {
	Name string `json:"name"`
	VM   string `json:"vm"`
	// Goes is how: empty, it succeeds; hang, it stays in Running; fail, it fails there.
	Goes string `json:"goes,omitempty"`
	// Linger is how long the losing pod takes to end: a duration, or forever, which ends
	// when the pod is deleted. Empty: as long as it does.
	Linger string `json:"linger,omitempty"`
	// Evacuates says that a drain wants it, so that KubeVirt waits after one that failed.
	Evacuates bool `json:"evacuates,omitempty"`
}

// The values of Migrate.Goes and Migrate.Linger that are words.
const (
	Hang    = sim.Hang
	Fail    = sim.Fail
	Forever = sim.Forever
)

// A HotPlug gives the guest of a running VM another size.
type HotPlug struct {
	VM     string            `json:"vm"`
	Memory resource.Quantity `json:"memory"`
	// Overhead is how many bytes KubeVirt then adds to the memory of the pod.
	Overhead int64 `json:"overhead"`
}

// An Overhead is how much memory KubeVirt adds to the pods that it renders from now on.
type Overhead struct {
	Ratio string `json:"ratio"` // additionalGuestMemoryOverheadRatio
	Bytes int64  `json:"bytes"` // what that makes of it
}

// An Edit changes spec of a quota as somebody with kubectl does.
type Edit struct {
	Quota  string                `json:"quota"`
	Set    corev1.ResourceList   `json:"set,omitempty"`
	Remove []corev1.ResourceName `json:"remove,omitempty"`
	// Select is the scope that spec.scopeSelector asks for. spec.scopes cannot be changed.
	Select corev1.ResourceQuotaScope `json:"select,omitempty"`
}

// A KillSwitch is that of a quota, or of the namespace.
type KillSwitch struct {
	Quota    string `json:"quota,omitempty"` // empty: the namespace's
	Disabled bool   `json:"disabled"`
}

// A Ledger is what somebody does to the record of the namespace.
type Ledger struct {
	Corrupt bool `json:"corrupt,omitempty"` // no entry can be read any more
	Delete  bool `json:"delete,omitempty"`
}

// A Delete names what is deleted.
type Delete struct {
	Quota     string `json:"quota,omitempty"`
	VM        string `json:"vm,omitempty"`
	Migration string `json:"migration,omitempty"`
	Source    string `json:"source,omitempty"` // the source pod of this migration
	Pod       string `json:"pod,omitempty"`
	Namespace bool   `json:"namespace,omitempty"` // the scenario's own, with all that is in it
}

// An Await is waited for. All that it says has to be so at the same time.
type Await struct {
	// Migrations are phases by name, or Refused, Gone, or Charged, which is: its target pod
	// exists.
	Migrations map[string]string `json:"migrations,omitempty"`
	// Waits are what migrations, by name or as update, were told to wait for: reasons of a
	// migration.Wait, by the events HeadroomWaiting on them.
	Waits map[string]string `json:"waits,omitempty"`
	// Evacuations is how many migrations of a drain have succeeded.
	Evacuations *int `json:"evacuations,omitempty"`
	// Quotas are Raised or Static, by name: status.hard is above spec.hard, or is spec.hard.
	Quotas map[string]string `json:"quotas,omitempty"`
	// Enforced is status.hard by the name of the quota, with all that is in it.
	Enforced map[string]corev1.ResourceList `json:"enforced,omitempty"`
	// Used is what counts against a quota, by its name, with all that is in it.
	Used map[string]corev1.ResourceList `json:"used,omitempty"`
	// Over says that every quota is Static, and no VM has two pods that count.
	Over bool `json:"over,omitempty"`
	// Update is the phase of the migration that a hot-plug has made.
	Update string `json:"update,omitempty"`
	// Node is one that no VM runs on.
	Node string `json:"node,omitempty"`
	// Ledger is Empty or Recorded.
	Ledger string `json:"ledger,omitempty"`
}

// What an Await can say beside the phases of a migration.
const (
	Refused  = "Refused"
	Gone     = "Gone"
	Charged  = "Charged"
	Raised   = "Raised"
	Static   = "Static"
	Empty    = "Empty"
	Recorded = "Recorded"
)

// An Expectation is what is there in the end.
type Expectation struct {
	// Migrations are the phases by name; Gone, and Refused in Pending. All that the
	// steps name have to be there. Those of a drain or a hot-plug are called evacuation
	// and update, with a number in the order of their names.
	Migrations map[string]string `json:"migrations,omitempty"`
	// Pods are the phases of the pods of each VM, and of the others by their own name,
	// sorted.
	Pods map[string][]corev1.PodPhase `json:"pods,omitempty"`
	// Used is what counts against a quota, by its name.
	Used map[string]corev1.ResourceList `json:"used,omitempty"`
	// Writes is how often the library has written to quotas; nil: it depends on the
	// order of events. WritesAtMost is a limit where it does; zero: there is none.
	Writes       *int `json:"writes,omitempty"`
	WritesAtMost int  `json:"writesAtMost,omitempty"`
	// NoNamespace says that it is gone.
	NoNamespace bool `json:"noNamespace,omitempty"`
}

// Parse decodes the content of a file. Fields that are not known or come twice, a step that is not
// one thing, a word that means nothing, and a migration of which End says nothing are errors. So is
// an Await of a migration that no earlier step has made, which would be Gone. Other names that no
// step has made fail when the scenario is played.
func Parse(file string, content []byte) (*Scenario, error) {
	s := &Scenario{Name: strings.TrimSuffix(path.Base(file), path.Ext(file))}
	if err := errors.Join(yaml.UnmarshalStrict(content, s), s.check()); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

func (s *Scenario) check() error {
	if s.About == "" || len(s.Steps) == 0 {
		return errors.New("about or steps are missing")
	}
	made := map[string]bool{} // migrations
	for i, step := range s.Steps {
		set, value := 0, reflect.ValueOf(step)
		for field := range value.NumField() {
			if !value.Field(field).IsZero() {
				set++
			}
		}
		if set != 1 {
			return fmt.Errorf("steps[%d]: a step is one thing, not %d", i, set)
		}
		var err error
		switch {
		case step.Migrate != nil:
			made[step.Migrate.Name] = true
			err = step.Migrate.check()
		case step.Await != nil:
			err = step.Await.check(made)
		}
		if err != nil {
			return fmt.Errorf("steps[%d].%w", i, err)
		}
	}
	for name := range made {
		if s.End.Migrations[name] == "" && !s.End.NoNamespace {
			return fmt.Errorf("end.migrations.%s is missing", name)
		}
	}
	return nil
}

func (m Migrate) check() error {
	if m.Linger != "" && m.Linger != Forever {
		if _, err := time.ParseDuration(m.Linger); err != nil {
			return fmt.Errorf("migrate.linger: %w", err)
		}
	}
	return oneOf("migrate.goes", m.Goes, "", Hang, Fail)
}

// phases are what an Await can say of a migration.
var phases = []string{
	Refused, Gone, Charged,
	string(kubevirtv1.MigrationPending), string(kubevirtv1.MigrationScheduling), string(kubevirtv1.MigrationScheduled),
	string(kubevirtv1.MigrationPreparingTarget), string(kubevirtv1.MigrationTargetReady), string(kubevirtv1.MigrationRunning),
	string(kubevirtv1.MigrationSucceeded), string(kubevirtv1.MigrationFailed),
}

func (a Await) check(made map[string]bool) error {
	for name, phase := range a.Migrations {
		if !made[name] {
			return fmt.Errorf("await.migrations.%s: no earlier step has made it", name)
		}
		if err := oneOf("await.migrations."+name, phase, phases...); err != nil {
			return err
		}
	}
	for name, is := range a.Quotas {
		if err := oneOf("await.quotas."+name, is, Raised, Static); err != nil {
			return err
		}
	}
	return errors.Join(oneOf("await.update", a.Update, append(phases, "")...), oneOf("await.ledger", a.Ledger, "", Empty, Recorded))
}

func oneOf(field, is string, words ...string) error {
	if !slices.Contains(words, is) {
		return fmt.Errorf("%s: %q is none of %q", field, is, words)
	}
	return nil
}
