package fake

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// remembered is how many actions a history keeps.
const remembered = 40

// A history is what happened last, for people.
type history struct {
	lines []func() string
}

// add remembers an action. It is written down only if somebody reads it.
func (h *history) add(line func() string) {
	if len(h.lines) == 2*remembered {
		h.lines = append(h.lines[:0], h.lines[remembered:]...)
	}
	h.lines = append(h.lines, line)
}

func (h *history) last() []string {
	lines := h.lines[max(0, len(h.lines)-remembered):]
	told := make([]string, len(lines))
	for i, line := range lines {
		told[i] = line()
	}
	return told
}

// note remembers what happened outside of the store.
func (c *Cluster) note(format string, args ...any) {
	at := c.elapsed().Round(time.Millisecond)
	c.history.add(func() string { return at.String() + " " + fmt.Sprintf(format, args...) })
}

// remember is told of every change.
func (c *Cluster) remember(happened change) {
	if !worthTelling(happened) {
		return
	}
	at := c.elapsed().Round(time.Millisecond)
	c.history.add(func() string {
		o := happened.object()
		verb := "updates"
		switch {
		case happened.before == nil:
			verb = "creates"
		case happened.after == nil:
			verb = "deletes"
		}
		return strings.TrimSpace(fmt.Sprintf("%v %s %s %s %s%s", at, happened.user, verb, happened.kind, key(o), detail(o)))
	})
}

// elapsed is the simulated time since the beginning.
func (c *Cluster) elapsed() time.Duration { return c.clock.now.Sub(epoch) }

// worthTelling leaves out what only says that time goes by: heartbeats of pods and VMIs.
func worthTelling(c change) bool {
	if c.before == nil || c.after == nil {
		return c.kind != Events || c.before == nil
	}
	switch c.kind {
	case Pods, Migrations, VMIs:
		return detail(c.before) != detail(c.after)
	default:
		return c.kind != Events
	}
}

// detail is what matters of o, after a colon.
func detail(o object) string {
	text := ""
	switch o := o.(type) {
	case *corev1.ResourceQuota:
		text = fmt.Sprintf(": hard %s, enforced %s, used %s", list(o.Spec.Hard), list(o.Status.Hard), list(o.Status.Used))
	case *corev1.Pod:
		text = ": " + string(o.Status.Phase)
	case *kubevirtv1.VirtualMachineInstanceMigration:
		text = ": " + string(o.Status.Phase)
		if refused(o) {
			text += ", refused by quota"
		}
	case *corev1.Event:
		text = ": " + o.Reason
	}
	if o.GetDeletionTimestamp() != nil {
		text += ", being deleted"
	}
	return strings.TrimSuffix(text, ": ")
}
