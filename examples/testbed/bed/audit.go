package bed

import (
	"bytes"
	_ "embed" // for the audit policy
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vmquota/headroom/examples/testbed/try"
)

//go:embed audit-policy.yaml
var auditPolicy []byte

// An AuditEvent is a write that the API server has answered, whether it let it through
// or not: an event of audit.k8s.io/v1, as far as it is read.
type AuditEvent struct {
	Stage          string `json:"stage"`
	Verb           string `json:"verb"` // create, update, patch, delete, deletecollection
	URI            string `json:"requestURI"`
	AuditUser      `json:"user"`
	AuditObject    `json:"objectRef"`
	AuditAnswer    `json:"responseStatus"`
	RequestObject  json.RawMessage `json:"requestObject"` // nil where the policy does not ask for it
	ResponseObject json.RawMessage `json:"responseObject"`
	Received       time.Time       `json:"requestReceivedTimestamp"`
	Answered       time.Time       `json:"stageTimestamp"`
}

// An AuditUser is whose request it was.
type AuditUser struct {
	User string `json:"username"`
}

// An AuditObject is what the request was about.
type AuditObject struct {
	Resource    string `json:"resource"`
	Subresource string `json:"subresource"`
	Namespace   string `json:"namespace"`
	Name        string `json:"name"` // empty if the API server made it up
}

// An AuditAnswer is what came of it.
type AuditAnswer struct {
	Code    int32  `json:"code"`    // 201 created, 403 forbidden, 409 conflict
	Message string `json:"message"` // why not
}

// Audit returns what the API servers have logged so far, in the order in which they
// answered. A write may appear a moment after its answer.
func (b *Bed) Audit(t try.T) (events []AuditEvent) {
	t.Helper()
	for _, component := range []Component{APIServer, OtherAPIServer} {
		content, err := os.ReadFile(b.path(string(component) + "-audit.log"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		events = append(events, try.Must(parseAudit(content))(t)...)
	}
	slices.SortStableFunc(events, func(a, b AuditEvent) int { return a.Answered.Compare(b.Answered) })
	return events
}

// parseAudit reads a log. What comes after its last newline is not complete yet. An event
// that was cut off when the API server was killed is left out; the next one follows it on
// the same line.
func parseAudit(content []byte) ([]AuditEvent, error) {
	var events []AuditEvent
	for {
		line, rest, complete := bytes.Cut(content, []byte("\n"))
		if !complete {
			return events, nil
		}
		content = rest
		line = line[max(0, bytes.LastIndex(line, eventStart)):]
		if len(line) == 0 {
			continue
		}
		var e AuditEvent
		if err := json.Unmarshal(line, &e); err != nil {
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				continue
			}
			return nil, fmt.Errorf("audit log: %w", err)
		}
		if e.Stage == "ResponseComplete" || e.Stage == "Panic" {
			events = append(events, e)
		}
	}
}

// eventStart is how each event begins, and what none has in its middle.
var eventStart = []byte(`{"kind":"Event","apiVersion":"audit.k8s.io/v1"`)
