package onbed

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/bed"
)

func TestCheckAudit(t *testing.T) {
	write := func(user, verb, subresource string, code int32, revision int, rest string) bed.AuditEvent {
		return bed.AuditEvent{
			Verb: verb, AuditUser: bed.AuditUser{User: user}, AuditAnswer: bed.AuditAnswer{Code: code},
			AuditObject:    bed.AuditObject{Resource: "resourcequotas", Subresource: subresource, Namespace: "n", Name: "q"},
			ResponseObject: fmt.Appendf(nil, `{"metadata":{"uid":"u","resourceVersion":"%d"%s}`, revision, rest),
		}
	}
	const (
		plain   = `,"annotations":{"a":"b"}},"spec":{"hard":{"pods":"1"}},"status":{"hard":{"pods":"1"},"used":{"pods":"1"}}`
		raised  = `,"annotations":{"a":"b"}},"spec":{"hard":{"pods":"1"}},"status":{"hard":{"pods":"2"},"used":{"pods":"1"}}`
		offered = `,"annotations":{"a":"b","headroom.vmquota.io/offer":"x"}},"spec":{"hard":{"pods":"1"}},"status":{"hard":{"pods":"2"},"used":{"pods":"1"}}`
		edited  = `,"annotations":{"a":"b"}},"spec":{"hard":{"pods":"2"}},"status":{"hard":{"pods":"2"},"used":{"pods":"1"}}`
		marked  = `,"annotations":{"a":"b","c":"d"}},"spec":{"hard":{"pods":"1"}},"status":{"hard":{"pods":"2"},"used":{"pods":"1"}}`
		counted = `,"annotations":{"a":"b"}},"spec":{"hard":{"pods":"1"}},"status":{"hard":{"pods":"2"},"used":{"pods":"0"}}`
		labeled = `,"annotations":{"a":"b"},"labels":{"e":"f"}},"spec":{"hard":{"pods":"1"}},"status":{"hard":{"pods":"2"},"used":{"pods":"1"}}`
	)
	first := write("admin", "create", "", 201, 7, plain)
	for _, test := range []struct {
		name   string
		events []bed.AuditEvent
		want   string // empty: nothing is wrong
	}{
		{"the limit is enforced", []bed.AuditEvent{first, write(User, "update", "status", 200, 8, raised)}, ""},
		{"an offer is announced", []bed.AuditEvent{first, write(User, "update", "status", 200, 8, offered)}, ""},
		{"somebody else edits", []bed.AuditEvent{first, write("admin", "update", "", 200, 8, edited)}, ""},
		{"logged in another order", []bed.AuditEvent{first, write(User, "update", "status", 200, 10, edited), write("admin", "update", "", 200, 9, edited)}, ""},
		{"spec is written", []bed.AuditEvent{first, write(User, "update", "", 200, 8, raised)}, "tried to update resourcequotas/"},
		{"spec is written in vain", []bed.AuditEvent{first, write(User, "update", "", 403, 8, "}")}, "tried to update resourcequotas/"},
		{"status is patched", []bed.AuditEvent{first, write(User, "patch", "status", 200, 8, raised)}, "tried to patch resourcequotas/status"},
		{"a quota is deleted", []bed.AuditEvent{first, write(User, "delete", "", 200, 8, "}")}, "tried to delete resourcequotas/"},
		{"spec has changed", []bed.AuditEvent{first, write(User, "update", "status", 200, 8, edited)}, "changed spec"},
		{"usage has changed", []bed.AuditEvent{first, write(User, "update", "status", 200, 8, counted)}, "changed status.used"},
		{"a label has changed", []bed.AuditEvent{first, write(User, "update", "status", 200, 8, labeled)}, "changed labels"},
		{"an annotation has changed", []bed.AuditEvent{first, write(User, "update", "status", 200, 8, marked)}, "changed annotations"},
	} {
		err := CheckAudit(test.events)
		if test.want == "" {
			require.NoError(t, err, test.name)
		} else {
			require.ErrorContains(t, err, test.want, test.name)
		}
	}
}
