package scenario

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	kubevirtv1 "kubevirt.io/api/core/v1"
)

// An Error says what is wrong with a scenario, and where.
type Error struct {
	File  string // its name
	Field string // such as steps[2].migrate.vm; empty: the whole file
	Err   error
}

func (e *Error) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s: %s: %v", e.File, e.Field, e.Err)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Parse decodes the content of a file. Fields that are not known or come twice, and names
// that no earlier step has made, are errors: each an [Error], joined.
func Parse(file string, content []byte) (*Scenario, error) {
	data, err := yaml.YAMLToJSONStrict(content)
	if err != nil {
		return nil, &Error{File: file, Err: err}
	}
	s := &Scenario{Name: strings.TrimSuffix(path.Base(file), path.Ext(file))}
	strict, err := json.UnmarshalStrict(data, s)
	if err != nil {
		return nil, &Error{File: file, Err: err}
	}
	c := checker{file: file}
	for _, err := range strict {
		c.wrong("", err)
	}
	if len(strict) == 0 {
		c.check(s)
	}
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	return s, nil
}

// A checker finds what is wrong with a scenario that could be decoded.
type checker struct {
	file                  string
	errs                  []error
	quotas, vms, vmims    map[string]bool
	recorded              bool
	evacuations, hotPlugs bool
}

func (c *checker) wrong(field string, err error) {
	c.errs = append(c.errs, &Error{File: c.file, Field: field, Err: err})
}

var (
	errMissing = errors.New("is missing")
	errUnknown = errors.New("no earlier step has made it")
	errTwice   = errors.New("is there already")
)

func (c *checker) check(s *Scenario) {
	c.quotas, c.vms, c.vmims = map[string]bool{}, map[string]bool{}, map[string]bool{}
	c.recorded = s.Recorded
	c.need("about", s.About)
	if len(s.Steps) == 0 {
		c.wrong("steps", errMissing)
	}
	for i, step := range s.Steps {
		c.step(fmt.Sprintf("steps[%d]", i), step)
	}
	for name := range c.vmims {
		if _, ok := s.End.Migrations[name]; !ok && !s.End.NoNamespace {
			c.wrong("end.migrations."+name, errMissing)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.End.Used)) {
		c.known("end.used."+name, name, c.quotas)
	}
	for _, name := range slices.Sorted(maps.Keys(s.End.Migrations)) {
		if !c.evacuations && !c.hotPlugs {
			c.known("end.migrations."+name, name, c.vmims)
		}
	}
}

func (c *checker) step(field string, step Step) {
	var set []string
	value := reflect.ValueOf(step)
	for i := range value.NumField() {
		if !value.Field(i).IsZero() {
			name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
			set = append(set, name)
		}
	}
	if len(set) != 1 {
		c.wrong(field, fmt.Errorf("a step is one thing, not %d: %s", len(set), strings.Join(set, ", ")))
		return
	}
	field += "." + set[0]
	switch {
	case step.Quota != nil:
		c.make(field+".name", step.Quota.Name, c.quotas)
		if len(step.Quota.Hard) == 0 {
			c.wrong(field+".hard", errMissing)
		}
	case step.LimitRange != nil:
		c.need(field+".name", step.LimitRange.Name)
	case step.VM != nil:
		c.vm(field, *step.VM)
	case step.Pod != nil:
		c.need(field+".name", step.Pod.Name)
	case step.Migrate != nil:
		c.migrate(field, *step.Migrate)
	case step.HotPlug != nil:
		c.known(field+".vm", step.HotPlug.VM, c.vms)
		c.hotPlugs = true
	case step.Attach != "" || step.Detach != "":
		c.known(field, step.Attach+step.Detach, c.vms)
	case step.Drain != "":
		c.evacuations = true
	case step.Edit != nil:
		c.known(field+".quota", step.Edit.Quota, c.quotas)
	case step.KillSwitch != nil && step.KillSwitch.Quota != "":
		c.known(field+".quota", step.KillSwitch.Quota, c.quotas)
	case step.Ledger != nil && !c.recorded:
		c.wrong(field, errors.New("needs a scenario that is recorded"))
	case step.Ledger != nil && step.Ledger.Corrupt == step.Ledger.Delete:
		c.wrong(field, errors.New("is either corrupt or delete"))
	case step.Delete != nil:
		c.delete(field, *step.Delete)
	case step.Await != nil:
		c.await(field, *step.Await)
	}
}

func (c *checker) vm(field string, vm VM) {
	for _, name := range vm.names() {
		c.make(field+".name", name, c.vms)
	}
	if vm.Cores == 0 {
		c.wrong(field+".cores", errMissing)
	}
	if vm.Memory.Sign() <= 0 {
		c.wrong(field+".memory", errMissing)
	}
}

func (c *checker) migrate(field string, m Migrate) {
	c.make(field+".name", m.Name, c.vmims)
	c.known(field+".vm", m.VM, c.vms)
	if m.Goes != "" && m.Goes != Hang && m.Goes != Fail {
		c.wrong(field+".goes", fmt.Errorf("%q is neither %s nor %s", m.Goes, Hang, Fail))
	}
	if _, _, err := lingerOf(m.Linger); err != nil {
		c.wrong(field+".linger", err)
	}
}

func (c *checker) delete(field string, d Delete) {
	for _, what := range []struct {
		field, name string
		made        map[string]bool
	}{{"quota", d.Quota, c.quotas}, {"vm", d.VM, c.vms}, {"migration", d.Migration, c.vmims}, {"source", d.Source, c.vmims}} {
		if what.name != "" {
			c.known(field+"."+what.field, what.name, what.made)
		}
	}
	delete(c.quotas, d.Quota) // it may be made again
}

var phases = []string{
	Refused, Gone, Charged,
	string(kubevirtv1.MigrationPending), string(kubevirtv1.MigrationScheduling), string(kubevirtv1.MigrationScheduled),
	string(kubevirtv1.MigrationPreparingTarget), string(kubevirtv1.MigrationTargetReady), string(kubevirtv1.MigrationRunning),
	string(kubevirtv1.MigrationSucceeded), string(kubevirtv1.MigrationFailed),
}

func (c *checker) await(field string, a Await) {
	for _, name := range slices.Sorted(maps.Keys(a.Migrations)) {
		c.known(field+".migrations."+name, name, c.vmims)
		c.one(field+".migrations."+name, a.Migrations[name], phases...)
	}
	for _, name := range slices.Sorted(maps.Keys(a.Waits)) {
		c.known(field+".waits."+name, name, c.vmims)
	}
	for _, name := range slices.Sorted(maps.Keys(a.Quotas)) {
		c.known(field+".quotas."+name, name, c.quotas)
		c.one(field+".quotas."+name, a.Quotas[name], Raised, Static)
	}
	for _, name := range slices.Sorted(maps.Keys(a.Enforced)) {
		c.known(field+".enforced."+name, name, c.quotas)
	}
	if a.Update != "" {
		c.one(field+".update", a.Update, phases...)
	}
	if a.Ledger != "" {
		c.one(field+".ledger", a.Ledger, Empty, Recorded)
		if !c.recorded {
			c.wrong(field+".ledger", errors.New("needs a scenario that is recorded"))
		}
	}
}

func (c *checker) one(field, is string, of ...string) {
	if !slices.Contains(of, is) {
		c.wrong(field, fmt.Errorf("%q is none of %s", is, strings.Join(of, ", ")))
	}
}

func (c *checker) need(field, value string) {
	if value == "" {
		c.wrong(field, errMissing)
	}
}

func (c *checker) make(field, name string, made map[string]bool) {
	c.need(field, name)
	if made[name] {
		c.wrong(field, fmt.Errorf("%q: %w", name, errTwice))
	}
	made[name] = true
}

func (c *checker) known(field, name string, made map[string]bool) {
	if !made[name] {
		c.wrong(field, fmt.Errorf("%q: %w", name, errUnknown))
	}
}

// names returns the names of the virtual machines.
func (vm VM) names() []string {
	if vm.Count <= 1 {
		return []string{vm.Name}
	}
	names := make([]string, vm.Count)
	for i := range names {
		names[i] = fmt.Sprintf("%s%d", vm.Name, i+1)
	}
	return names
}
