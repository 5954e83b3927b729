package onbed

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/vmquota/headroom/examples/testbed/bed"
)

// A QuotaVersion is a quota as a write has left it.
type QuotaVersion struct {
	*corev1.ResourceQuota
	At time.Time

	revision uint64
}

// QuotaVersions returns what the quotas were from each write to the next, in etcd's order.
func QuotaVersions(events []bed.AuditEvent) ([]QuotaVersion, error) {
	var found []QuotaVersion
	for _, e := range events {
		if e.Resource != "resourcequotas" || e.Code >= 300 || e.Verb == "delete" || len(e.ResponseObject) == 0 {
			continue
		}
		v := QuotaVersion{ResourceQuota: &corev1.ResourceQuota{}, At: e.Answered}
		if err := json.Unmarshal(e.ResponseObject, v.ResourceQuota); err != nil {
			return nil, err
		}
		if v.ResourceVersion == "" { // a dry run
			continue
		}
		var err error
		if v.revision, err = strconv.ParseUint(v.ResourceVersion, 10, 64); err != nil {
			return nil, err
		}
		found = append(found, v)
	}
	slices.SortFunc(found, func(a, b QuotaVersion) int { return cmp.Compare(a.revision, b.revision) })
	return found, nil
}
