package applier

import (
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// ErrForbidden says that the API server refused to write a quota: RBAC, an admission
// webhook, a ValidatingAdmissionPolicy or the validation of ResourceQuotas did. It
// would refuse the same again. Its own error is inside as well, so that
// apierrors.IsForbidden holds if that is what it said. A webhook says whatever it
// likes (400, and no reason, if it says nothing); a policy says Invalid, unless it
// names Forbidden, Unauthorized or RequestEntityTooLarge.
var ErrForbidden = errors.New("the API server refuses it")

// An Error says what failed on which ResourceQuota. It wraps the error of the ledger or
// of the API server, so that errors.Is and the functions of
// k8s.io/apimachinery/pkg/api/errors work on it.
type Error struct {
	Namespace string
	Quota     string // the name of the ResourceQuota; empty: it is about all of them
	Err       error
}

func (e *Error) Error() string {
	where := fmt.Sprintf("ResourceQuota %s/%s", e.Namespace, e.Quota)
	if e.Quota == "" {
		where = fmt.Sprintf("ResourceQuotas of namespace %q", e.Namespace)
	}
	return fmt.Sprintf("%s: %v", where, e.Err)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// WorthRetry returns the part of err, an error of [Applier.Apply], that is worth retrying:
// all but ErrForbidden. That one is for an administrator, who learns of it by events and
// Metrics, and a retry before RequeueAfter does not help. It returns nil if nothing is left.
func WorthRetry(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var rest []error
	for _, one := range joined.Unwrap() {
		if !errors.Is(one, ErrForbidden) {
			rest = append(rest, one)
		}
	}
	return errors.Join(rest...)
}

// isRefusal reports whether the API server has refused a request as such, rather than
// failed at it or found it outdated: by any status 4xx but those that pass by themselves.
func isRefusal(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	switch code := status.Status().Code; code {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusGone, http.StatusTooManyRequests:
		return false
	default:
		return code >= http.StatusBadRequest && code < http.StatusInternalServerError
	}
}

// failed returns err as an Error; name is empty if it is about all quotas.
func failed(namespace, name, doing string, err error) error {
	return &Error{Namespace: namespace, Quota: name, Err: fmt.Errorf("%s: %w", doing, err)}
}
