package model

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/vmquota/headroom/fake"
	"github.com/vmquota/headroom/ledger/rancher"
)

// A Simulated is Rancher beside a simulated cluster, each namespace with a project of its own.
type Simulated struct {
	cluster  *fake.Cluster
	process  *fake.Process
	projects Projects
	limit    Limit
}

// Simulate starts a Rancher that is latency away from c. The projects have that limit; nil is no limit.
func Simulate(c *fake.Cluster, latency fake.Span, limit Limit) *Simulated {
	if limit == nil {
		limit = Limit{}
	}
	s := &Simulated{cluster: c, limit: limit}
	s.process = c.Start(fake.RancherUser, func(p *fake.Process) fake.Program {
		p.Latency = latency
		controller := &Controller{
			Namespaces: p.Client.CoreV1(), Quotas: p.Client.CoreV1(), Projects: &s.projects, Now: p.Now,
			NamespaceCache: p.Caches[fake.Namespaces], QuotaCache: p.Caches[fake.ResourceQuotas],
		}
		return fake.Program{
			Reconcile: func(ctx context.Context, namespace string) (time.Duration, error) {
				return 0, controller.Sync(ctx, namespace)
			},
			Namespace: func(object any) string {
				if ns, ok := object.(*corev1.Namespace); ok {
					return ns.Name
				}
				return ""
			},
		}
	})
	return s
}

// SetLimit gives a namespace, which must exist, its limits, in the names of a ResourceQuota. Nil takes the
// quota away.
func (s *Simulated) SetLimit(namespace string, hard corev1.ResourceList) error {
	project := Project{Limit: s.limit}
	annotations := map[string]any{ProjectAnnotation: "c:" + namespace, rancher.LimitsAnnotation: nil}
	if hard != nil {
		text := rancher.Annotation(hard)
		annotations[rancher.LimitsAnnotation] = text
		var err error
		if project.Default, err = limitIn(text); err != nil {
			return err
		}
	}
	s.projects.Set("c:"+namespace, project)
	return s.annotate(namespace, annotations)
}

// Touch is any event of the namespace.
func (s *Simulated) Touch(namespace string) error {
	return s.annotate(namespace, map[string]any{"touched": s.cluster.Now().String()})
}

func (s *Simulated) annotate(namespace string, annotations map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err == nil {
		_, err = s.cluster.Client("admin").CoreV1().Namespaces().Patch(context.Background(), namespace, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	return err
}

// Restart is what happens when the tunnel of the agent drops: all namespaces are listed anew, and reconciled.
func (s *Simulated) Restart() { s.process.Crash(0) }
