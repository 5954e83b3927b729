package proof

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/migration"
)

const (
	rancherUser  = "system:serviceaccount:cattle-system:rancher"
	headroomUser = "headroom"
)

// What all tests share: one bed, and the projects of its Rancher, each namespace with one
// of its own.
var (
	shared                *bed.Bed
	admin                 kubernetes.Interface
	machines              dynamic.Interface
	asRancher, asHeadroom *rest.Config
	projects              model.Projects
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	b, err := bed.Start(ctx, bed.Config{Log: os.Stderr, Step: 20 * time.Millisecond})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := b.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	shared = b
	if err := prepare(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// prepare installs the lock, and starts the observer with its rights.
func prepare(ctx context.Context) (err error) {
	if admin, err = kubernetes.NewForConfig(shared.Config()); err != nil {
		return err
	}
	if machines, err = dynamic.NewForConfig(shared.Config()); err != nil {
		return err
	}
	if asRancher, err = shared.User(rancherUser, "system:masters"); err != nil {
		return err
	}
	if asHeadroom, err = shared.User(headroomUser); err != nil {
		return err
	}
	ledger := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: rancher.DefaultNamespace}}
	if _, err := admin.CoreV1().Namespaces().Create(ctx, ledger, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := shared.LockQuotas(ctx); err != nil {
		return err
	}
	virtualization, err := shared.User("virt")
	if err != nil {
		return err
	}
	if err := grantAll(ctx); err != nil {
		return err
	}
	return observe(ctx, virtualization)
}

var read = []string{"get", "list", "watch"}

// grantAll gives the observer and headroom their rights.
func grantAll(ctx context.Context) error {
	kubevirt, core := []string{kubevirtv1.GroupVersion.Group}, []string{""}
	return errors.Join(
		// The observer reads, writes ConfigMaps in the namespace of the ledger, and annotates migrations.
		grant(ctx, "virt", append([]string{"create", "update", "delete"}, read...),
			rbacv1.PolicyRule{APIGroups: core, Resources: []string{"namespaces", "pods", "limitranges", "persistentvolumeclaims", "resourcequotas", "events"}, Verbs: read},
			rbacv1.PolicyRule{APIGroups: kubevirt, Resources: []string{"virtualmachineinstances"}, Verbs: read},
			rbacv1.PolicyRule{APIGroups: kubevirt, Resources: []string{"virtualmachineinstancemigrations"}, Verbs: append([]string{"patch"}, read...)},
		),
		// Rancher has these rights. Here headroom has an account of its own, with no others.
		grant(ctx, headroomUser, read,
			rbacv1.PolicyRule{APIGroups: core, Resources: []string{"resourcequotas"}, Verbs: read},
			rbacv1.PolicyRule{APIGroups: core, Resources: []string{"resourcequotas/status"}, Verbs: []string{"update"}},
			rbacv1.PolicyRule{APIGroups: core, Resources: []string{"namespaces"}, Verbs: []string{"get"}},
		),
	)
}

// grant gives user rights in all namespaces, and on the ConfigMaps of the ledger.
func grant(ctx context.Context, user string, ledger []string, rules ...rbacv1.PolicyRule) error {
	subjects := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}}
	rbac, meta := admin.RbacV1(), metav1.ObjectMeta{Name: user}
	_, role := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	_, bound := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
	}, metav1.CreateOptions{})
	_, local := rbac.Roles(rancher.DefaultNamespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: ledger},
	}}, metav1.CreateOptions{})
	_, localBound := rbac.RoleBindings(rancher.DefaultNamespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
	}, metav1.CreateOptions{})
	return errors.Join(role, bound, local, localBound)
}

// observe is the virtualization side: it writes the ledger, and wakes KubeVirt. It runs
// until ctx is done.
func observe(ctx context.Context, config *rest.Config) error {
	clients, err := migration.ClientsFor(config)
	if err != nil {
		return err
	}
	records := informers.NewSharedInformerFactoryWithOptions(clients.Core, 0,
		informers.WithNamespace(rancher.DefaultNamespace), informers.WithTweakListOptions(configmap.Select))
	ledger := configmap.New(clients.Core.CoreV1(), rancher.DefaultNamespace, configmap.WithInformer(records.Core().V1().ConfigMaps().Informer()))
	records.Start(ctx.Done())
	records.WaitForCacheSync(ctx.Done())
	observer, err := migration.NewController(clients, migration.Options{Ledger: ledger, RecordOnly: true, Recorder: &record.FakeRecorder{}})
	if err != nil {
		return err
	}
	if err := observer.Start(ctx); err != nil {
		return err
	}
	go observer.Work(ctx)
	return nil
}
