package fake

import (
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// A Fault is what goes wrong with one call of a [Process] to the API server.
type Fault string

// What can go wrong.
const (
	NoFault        Fault = ""               // lets the call through
	Conflict       Fault = "Conflict"       // answers a write with 409, as to a stale update; reads pass
	Forbidden      Fault = "Forbidden"      // answers with 403, as RBAC or a webhook would
	Timeout        Fault = "Timeout"        // answers with a time-out; nothing was written
	TimeoutWritten Fault = "TimeoutWritten" // answers with a time-out, although the call was carried out
	ServerError    Fault = "ServerError"    // answers with 500; nothing was written
	Crash          Fault = "Crash"          // ends the process before the call is carried out
	CrashWritten   Fault = "CrashWritten"   // ends the process after the call was carried out
)

// A Call is one call of a [Process] to the API server.
type Call struct {
	Process string // the user, or user-2 for the second process of that user
	Number  int    // counts the calls of the process, from 1, over all its lives
	Verb    string // get, list, create, update, patch or delete
	Kind    Kind
	Status  bool // it is about the status only
	// Namespace and Name say which object. Name is empty for lists, and if the object is still to be named.
	Namespace, Name string
}

func (c Call) writes() bool { return c.Verb != "get" && c.Verb != "list" }

// Inject asks decide for a fault before each call of any process, from now on; nil ends the faults. A test that
// crashes between any two calls runs once for every Number.
func (c *Cluster) Inject(decide func(Call) Fault) { c.inject = decide }

// Chance returns a function for Inject that lets each fault happen with its probability, drawn from the seed.
func (c *Cluster) Chance(probabilities map[Fault]float64) func(Call) Fault {
	return func(Call) Fault {
		drawn := c.random.Float64()
		for _, fault := range []Fault{Conflict, Forbidden, Timeout, TimeoutWritten, ServerError, Crash, CrashWritten} {
			if drawn < probabilities[fault] {
				return fault
			}
			drawn -= probabilities[fault]
		}
		return NoFault
	}
}

// adversaryUser writes what [Cluster.ResetLimits] resets.
const adversaryUser = "adversary"

// ResetLimits is an adversary: from now on it sets status.hard of every quota back to spec.hard each time that
// much time has passed. Zero ends it.
func (c *Cluster) ResetLimits(every time.Duration) {
	if c.adversary != nil {
		c.clock.stop(c.adversary)
		c.adversary = nil
	}
	if every <= 0 {
		return
	}
	c.adversary = c.clock.after(every, func() {
		c.ResetLimits(every)
		for _, rq := range all[*corev1.ResourceQuota](&c.store, "") {
			if rq.Status.Hard != nil {
				write(c, adversaryUser, rq, func(rq *corev1.ResourceQuota) { rq.Status.Hard = rq.Spec.Hard.DeepCopy() })
			}
		}
	})
}

var (
	errInjected = errors.New("injected by the test")
	errTimeout  = apierrors.NewTimeoutError(errInjected.Error(), 0)
)

// before returns the error of a call that is not carried out, or nil if it is.
func (f Fault) before(call Call) error {
	switch f {
	case Conflict:
		return apierrors.NewConflict(call.Kind.groupResource(), call.Name, errModified)
	case Forbidden:
		return apierrors.NewForbidden(call.Kind.groupResource(), call.Name, errInjected)
	case Timeout:
		return errTimeout
	case ServerError:
		return apierrors.NewInternalError(errInjected)
	case NoFault, TimeoutWritten, Crash, CrashWritten:
	}
	return nil
}
