package faults

import (
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/scenario/onbed"
)

// checkWrites reads in the audit log what the library wrote to the quota of a fleet: every
// static limit is enforced, none of them below static, and no other. It returns how many
// writes there were. What else must not be written is for [onbed.CheckAudit].
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
	if err := json.Unmarshal(e.ResponseObject, &rq); err != nil {
		return err
	}
	if len(rq.Status.Hard) != len(f.Static) {
		return fmt.Errorf("%d limits are enforced, static are %d", len(rq.Status.Hard), len(f.Static))
	}
	for name, limit := range f.Static {
		hard, ok := rq.Status.Hard[name]
		if !ok || hard.Cmp(limit) < 0 {
			return fmt.Errorf("%s is %s, static is %s", name, hard.String(), limit.String())
		}
	}
	return nil
}
