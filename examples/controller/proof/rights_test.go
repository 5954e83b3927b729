package proof

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vmquota/headroom/examples/testbed/try"
)

// A replica that must not read what it has to says so, and leaves the Lease to one that may.
func TestAReplicaWithoutARightDoesNotLead(t *testing.T) {
	for _, resource := range []string{"events", "pods"} {
		t.Run(resource, func(t *testing.T) {
			restore := withdraw(t, resource)
			lame := startReplica(t, "lame-"+resource, "headroom")
			try.Eventually(t, func(c try.T) {
				body, code := lame.get(c, lame.health, "/readyz")
				require.Equal(c, http.StatusServiceUnavailable, code)
				require.Contains(c, body, resource+" is forbidden")
				require.NotContains(c, body, "the cache of ResourceQuotas has not synced")
			})
			able := startReplica(t, "able-"+resource, administrator(t))
			try.Eventually(t, func(c try.T) { require.True(c, able.leads(c)) })
			require.False(t, lame.leads(t))
			restore()
			try.Eventually(t, func(c try.T) {
				_, code := lame.get(c, lame.health, "/readyz")
				require.Equal(c, http.StatusOK, code)
			})
			require.NoError(t, able.Stop())
			try.Eventually(t, func(c try.T) { require.True(c, lame.leads(c)) })
		})
	}
}

// withdraw takes the right on a resource away from Headroom.
func withdraw(t *testing.T, resource string) (restore func()) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	roles := admin.RbacV1().ClusterRoles()
	role := try.Must(roles.Get(ctx, "headroom", metav1.GetOptions{}))(t)
	change := func(rules []rbacv1.PolicyRule, allowed bool) {
		role := try.Must(roles.Get(ctx, "headroom", metav1.GetOptions{}))(t)
		role.Rules = rules
		try.Must(roles.Update(ctx, role, metav1.UpdateOptions{}))(t)
		try.Eventually(t, func(c try.T) {
			review, err := admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
				Spec: authorizationv1.SubjectAccessReviewSpec{
					User:               "system:serviceaccount:" + system + ":headroom",
					ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "list", Resource: resource},
				},
			}, metav1.CreateOptions{})
			require.NoError(c, err)
			require.Equal(c, allowed, review.Status.Allowed)
		})
	}
	var left []rbacv1.PolicyRule
	for _, rule := range role.DeepCopy().Rules {
		rule.Resources = slices.DeleteFunc(rule.Resources, func(r string) bool { return r == resource })
		if len(rule.Resources) > 0 {
			left = append(left, rule)
		}
	}
	change(left, false)
	restore = sync.OnceFunc(func() { change(role.Rules, true) })
	t.Cleanup(restore)
	return restore
}

// administrator returns the name of a service account that may do everything.
func administrator(t *testing.T) string {
	t.Helper()
	stage.Bed.Create(t, []byte(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: able, namespace: headroom}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: able}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: able, namespace: headroom}]`))
	return "able"
}
