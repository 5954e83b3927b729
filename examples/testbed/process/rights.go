package process

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	kubevirtv1 "kubevirt.io/api/core/v1"
)

// Grant gives user the rights of the library, and no others, and creates the system
// namespace. Without writeQuotas user may read quotas only.
func Grant(ctx context.Context, admin kubernetes.Interface, user string, writeQuotas bool) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}}
	if _, err := admin.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); ignoreExists(err) != nil {
		return err
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: rights(writeQuotas)}
	if _, err := admin.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); ignoreExists(err) != nil {
		return err
	}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: user}, RoleRef: refer("ClusterRole", user), Subjects: subjects(user)}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); ignoreExists(err) != nil {
		return err
	}
	ofLedger := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: ledgerRights()}
	if _, err := admin.RbacV1().Roles(Namespace).Create(ctx, ofLedger, metav1.CreateOptions{}); ignoreExists(err) != nil {
		return err
	}
	bound := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: user}, RoleRef: refer("Role", user), Subjects: subjects(user)}
	_, err := admin.RbacV1().RoleBindings(Namespace).Create(ctx, bound, metav1.CreateOptions{})
	return ignoreExists(err)
}

var read = []string{"get", "list", "watch"}

// rights are those in all namespaces.
func rights(writeQuotas bool) []rbacv1.PolicyRule {
	quotas := read
	if writeQuotas {
		quotas = []string{"get", "list", "watch", "update"}
	}
	rule := func(group string, verbs []string, resources ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Verbs: verbs, Resources: resources}
	}
	return []rbacv1.PolicyRule{
		rule("", quotas, "resourcequotas"),
		rule("", read, "pods", "limitranges", "persistentvolumeclaims"),
		rule("", []string{"list", "watch", "create", "patch"}, "events"),
		rule(kubevirtv1.SchemeGroupVersion.Group, []string{"list", "watch"}, "virtualmachineinstances"),
		rule(kubevirtv1.SchemeGroupVersion.Group, []string{"list", "watch", "patch"}, "virtualmachineinstancemigrations"),
	}
}

// ledgerRights are those in the system namespace.
func ledgerRights() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{{
		APIGroups: []string{""}, Resources: []string{"configmaps"},
		Verbs: []string{"get", "list", "watch", "create", "update", "delete"},
	}}
}

func refer(kind, name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func subjects(user string) []rbacv1.Subject {
	return []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}}
}

func ignoreExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
