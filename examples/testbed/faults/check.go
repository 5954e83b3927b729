package faults

import (
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
	"github.com/vmquota/headroom/ledger/applier"
)

// checkWrites reads in the audit log what the library wrote to the quotas of a fleet: no
// limit is ever below static, and whoever reads a raised quota finds the static limits
// beside it. It returns how many writes there were.
func checkWrites(f *onbed.Fleet) (int, error) {
	events, err := f.Audit()
	if err != nil {
		return 0, err
	}
	writes := 0
	var wrong []error
	for _, e := range events {
		if !onbed.Wrote(e) {
			continue
		}
		writes++
		if err := checkWrite(f, e); err != nil {
			wrong = append(wrong, fmt.Errorf("write at %v: %w", e.Received, err))
		}
	}
	return writes, errors.Join(wrong...)
}

func checkWrite(f *onbed.Fleet, e bed.AuditEvent) error {
	var rq corev1.ResourceQuota
	if err := json.Unmarshal(e.RequestObject, &rq); err != nil {
		return err
	}
	static, err := applier.Static(&rq)
	if err != nil {
		return err
	}
	for name, limit := range f.Static {
		hard, ok := rq.Spec.Hard[name]
		if !ok || hard.Cmp(limit) < 0 {
			return fmt.Errorf("%s is %s, static is %s", name, hard.String(), limit.String())
		}
		if recorded := static[name]; recorded.Cmp(limit) != 0 {
			return fmt.Errorf("%s is recorded as %s, static is %s", name, recorded.String(), limit.String())
		}
	}
	return nil
}
