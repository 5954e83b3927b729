package main

import (
	"encoding/json"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/vmquota/headroom/quota"
)

// A report is what is printed. Its JSON form is described in README.md.
type report struct {
	Source     source            `json:"source"`
	Policy     policyReport      `json:"policy"`
	Namespaces []namespaceReport `json:"namespaces"`
	Notes      []string          `json:"notes"`
}

type policyReport struct {
	Budget corev1.ResourceList `json:"budget,omitempty"`
	Strict bool                `json:"strict"`
}

type namespaceReport struct {
	Name       string            `json:"name"`
	Quotas     []quotaReport     `json:"quotas"`
	Migrations []migrationReport `json:"migrations"`
}

type quotaReport struct {
	Name      string           `json:"name"`
	Scopes    []string         `json:"scopes,omitempty"`
	Action    action           `json:"action"`
	Why       string           `json:"why"`
	Resources []resourceReport `json:"resources"`
}

// An action is what status.hard needs.
type action string

const (
	keep  action = "keep"
	raise action = "raise" // at least one limit
	lower action = "lower"
)

// A resourceReport has all amounts in the units of the quota.
type resourceReport struct {
	Resource  corev1.ResourceName `json:"resource"`
	Static    resource.Quantity   `json:"static"` // spec.hard
	Used      resource.Quantity   `json:"used"`
	Regular   resource.Quantity   `json:"regular"`
	Temporary resource.Quantity   `json:"temporary"`
	Available resource.Quantity   `json:"available"`
	Enforced  resource.Quantity   `json:"enforced"` // status.hard
	Effective resource.Quantity   `json:"effective"`
}

type migrationReport struct {
	Name     string              `json:"name"` // empty: not known any more
	UID      types.UID           `json:"uid"`
	VMI      string              `json:"vmi"`
	Phase    string              `json:"phase"` // KubeVirt's; empty: none yet, or deleted
	State    state               `json:"state"`
	Decision decision            `json:"decision"`
	Twice    corev1.ResourceList `json:"chargedTwice"`
	Held     corev1.ResourceList `json:"held"`
	Deferred []deferralReport    `json:"deferred,omitempty"`
	Why      string              `json:"why"`

	limited corev1.ResourceList // the part of Twice that quotas limit
}

type deferralReport struct {
	Quota   string               `json:"quota"`
	Reason  quota.DeferralReason `json:"reason"`
	Missing corev1.ResourceList  `json:"missing"`
}

// A state is how far a migration has come: those of quota.State, and two of
// migrations that charge nothing twice.
type state string

const (
	queued        state = "queued"
	blocked       state = "blocked"
	charged       state = "charged"
	decentralized state = "decentralized"
	over          state = "over"
)

// A decision is what a migration gets.
type decision string

const (
	granted  decision = "granted"
	deferred decision = "deferred"
	waiting  decision = "waiting" // for its turn
	none     decision = "none"    // it asks for nothing
)

// newReport explains s.
func newReport(s scene, policy quota.Policy) report {
	r := report{
		Source:     s.source,
		Policy:     policyReport{Budget: policy.Budget, Strict: policy.Strict},
		Namespaces: []namespaceReport{},
		Notes:      append([]string{}, s.notes...),
	}
	for _, t := range s.tenants {
		inFlight, rulings := decide(t, policy)
		n := namespaceReport{Name: t.name, Quotas: []quotaReport{}, Migrations: []migrationReport{}}
		for _, ruling := range rulings {
			n.Quotas = append(n.Quotas, ruling.report())
			if ruling.quota.Status.Used == nil {
				r.Notes = append(r.Notes, fmt.Sprintf("ResourceQuota %s/%s has no status.used: nothing is taken to be used.",
					t.name, ruling.quota.Name))
			}
		}
		n.Migrations = append(n.Migrations, newCast(t, inFlight).migrations(rulings)...)
		r.Namespaces = append(r.Namespaces, n)
	}
	return r
}

func (r ruling) report() quotaReport {
	q := quotaReport{Name: r.quota.Name, Scopes: scopesOf(r.quota), Resources: []resourceReport{}}
	q.Action, q.Why = r.advice()
	now := enforced(r.quota)
	for _, name := range sortedNames(r.static) {
		q.Resources = append(q.Resources, resourceReport{
			Resource:  name,
			Static:    r.static[name],
			Used:      r.quota.Status.Used[name],
			Regular:   r.decision.Regular[name],
			Temporary: r.decision.Temporary[name],
			Available: r.decision.Available[name],
			Enforced:  now[name],
			Effective: r.effective[name],
		})
	}
	return q
}

// scopesOf writes the scopes of rq as people read them.
func scopesOf(rq *corev1.ResourceQuota) []string {
	var scopes []string
	for _, scope := range rq.Spec.Scopes {
		scopes = append(scopes, string(scope))
	}
	if rq.Spec.ScopeSelector == nil {
		return scopes
	}
	for _, term := range rq.Spec.ScopeSelector.MatchExpressions {
		text := fmt.Sprintf("%s %s", term.ScopeName, term.Operator)
		if len(term.Values) > 0 {
			text += " " + enumerate(term.Values)
		}
		scopes = append(scopes, text)
	}
	return scopes
}

// write prints r in the format that was asked for.
func (r report) write(out io.Writer, format string) error {
	switch format {
	case "json":
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(r)
	case "yaml":
		data, err := yaml.Marshal(r)
		if err != nil {
			return err
		}
		_, err = out.Write(data)
		return err
	default:
		r.table(out)
		return nil
	}
}
