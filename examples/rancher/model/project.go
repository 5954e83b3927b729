package model

import (
	"encoding/json"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/ledger/rancher"
)

// ProjectAnnotation is on a Namespace, and holds the ID of its project.
const ProjectAnnotation = "field.cattle.io/projectId"

// A Limit is limits as Rancher writes them: amounts by field, and a map "extended".
type Limit map[string]any

// A Project is what its namespaces may have. Limit is what they may have together, and Default what a namespace
// has that asks for nothing, and which keys it may ask for. A project with no Limit gives no quotas.
type Project struct{ Limit, Default Limit }

// Projects are those of a cluster, by ID. They are where an agent's restart does not lose them. The zero value
// has none.
type Projects struct {
	mu      sync.Mutex
	byID    map[string]Project
	changed []func(id string)
}

// Set makes p the project of that ID, and calls the handlers.
func (p *Projects) Set(id string, project Project) {
	p.mu.Lock()
	if p.byID == nil {
		p.byID = map[string]Project{}
	}
	p.byID[id] = project
	changed := p.changed
	p.mu.Unlock()
	for _, handle := range changed {
		handle(id)
	}
}

func (p *Projects) of(ns *corev1.Namespace) Project {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byID[ns.Annotations[ProjectAnnotation]]
}

// OnChange calls handle with the ID of each project that is set.
func (p *Projects) OnChange(handle func(id string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed = append(p.changed, handle)
}

// merged returns what is wanted for a namespace that asks for asked, nil if nothing is.
func (p Project) merged(asked Limit) Limit {
	if p.Limit == nil || p.Default == nil {
		return nil
	}
	wanted := maps.Clone(p.Default)
	for field := range wanted {
		if other, asks := asked[field]; asks {
			wanted[field] = other
		}
	}
	return wanted
}

// askedIn returns what the annotation of ns asks for, nil if there is none.
func askedIn(ns *corev1.Namespace) (Limit, error) {
	text := ns.Annotations[rancher.LimitsAnnotation]
	if text == "" {
		return nil, nil
	}
	return limitIn(text)
}

func limitIn(annotation string) (Limit, error) {
	var asked struct{ Limit Limit }
	err := json.Unmarshal([]byte(annotation), &asked)
	return asked.Limit, err
}

// Annotation returns the value of rancher.LimitsAnnotation that asks for limit.
func Annotation(limit Limit) (string, error) {
	text, err := json.Marshal(map[string]Limit{"limit": limit})
	return string(text), err
}

// amounts returns limit in ResourceQuota names.
func amounts(limit Limit) (corev1.ResourceList, error) {
	if limit == nil {
		return nil, nil
	}
	text, err := Annotation(limit)
	if err != nil {
		return nil, err
	}
	return rancher.Limits(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{rancher.LimitsAnnotation: text},
	}})
}
