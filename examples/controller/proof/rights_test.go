package proof

import (
	"context"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A replica that must not read what it has to says so, and leaves the Lease to one that may.
func TestAReplicaWithoutARightDoesNotLead(t *testing.T) {
	for _, resource := range []string{"events", "pods"} {
		t.Run(resource, func(t *testing.T) {
			restore := withdraw(t, resource)
			lame := startReplica(t, "lame-"+resource, "headroom")
			eventually(t, func(c *assert.CollectT) {
				body, code := lame.get(c, lame.health, "/readyz")
				require.Equal(c, http.StatusServiceUnavailable, code)
				require.Contains(c, body, resource+" is forbidden")
				require.NotContains(c, body, "the cache of ResourceQuotas has not synced")
			})
			able := startReplica(t, "able-"+resource, administrator(t))
			eventually(t, func(c *assert.CollectT) { require.True(c, able.leads(c)) })
			require.False(t, lame.leads(t))
			restore()
			eventually(t, func(c *assert.CollectT) {
				_, code := lame.get(c, lame.health, "/readyz")
				require.Equal(c, http.StatusOK, code)
			})
			able.stop()
			eventually(t, func(c *assert.CollectT) { require.True(c, lame.leads(c)) })
		})
	}
}

// withdraw takes the right on a resource away from Headroom.
func withdraw(t *testing.T, resource string) (restore func()) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	roles := admin.RbacV1().ClusterRoles()
	role, err := roles.Get(ctx, "headroom", metav1.GetOptions{})
	require.NoError(t, err)
	change := func(rules []rbacv1.PolicyRule, allowed bool) {
		role, err := roles.Get(ctx, "headroom", metav1.GetOptions{})
		require.NoError(t, err)
		role.Rules = rules
		_, err = roles.Update(ctx, role, metav1.UpdateOptions{})
		require.NoError(t, err)
		eventually(t, func(c *assert.CollectT) {
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
	restored := false
	restore = func() {
		if !restored {
			restored = true
			change(role.Rules, true)
		}
	}
	t.Cleanup(restore)
	return restore
}

// administrator returns the name of a service account that may do everything.
func administrator(t *testing.T) string {
	t.Helper()
	account, err := admin.CoreV1().ServiceAccounts(system).Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{GenerateName: "able-"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: system, Name: account.Name}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return account.Name
}
