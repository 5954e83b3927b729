package rancher

import (
	"errors"
	"fmt"
)

var (
	// ErrUntranslatable says that a patch would change the limits, or what the shim
	// keeps beside them, in a way that cannot be translated: a JSON patch or a
	// server-side apply of the limits. Nothing was sent. Update does the same.
	ErrUntranslatable = errors.New("the shim cannot translate this patch")
	// ErrMalformed says that an annotation cannot be understood: LimitsAnnotation of a
	// namespace, or one of Harvester's. The [Error] or the [HarvesterError] around it
	// names the object and the field.
	ErrMalformed = errors.New("malformed")
)

// An Error says what failed on which object. It wraps the error of the ledger, so that
// errors.Is works on it.
type Error struct {
	Namespace string
	Quota     string // the name of the ResourceQuota; empty: it has none yet, or it is about the Namespace
	// Field is where in LimitsAnnotation the fault is, such as limit.limitsCpu or
	// limit.extended[count/pods]. Empty: in the annotation as a whole, or the error is
	// about a ResourceQuota.
	Field string
	Err   error
}

func (e *Error) Error() string {
	where := "namespace " + e.Namespace
	switch {
	case e.Quota != "":
		where = fmt.Sprintf("ResourceQuota %s/%s", e.Namespace, e.Quota)
	case e.Field != "":
		where += ": " + LimitsAnnotation + ": " + e.Field
	case errors.Is(e.Err, ErrMalformed):
		where += ": " + LimitsAnnotation
	}
	return fmt.Sprintf("%s: %v", where, e.Err)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }
