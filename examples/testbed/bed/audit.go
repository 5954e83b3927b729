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
)

//go:embed audit-policy.yaml
var auditPolicy []byte

// An AuditEvent is a write that the API server has answered, whether it let it through
// or not.
type AuditEvent struct {
	Verb                          string // create, update, patch, delete, deletecollection
	User                          string
	Agent                         string // the program, as it calls itself
	Group, Resource, Subresource  string
	Namespace, Name               string // Name is empty if the API server made it up
	Code                          int32  // 201 created, 403 forbidden, 409 conflict
	Message                       string // why not
	Received, Answered            time.Time
	RequestObject, ResponseObject json.RawMessage // nil where the policy does not ask for it
}

// record is an audit event in the log (audit.k8s.io/v1), as far as it is read.
type record struct {
	Stage     string `json:"stage"`
	Verb      string `json:"verb"`
	UserAgent string `json:"userAgent"`
	User      struct {
		Username string `json:"username"`
	} `json:"user"`
	ObjectRef struct {
		APIGroup    string `json:"apiGroup"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code    int32  `json:"code"`
		Message string `json:"message"`
	} `json:"responseStatus"`
	RequestObject            json.RawMessage `json:"requestObject"`
	ResponseObject           json.RawMessage `json:"responseObject"`
	RequestReceivedTimestamp time.Time       `json:"requestReceivedTimestamp"`
	StageTimestamp           time.Time       `json:"stageTimestamp"`
}

// Audit returns what the API servers have logged so far, in the order in which they
// answered. A write may appear a moment after its answer.
func (b *Bed) Audit() ([]AuditEvent, error) {
	var events []AuditEvent
	for _, component := range []Component{APIServer, OtherAPIServer} {
		content, err := os.ReadFile(b.auditLog(component))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		logged, err := parseAudit(content)
		if err != nil {
			return nil, err
		}
		events = append(events, logged...)
	}
	slices.SortStableFunc(events, func(a, b AuditEvent) int { return a.Answered.Compare(b.Answered) })
	return events, nil
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
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				continue
			}
			return nil, fmt.Errorf("audit log: %w", err)
		}
		if r.Stage != "ResponseComplete" && r.Stage != "Panic" {
			continue
		}
		events = append(events, AuditEvent{
			Verb: r.Verb, User: r.User.Username, Agent: r.UserAgent,
			Group: r.ObjectRef.APIGroup, Resource: r.ObjectRef.Resource, Subresource: r.ObjectRef.Subresource,
			Namespace: r.ObjectRef.Namespace, Name: r.ObjectRef.Name,
			Code: r.ResponseStatus.Code, Message: r.ResponseStatus.Message,
			Received: r.RequestReceivedTimestamp, Answered: r.StageTimestamp,
			RequestObject: r.RequestObject, ResponseObject: r.ResponseObject,
		})
	}
}

// eventStart is how each event begins, and what none has in its middle.
var eventStart = []byte(`{"kind":"Event","apiVersion":"audit.k8s.io/v1"`)

func (b *Bed) auditLog(server Component) string {
	return b.path(string(server) + "-audit.log")
}
