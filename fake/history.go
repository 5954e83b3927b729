package fake

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// remembered is how many actions History returns.
const remembered = 40

// History returns what happened last, one action a line.
func (c *Cluster) History() []string {
	var told []string
	for _, line := range c.history {
		told = append(told, line())
	}
	return told
}

// note remembers what happened outside of the store. It is written down only if somebody reads it.
func (c *Cluster) note(format string, args ...any) {
	if len(c.history) == remembered {
		c.history = c.history[1:]
	}
	at := c.elapsed().Round(time.Millisecond)
	c.history = append(c.history, func() string { return fmt.Sprint(at, " ", fmt.Sprintf(format, args...)) })
}

// remember is called with every change. It leaves out heartbeats.
func (c *Cluster) remember(happened change) {
	o, verb := happened.object(), "updates"
	switch {
	case happened.before == nil:
		verb = "creates"
	case happened.kind == Events:
		return
	case happened.after == nil:
		verb = "deletes"
	case slices.Contains([]Kind{Pods, VMIs, Migrations}, happened.kind) && detail{o}.String() == detail{happened.before}.String():
		return
	}
	c.note("%s %s %s %s%s", happened.user, verb, happened.kind, key(o), detail{o})
}

// A detail is what matters of an object, after a colon.
type detail struct{ of object }

// String implements fmt.Stringer.
func (d detail) String() string {
	text := ""
	switch o := d.of.(type) {
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
	if d.of.GetDeletionTimestamp() != nil {
		text += ", being deleted"
	}
	return strings.TrimSuffix(text, ": ")
}

// elapsed is the simulated time since the beginning.
func (c *Cluster) elapsed() time.Duration { return c.clock.now.Sub(epoch) }
