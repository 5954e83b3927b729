package configmap

import (
	"errors"
	"fmt"
)

// ErrTooLarge is inside of the [Error] for migrations that do not fit into a ConfigMap. The
// others are recorded, unless it is the API server that has said so.
var ErrTooLarge = errors.New("more than a ConfigMap takes (1 MiB)")

// An Error says what is wrong with the record of one namespace, and where a person
// finds it. It wraps the API server's error, if there is one, so that the functions of
// k8s.io/apimachinery/pkg/api/errors, such as IsForbidden, work on it.
type Error struct {
	// Namespace is the tenant namespace.
	Namespace string
	// ConfigMap is where its record is: the system namespace, a slash, and the name.
	ConfigMap string
	// Key is the data key of the entry that is not understood. It is empty if the
	// error is about the ConfigMap as a whole.
	Key string
	Err error
}

func (e *Error) Error() string {
	where := fmt.Sprintf("ledger of namespace %q in configmap %s", e.Namespace, e.ConfigMap)
	if e.Key != "" {
		where += fmt.Sprintf(": key %q", e.Key)
	}
	return fmt.Sprintf("%s: %v", where, e.Err)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }
