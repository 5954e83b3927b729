package server

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/quota"
)

// A pattern is a recorded migration of one machine. Its texts are JSON.
type pattern struct {
	used            corev1.ResourceList // by one machine
	before          []step              // the machine, when it does not migrate
	refused         []step              // from the migration's creation until quota refuses its target pod
	charged         []step              // from the creation of the target pod until the migration is over
	over            []step              // the end of the source pod
	final           step                // a migration that is over
	namespace, name string
	uids            []string
}

// A step is one event of a recording.
type step struct {
	at             time.Duration
	kind           string
	resource, name string
	text           string
}

// version stands for the resourceVersion in a text.
const version = "@version@"

func readPattern(file string) (*pattern, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	events, err := recording.Read(f)
	if err != nil {
		return nil, err
	}
	p := &pattern{}
	uids := map[string]bool{}
	latest := map[string]step{}
	uid := "" // the UID of the migration
	for _, e := range events {
		s := step{at: e.At, name: e.Object.GetName(), kind: string(e.Type)}
		pod, isPod := e.Object.(*corev1.Pod)
		switch o := e.Object.(type) {
		case *corev1.ResourceQuota:
			continue
		case *corev1.Pod:
			s.resource = "pods"
			if len(p.refused) == 0 {
				p.used = limited(quota.Footprint(o))
			}
		case *kubevirtv1.VirtualMachineInstance:
			s.resource, p.namespace, p.name = "virtualmachineinstances", o.Namespace, o.Name
		case *kubevirtv1.VirtualMachineInstanceMigration:
			s.resource = "virtualmachineinstancemigrations"
		default:
			return nil, fmt.Errorf("%s has a %T", file, o)
		}
		if id := string(e.Object.GetUID()); !uids[id] {
			uids[id] = true
			p.uids = append(p.uids, id)
		}
		e.Object.SetResourceVersion(version)
		text, err := json.Marshal(e.Object)
		if err != nil {
			return nil, err
		}
		s.text = string(text)
		if s.resource == "virtualmachineinstancemigrations" {
			p.final, uid = s, string(e.Object.GetUID())
		}
		isTarget := isPod && pod.Labels[kubevirtv1.MigrationJobLabel] != ""
		switch {
		case len(p.over) > 0 || isPod && !isTarget && len(p.charged) > 0:
			p.over = append(p.over, s)
		case len(p.charged) > 0 || isTarget:
			p.charged = append(p.charged, s)
		case len(p.refused) > 0 || s.resource == "virtualmachineinstancemigrations":
			p.refused = append(p.refused, s)
		default:
			latest[s.resource] = s
		}
	}
	if len(latest) != 2 || len(p.over) == 0 {
		return nil, fmt.Errorf("%s is not a migration of one machine that quota has refused", file)
	}
	p.before = []step{latest["virtualmachineinstances"], latest["pods"]}
	p.final.text = strings.NewReplacer(`"m1"`, `"m@kept@"`, uid[:8], "@kept@").Replace(p.final.text)
	return p, nil
}

// names replaces the names in texts by those of machine number n of namespace.
func (p *pattern) names(namespace int, n int, at uint64) *strings.Replacer {
	pairs := []string{
		version, fmt.Sprint(at), p.namespace, NamespaceName(namespace), p.name, fmt.Sprintf("vm%d", n),
		`"m1"`, fmt.Sprintf(`"m%d"`, n), "node01", fmt.Sprintf("node%05d", namespace),
	}
	for _, uid := range p.uids {
		pairs = append(pairs, uid, fmt.Sprintf("%08x%s", namespace*largest+n, uid[8:]))
	}
	return strings.NewReplacer(pairs...)
}

// NamespaceName is the name of namespace i.
func NamespaceName(i int) string { return fmt.Sprintf("tenant-%05d", i) }

// limited is what the quotas limit of list.
func limited(list corev1.ResourceList) corev1.ResourceList {
	of := corev1.ResourceList{}
	for _, name := range []corev1.ResourceName{
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourcePods,
	} {
		of[name] = list[name]
	}
	return of
}
