package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/migration"
	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

// apiVersion is that of an Explanation and a Forecast. In it fields are added, and none is changed
// or taken away.
const apiVersion = "headroom.vmquota.io/v1alpha1"

// An Explanation is what -o json and -o yaml print. Amounts are quantities of Kubernetes, in the
// units of the quota.
type Explanation struct {
	metav1.TypeMeta `json:",inline"`

	Source     source              `json:"source"`
	Budget     corev1.ResourceList `json:"budget,omitempty"` // of the command line
	Strict     bool                `json:"strict"`           // of the command line
	Leader     *leaderReport       `json:"leader,omitempty"` // absent: it is not known
	Namespaces []namespaceReport   `json:"namespaces"`
	Notes      []string            `json:"notes"` // what else the reader should know, in sentences
}

// A source says what was read.
type source struct {
	Kind    string   `json:"kind"`              // cluster, files or recording
	Context string   `json:"context,omitempty"` // of the kubeconfig
	Files   []string `json:"files,omitempty"`
	At      string   `json:"at,omitempty"`  // the moment of the recording
	End     string   `json:"end,omitempty"` // when the recording ends
}

// The kinds of source.
const (
	clusterSource   = "cluster"
	filesSource     = "files"
	recordingSource = "recording"
)

// A leaderReport says whether a controller leads.
type leaderReport struct {
	Lease  string `json:"lease"`            // namespace/name
	Holder string `json:"holder,omitempty"` // empty: nobody
	Why    string `json:"why"`              // a sentence
}

type namespaceReport struct {
	Name       string            `json:"name"`
	Quotas     []quotaReport     `json:"quotas"`
	Migrations []migrationReport `json:"migrations"`
	Events     []eventReport     `json:"events,omitempty"`
}

// An eventReport is what headroom has told about a quota: of events with the same reason, the last.
type eventReport struct {
	Quota   string      `json:"quota"`
	Reason  string      `json:"reason"`
	Message string      `json:"message"`
	Count   int32       `json:"count"`
	Last    metav1.Time `json:"last"`
}

type quotaReport struct {
	Name      string           `json:"name"`
	Scopes    []string         `json:"scopes,omitempty"`
	Action    string           `json:"action"` // what status.hard needs: keep, raise (at least one limit) or lower
	Why       string           `json:"why"`    // a sentence
	Resources []resourceReport `json:"resources"`
}

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
	Name     string              `json:"name"` // empty: it is not known any more
	UID      types.UID           `json:"uid"`
	VMI      string              `json:"vmi"`
	Phase    string              `json:"phase"` // KubeVirt's; empty: none yet, or deleted
	State    string              `json:"state"`
	Decision string              `json:"decision"`
	Twice    corev1.ResourceList `json:"chargedTwice"` // of what the quotas limit
	// WaitsFor is the reason of a migration.Wait; empty: nothing that is known.
	WaitsFor quota.DeferralReason `json:"waitsFor,omitempty"`
	Deferred []deferralReport     `json:"deferred,omitempty"`
	Why      string               `json:"why"` // sentences
}

// ended reports whether KubeVirt has ended the migration.
func (m migrationReport) ended() bool {
	return m.Phase == string(kubevirtv1.MigrationSucceeded) || m.Phase == string(kubevirtv1.MigrationFailed)
}

type deferralReport struct {
	Quota   string               `json:"quota"`
	Reason  quota.DeferralReason `json:"reason"`
	Missing corev1.ResourceList  `json:"missing"`
}

// States: those of quota.State, and two of migrations that charge nothing twice.
const (
	queued        = "queued"
	blocked       = "blocked"
	charged       = "charged"
	decentralized = "decentralized"
	over          = "over"
)

// Decisions about a migration.
const (
	granted  = "granted"
	deferred = "deferred"
	waiting  = "waiting" // for its turn
	none     = "none"    // it asks for nothing
)

// newExplanation explains w.
func newExplanation(w *world, o *options) *Explanation {
	e := &Explanation{
		TypeMeta: metav1.TypeMeta{APIVersion: apiVersion, Kind: "Explanation"},
		Source:   w.source,
		Budget:   o.policy.Budget, Strict: o.policy.Strict,
		Leader:     w.leader(o.lease),
		Namespaces: []namespaceReport{},
		Notes:      append([]string{}, w.notes...),
	}
	for _, t := range w.tenants() {
		e.Namespaces = append(e.Namespaces, explain(t, o.policy))
		for _, rq := range t.quotas {
			if rq.Status.Used == nil {
				e.Notes = append(e.Notes, fmt.Sprintf("ResourceQuota %s/%s has no status.used: nothing is taken to be used.", t.name, rq.Name))
			}
		}
	}
	return e
}

// explain explains one namespace.
func explain(t tenant, policy quota.Policy) namespaceReport {
	inFlight, rulings, waits := decide(t, policy)
	n := namespaceReport{Name: t.name, Quotas: []quotaReport{}, Migrations: []migrationReport{}, Events: lastEvents(t.events)}
	for _, r := range rulings {
		n.Quotas = append(n.Quotas, r.report())
	}
	seen := map[types.UID]bool{}
	for _, m := range inFlight {
		seen[m.UID] = true
		n.Migrations = append(n.Migrations, t.migration(m, waits[m.UID], rulings))
	}
	for _, vmim := range t.snapshot.Migrations {
		if !seen[vmim.UID] {
			n.Migrations = append(n.Migrations, t.absent(vmim, waits[vmim.UID]))
		}
	}
	order := []string{charged, blocked, queued, decentralized, over}
	slices.SortFunc(n.Migrations, func(a, b migrationReport) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return n
}

func (r ruling) report() quotaReport {
	q := quotaReport{Name: r.quota.Name, Resources: []resourceReport{}}
	for _, scope := range r.quota.Spec.Scopes {
		q.Scopes = append(q.Scopes, string(scope))
	}
	if r.quota.Spec.ScopeSelector != nil {
		for _, term := range r.quota.Spec.ScopeSelector.MatchExpressions {
			q.Scopes = append(q.Scopes, strings.TrimSpace(fmt.Sprintf("%s %s %s", term.ScopeName, term.Operator, enumerate(term.Values))))
		}
	}
	q.Action, q.Why = r.verdict()
	for _, name := range amounts.Names(r.quota.Spec.Hard) {
		q.Resources = append(q.Resources, resourceReport{
			Resource: name, Static: r.quota.Spec.Hard[name], Used: r.quota.Status.Used[name],
			Regular: r.Decision.Regular[name], Temporary: r.Decision.Temporary[name], Available: r.Decision.Available[name],
			Enforced: r.Hard[name], Effective: r.Effective[name],
		})
	}
	return q
}

// migration reports one that is in flight.
func (t tenant) migration(m quota.Migration, wait migration.Wait, rulings []ruling) migrationReport {
	r := migrationReport{
		UID: m.UID, VMI: m.VMI, State: strings.ToLower(m.State.String()), Decision: none, Twice: corev1.ResourceList{}, WaitsFor: wait.Reason,
	}
	vmim := t.vmim(m.UID)
	if vmim != nil {
		r.Name, r.Phase = vmim.Name, string(vmim.Status.Phase)
	} else if target := find(t.snapshot.Pods, func(pod *corev1.Pod) bool { return jobOf(pod) == m.UID }); target != nil {
		r.Name = target.Annotations[kubevirtv1.MigrationJobNameAnnotation]
	}
	if vmim != nil && vmim.IsDecentralized() {
		r.State, r.Why = decentralized, decentralizedSentence
		return r
	}
	if m.State == quota.Queued {
		r.Decision = waiting
	}
	for _, ruling := range rulings {
		twice, _ := ruling.claim(m.UID)
		maps.Copy(r.Twice, twice)
		for _, d := range ruling.Decision.Deferred {
			if d.UID == m.UID {
				r.Deferred = append(r.Deferred, deferralReport{Quota: ruling.quota.Name, Reason: d.Reason, Missing: d.Missing})
			}
		}
		if ruling.granted(m.UID) {
			r.Decision = granted
		}
	}
	if len(r.Deferred) > 0 {
		r.Decision = deferred
	}
	r.Why = t.why(m, r, wait, rulings)
	return r
}

const decentralizedSentence = "It moves the VM between namespaces or clusters, so in each of them only one pod counts."

// absent reports a migration that exists and charges nothing twice.
func (t tenant) absent(vmim *kubevirtv1.VirtualMachineInstanceMigration, wait migration.Wait) migrationReport {
	r := migrationReport{
		Name: vmim.Name, UID: vmim.UID, VMI: vmim.Spec.VMIName, Phase: string(vmim.Status.Phase),
		State: over, Decision: none, Twice: corev1.ResourceList{}, WaitsFor: wait.Reason,
		Why: "It charges nothing twice.",
	}
	switch {
	case vmim.IsFinal():
		r.Why = "It is over and charges nothing twice."
	case vmim.IsDecentralized():
		r.State, r.Why = decentralized, decentralizedSentence
	case find(t.snapshot.VMIs, func(vmi *kubevirtv1.VirtualMachineInstance) bool { return vmi.Name == vmim.Spec.VMIName }) == nil:
		r.Why = fmt.Sprintf("VirtualMachineInstance %s does not exist, so there is nothing to move.", vmim.Spec.VMIName)
	case wait.Reason != "":
		r.State, r.Why = queued, wait.Message
	}
	return r
}

// lastEvents returns of each quota's events the last of each reason, the newest first.
func lastEvents(events []*corev1.Event) []eventReport {
	var reports []eventReport
	for _, e := range events {
		last := e.LastTimestamp
		if e.EventTime.After(last.Time) {
			last = metav1.NewTime(e.EventTime.Time)
		}
		reports = append(reports, eventReport{Quota: e.InvolvedObject.Name, Reason: e.Reason, Message: e.Message, Count: max(e.Count, 1), Last: last})
	}
	slices.SortStableFunc(reports, func(a, b eventReport) int {
		return cmp.Or(b.Last.Compare(a.Last.Time), cmp.Compare(a.Quota, b.Quota), cmp.Compare(a.Reason, b.Reason))
	})
	seen := map[[2]string]bool{}
	return slices.DeleteFunc(reports, func(r eventReport) bool {
		key := [2]string{r.Quota, r.Reason}
		defer func() { seen[key] = true }()
		return seen[key]
	})
}

// leader reports whether the Lease of that namespace and name is held; nil if that is not known.
func (w *world) leader(name string) *leaderReport {
	lease, found := w.seen["Lease "+name].(*coordinationv1.Lease)
	switch {
	case !found && !w.noLease:
		return nil
	case !found:
		return &leaderReport{Lease: name, Why: fmt.Sprintf("There is no Lease %s: unless headroom is part of another controller, nobody enforces the limits.", name)}
	}
	holder, renewed := ptr.Deref(lease.Spec.HolderIdentity, ""), ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{})
	lasts := time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second
	switch {
	case holder == "":
		return &leaderReport{Lease: name, Why: fmt.Sprintf("Nobody holds Lease %s: no controller enforces the limits.", name)}
	case !w.now.IsZero() && w.now.Sub(renewed.Time) > lasts:
		return &leaderReport{Lease: name, Why: fmt.Sprintf("%s has not renewed Lease %s since %s: no controller enforces the limits.", holder, name, stamp(renewed.Time))}
	}
	return &leaderReport{Lease: name, Holder: holder, Why: fmt.Sprintf("%s enforces the limits: it holds Lease %s.", holder, name)}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
