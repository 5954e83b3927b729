package bed

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseAudit(t *testing.T) {
	const refused = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","stage":"ResponseComplete","verb":"create",` +
		`"user":{"username":"system:serviceaccount:kubevirt:kubevirt-controller"},` +
		`"objectRef":{"resource":"pods","namespace":"n","subresource":""},` +
		`"responseStatus":{"code":403,"message":"exceeded quota: q"},"requestObject":{"kind":"Pod"},` +
		`"requestReceivedTimestamp":"2026-01-02T03:04:05.100000Z","stageTimestamp":"2026-01-02T03:04:05.200000Z"}` + "\n"
	const begun = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","stage":"ResponseStarted","verb":"create"}` + "\n"
	const cutOff = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","stage":"ResponseCom`
	want := AuditEvent{
		Stage: "ResponseComplete", Verb: "create",
		AuditUser:     AuditUser{"system:serviceaccount:kubevirt:kubevirt-controller"},
		AuditObject:   AuditObject{Resource: "pods", Namespace: "n"},
		AuditAnswer:   AuditAnswer{403, "exceeded quota: q"},
		Received:      time.Date(2026, 1, 2, 3, 4, 5, 100_000_000, time.UTC),
		Answered:      time.Date(2026, 1, 2, 3, 4, 5, 200_000_000, time.UTC),
		RequestObject: []byte(`{"kind":"Pod"}`),
	}
	for name, test := range map[string]struct {
		log  string
		want []AuditEvent
	}{
		"nothing":                      {"", nil},
		"two":                          {refused + refused, []AuditEvent{want, want}},
		"one that is not answered yet": {begun + refused, []AuditEvent{want}},
		"one that is not whole yet":    {refused + refused[:100], []AuditEvent{want}},
		"one that was cut off":         {refused + cutOff + refused, []AuditEvent{want, want}},
		"one that was cut off last":    {refused + cutOff + "\n", []AuditEvent{want}},
		"an empty line":                {"\n" + refused, []AuditEvent{want}},
	} {
		got, err := parseAudit([]byte(test.log))
		require.NoError(t, err, name)
		require.Equal(t, test.want, got, name)
	}
	_, err := parseAudit([]byte(`{"verb":1}` + "\n"))
	require.ErrorContains(t, err, "audit log")
}
