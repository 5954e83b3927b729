package rancher

import (
	"errors"
	"fmt"
)

var (
	// ErrMalformed says that an annotation cannot be read: LimitsAnnotation of a
	// Namespace, or one of Harvester's.
	ErrMalformed = errors.New("malformed")
	// ErrUnclear says that it is not known what the static limit of a ResourceQuota is
	// that Harvester may have raised. Nothing was changed.
	ErrUnclear = errors.New("the static limit is not known")
	// ErrLocked says that Rancher's webhook refused a write to a ResourceQuota that
	// Rancher manages. Rancher's next sync sets its spec.hard.
	ErrLocked = errors.New("the quota is locked by Rancher, whose next sync resets it")
)

// An Error says what failed on which object. Errors of the API server and of the ledger
// are inside, so that errors.Is and apierrors.IsConflict hold.
type Error struct {
	Namespace string
	Quota     string // the name of the ResourceQuota; empty if the error is about the Namespace
	// Field is where the fault is: in a ResourceQuota a path such as spec.hard[limits.cpu],
	// in a Namespace a path in LimitsAnnotation such as limit.limitsCpu or
	// limit.extended[count/pods]. It is empty if the whole object or annotation is meant.
	Field string
	Err   error
}

func (e *Error) Error() string {
	where := "namespace " + e.Namespace
	switch {
	case e.Quota != "":
		where = fmt.Sprintf("ResourceQuota %s/%s", e.Namespace, e.Quota)
	case errors.Is(e.Err, ErrMalformed):
		where += ": " + LimitsAnnotation
	}
	if e.Field != "" {
		where += ": " + e.Field
	}
	return fmt.Sprintf("%s: %v", where, e.Err)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }
