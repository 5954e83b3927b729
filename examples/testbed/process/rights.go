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

// A Right is what a user of [Grant] may do beside reading.
type Right string

const (
	// EnforceLimits is update of resourcequotas/status.
	EnforceLimits Right = "enforce-limits"
	// WriteLedger is everything that the ConfigMap ledger does in [Namespace].
	WriteLedger Right = "write-ledger"
	// WriteQuotas is update of resourcequotas, which the library never has. It is for
	// the policy [RaisePending].
	WriteQuotas Right = "write-quotas"
)

// Grant gives user the rights to read what the library reads, to record events, to nudge
// migrations, and the rights named. It also creates the system namespace. What user was
// granted before stays.
func Grant(ctx context.Context, admin kubernetes.Interface, user string, rights ...Right) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}}
	if _, err := admin.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); ignoreExists(err) != nil {
		return err
	}
	if err := grant(ctx, admin, user, user, reading()); err != nil {
		return err
	}
	for _, right := range rights {
		name := user + "-" + string(right)
		var err error
		switch right {
		case EnforceLimits:
			err = grant(ctx, admin, name, user, []rbacv1.PolicyRule{rule("", []string{"update"}, "resourcequotas/status")})
		case WriteQuotas:
			err = grant(ctx, admin, name, user, []rbacv1.PolicyRule{rule("", []string{"update"}, "resourcequotas")})
		case WriteLedger:
			err = grantLedger(ctx, admin, name, user)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// grant gives user rules in all namespaces, by a cluster role of that name.
func grant(ctx context.Context, admin kubernetes.Interface, name, user string, rules []rbacv1.PolicyRule) error {
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
	if _, err := admin.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); ignoreExists(err) != nil {
		return err
	}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: refer("ClusterRole", name), Subjects: subjects(user)}
	_, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
	return ignoreExists(err)
}

// grantLedger gives user the ConfigMaps of the system namespace.
func grantLedger(ctx context.Context, admin kubernetes.Interface, name, user string) error {
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
		rule("", []string{"get", "list", "watch", "create", "update", "delete"}, "configmaps"),
	}}
	if _, err := admin.RbacV1().Roles(Namespace).Create(ctx, role, metav1.CreateOptions{}); ignoreExists(err) != nil {
		return err
	}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: refer("Role", name), Subjects: subjects(user)}
	_, err := admin.RbacV1().RoleBindings(Namespace).Create(ctx, binding, metav1.CreateOptions{})
	return ignoreExists(err)
}

// reading are the rules without which nothing works, and which change no quota.
func reading() []rbacv1.PolicyRule {
	watch := []string{"list", "watch"}
	return []rbacv1.PolicyRule{
		rule("", []string{"get", "list", "watch"}, "resourcequotas"),
		rule("", watch, "namespaces", "pods", "limitranges", "persistentvolumeclaims"),
		rule("", []string{"list", "watch", "create", "patch"}, "events"),
		rule("resource.k8s.io", watch, "resourceclaims", "deviceclasses"),
		rule(kubevirtv1.SchemeGroupVersion.Group, watch, "virtualmachineinstances"),
		rule(kubevirtv1.SchemeGroupVersion.Group, []string{"list", "watch", "patch"}, "virtualmachineinstancemigrations"),
	}
}

func rule(group string, verbs []string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Verbs: verbs, Resources: resources}
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
