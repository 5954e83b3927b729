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
	switch after := c.after.(type) {
	case *corev1.Pod:
		before, ok := c.before.(*corev1.Pod)
		return !ok || ended(after) != ended(before) || (after.DeletionTimestamp == nil) != (before.DeletionTimestamp == nil)
	case *kubevirtv1.VirtualMachineInstanceMigration:
		before, ok := c.before.(*kubevirtv1.VirtualMachineInstanceMigration)
		return !ok || detail(after) != detail(before)
	case *corev1.Event:
		return false // it happens again
	case *kubevirtv1.VirtualMachineInstance:
		return (c.before.GetDeletionTimestamp() == nil) != (after.DeletionTimestamp == nil)
	default:
		return true
	}
}

// detail is what matters of o, after a colon.
func detail(o object) string {
	switch o := o.(type) {
	case *corev1.ResourceQuota:
		return fmt.Sprintf(": hard %s, enforced %s, used %s", list(o.Spec.Hard), list(o.Status.Hard), list(o.Status.Used))
	case *corev1.Pod:
		text := ": " + string(o.Status.Phase)
		if o.DeletionTimestamp != nil {
			text += ", being deleted"
		}
		return text
	case *kubevirtv1.VirtualMachineInstanceMigration:
		text := ": " + string(o.Status.Phase)
		if refused(o) {
			text += ", refused by quota"
		}
		if o.DeletionTimestamp != nil {
			text += ", being deleted"
		}
		if text == ": " {
			return ""
		}
		return text
	case *corev1.Event:
		return ": " + o.Reason
	default:
		return ""
	}
}
