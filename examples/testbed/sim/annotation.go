package sim

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// The annotations that make things go wrong.
const (
	MigrationAnnotation = "testbed.headroom.vmquota.io/migration"
	LingerAnnotation    = "testbed.headroom.vmquota.io/linger"
	DeadAnnotation      = "testbed.headroom.vmquota.io/dead"
)

// The values of MigrationAnnotation, and one of LingerAnnotation.
const (
	Hang    = "hang"
	Fail    = "fail"
	Forever = "forever"
)

// A behaviour is how a migration goes.
type behaviour struct {
	hangs, fails  bool
	linger        time.Duration
	lingerForever bool
}

// behaviourOf reads annotations. The migration's go before those of its machine; it may
// be nil.
func behaviourOf(vmi *kubevirtv1.VirtualMachineInstance, vmim *kubevirtv1.VirtualMachineInstanceMigration) (behaviour, error) {
	var b behaviour
	value := annotation(MigrationAnnotation, vmi, vmim)
	switch value {
	case Hang:
		b.hangs = true
	case Fail:
		b.fails = true
	case "":
	default:
		return behaviour{}, fmt.Errorf("annotation %s: %q is neither %s nor %s", MigrationAnnotation, value, Hang, Fail)
	}
	switch value := annotation(LingerAnnotation, vmi, vmim); value {
	case Forever:
		b.lingerForever = true
	case "":
	default:
		linger, err := time.ParseDuration(value)
		if err != nil {
			return behaviour{}, fmt.Errorf("annotation %s: %w", LingerAnnotation, err)
		}
		b.linger = linger
	}
	return b, nil
}

func annotation(key string, vmi *kubevirtv1.VirtualMachineInstance, vmim *kubevirtv1.VirtualMachineInstanceMigration) string {
	if vmim != nil && metav1.HasAnnotation(vmim.ObjectMeta, key) {
		return vmim.Annotations[key]
	}
	return vmi.Annotations[key]
}
