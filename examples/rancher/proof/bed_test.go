package proof

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/examples/rancher/model"
	"github.com/vmquota/headroom/examples/rancher/namespace"
	"github.com/vmquota/headroom/examples/testbed/bed"
	"github.com/vmquota/headroom/examples/testbed/virt"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/configmap"
	"github.com/vmquota/headroom/ledger/loop"
	"github.com/vmquota/headroom/migration"
)

const (
	rancherUser = "system:serviceaccount:cattle-system:rancher"
	lockKey     = "system:serviceaccount:cattle-system:rancher-webhook-sudo" // whom the lock lets through
	// unlocked is on namespaces in which there is no lock, as with an older Rancher.
	unlocked = "proof.headroom.vmquota.io/unlocked"
)

// What all tests share: one bed, and the projects of its Rancher, each namespace with one
// of its own.
var (
	shared   *bed.Bed
	admin    kubernetes.Interface
	machines dynamic.Interface
	asUser   *rest.Config // Rancher
	projects model.Projects
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
	if asUser, err = shared.User(rancherUser, "system:masters"); err != nil {
		return err
	}
	for _, name := range []string{namespace.LedgerNamespace} {
		if _, err := admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	if err := lock(ctx); err != nil {
		return err
	}
	virtualization, err := shared.User("virt")
	if err != nil {
		return err
	}
	if err := grant(ctx, "virt"); err != nil {
		return err
	}
	return observe(ctx, virtualization)
}

// lock lets nobody but Rancher write the quotas that it manages, as its webhook does, and
// waits until that is in force.
func lock(ctx context.Context) error {
	fail, forbidden := admissionv1.Fail, metav1.StatusReasonForbidden
	policies := admin.AdmissionregistrationV1()
	if _, err := policies.ValidatingAdmissionPolicies().Create(ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "rancher-lock"},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update, admissionv1.Delete},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"resourcequotas"}},
				},
			}}},
			MatchConditions: []admissionv1.MatchCondition{
				{Name: "managed", Expression: `(request.operation == "DELETE" ? oldObject : object).metadata.?labels[?"` + model.QuotaLabel + `"].orValue("") == "true"`},
				{Name: "not-its-own", Expression: `!(request.userInfo.username in ["` + lockKey + `", "system:serviceaccount:kube-system:namespace-controller"])`},
			},
			Validations: []admissionv1.Validation{{
				Expression: "false", Reason: &forbidden, Message: "users are forbidden from changing resources managed by Rancher",
			}},
		},
	}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := policies.ValidatingAdmissionPolicyBindings().Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "rancher-lock"},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName:        "rancher-lock",
			ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
			MatchResources: &admissionv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{
				MatchExpressions: []metav1.LabelSelectorRequirement{{Key: unlocked, Operator: metav1.LabelSelectorOpDoesNotExist}},
			}},
		},
	}, metav1.CreateOptions{}); err != nil {
		return err
	}
	for {
		_, err := admin.CoreV1().ResourceQuotas("default").Create(ctx, &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "probe", Labels: map[string]string{model.QuotaLabel: "true"}},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if apierrors.IsForbidden(err) {
			return nil
		}
		if err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// grant gives the observer what it needs: to read, to write ConfigMaps in the ledger's
// namespace, and to annotate migrations.
func grant(ctx context.Context, user string) error {
	subject := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}}
	read := []string{"get", "list", "watch"}
	rbac := admin.RbacV1()
	_, err := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"namespaces", "pods", "limitranges", "persistentvolumeclaims", "resourcequotas", "events"}, Verbs: read},
		{APIGroups: []string{kubevirtv1.GroupVersion.Group}, Resources: []string{"virtualmachineinstances"}, Verbs: read},
		{APIGroups: []string{kubevirtv1.GroupVersion.Group}, Resources: []string{"virtualmachineinstancemigrations"}, Verbs: append([]string{"patch"}, read...)},
	}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if _, err = rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user}, Subjects: subject,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
	}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err = rbac.Roles(namespace.LedgerNamespace).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: append([]string{"create", "update", "delete"}, read...)},
	}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err = rbac.RoleBindings(namespace.LedgerNamespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user}, Subjects: subject,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
	}, metav1.CreateOptions{})
	return err
}

// observe is the virtualization side: it writes the ledger, and wakes KubeVirt. It runs
// until ctx is done.
func observe(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	core := factory.Core().V1()
	refusals := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(migration.SelectRefusals))
	records := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(namespace.LedgerNamespace), informers.WithTweakListOptions(configmap.Select))
	kubevirt := dynamicinformer.NewDynamicSharedInformerFactory(dyn, 0)
	vmims, vmis := kubevirt.ForResource(virt.Migrations).Informer(), kubevirt.ForResource(virt.Instances).Informer()
	for _, informer := range []cache.SharedIndexInformer{vmims, vmis} {
		if err := informer.SetTransform(migration.Typed); err != nil {
			return err
		}
	}
	caches := migration.Caches{
		Migrations:  migration.FromIndexer[kubevirtv1.VirtualMachineInstanceMigration](vmims.GetIndexer()),
		VMIs:        migration.FromIndexer[kubevirtv1.VirtualMachineInstance](vmis.GetIndexer()),
		Pods:        migration.FromIndexer[corev1.Pod](core.Pods().Informer().GetIndexer()),
		LimitRanges: migration.FromIndexer[corev1.LimitRange](core.LimitRanges().Informer().GetIndexer()),
		PVCs:        migration.FromIndexer[corev1.PersistentVolumeClaim](core.PersistentVolumeClaims().Informer().GetIndexer()),
		Events:      migration.FromIndexer[corev1.Event](refusals.Core().V1().Events().Informer().GetIndexer()),
		Namespace:   migration.FromStore(core.Namespaces().Informer().GetStore()),
	}
	quotas := migration.FromIndexer[corev1.ResourceQuota](core.ResourceQuotas().Informer().GetIndexer())
	record := configmap.New(client.CoreV1(), namespace.LedgerNamespace, configmap.WithInformer(records.Core().V1().ConfigMaps().Informer()))
	keeper := migration.Keeper{
		Observer: &migration.Observer{Caches: caches, Ledger: record, Now: time.Now},
		Nudger: &migration.Nudger{
			Caches: caches, Quotas: quotas, Now: time.Now,
			Patch: func(ctx context.Context, namespace, name string, patch []byte) error {
				_, err := dyn.Resource(virt.Migrations).Namespace(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
				return err
			},
		},
	}
	l, err := loop.New(loop.Config{Look: keeper.Keep, Now: time.Now, Urgent: migration.InProgress})
	if err != nil {
		return err
	}
	for _, informer := range []cache.SharedIndexInformer{
		vmims, vmis, core.Pods().Informer(), core.LimitRanges().Informer(), core.PersistentVolumeClaims().Informer(),
		core.ResourceQuotas().Informer(), refusals.Core().V1().Events().Informer(),
	} {
		if _, err := informer.AddEventHandler(l.Handler(migration.Namespace)); err != nil {
			return err
		}
	}
	for _, f := range []informers.SharedInformerFactory{factory, refusals, records} {
		f.Start(ctx.Done())
		f.WaitForCacheSync(ctx.Done())
	}
	kubevirt.Start(ctx.Done())
	kubevirt.WaitForCacheSync(ctx.Done())
	go l.Run(ctx)
	return nil
}

// applierOf is a process beside a Rancher that has no shim: an applier with rights on the
// quotas of one namespace. It runs until ctx is done.
func applierOf(ctx context.Context, tenant string) error {
	config := shared.Config()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(tenant))
	records := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithNamespace(namespace.LedgerNamespace), informers.WithTweakListOptions(configmap.Select))
	informer := factory.Core().V1().ResourceQuotas().Informer()
	record := configmap.New(client.CoreV1(), namespace.LedgerNamespace, configmap.WithInformer(records.Core().V1().ConfigMaps().Informer()))
	writer, err := applier.New(applier.Config{
		Ledger: record, Quotas: client.CoreV1(), List: migration.FromIndexer[corev1.ResourceQuota](informer.GetIndexer()), Now: time.Now,
	})
	if err != nil {
		return err
	}
	l, err := loop.New(loop.Config{Look: migration.Keeper{Applier: writer}.Keep, Now: time.Now})
	if err != nil {
		return err
	}
	if _, err := record.OnChange(func(namespace string) {
		if namespace == tenant {
			l.Add(namespace)
		}
	}); err != nil {
		return err
	}
	if _, err := informer.AddEventHandler(l.Handler(migration.Namespace)); err != nil {
		return err
	}
	for _, f := range []informers.SharedInformerFactory{factory, records} {
		f.Start(ctx.Done())
		f.WaitForCacheSync(ctx.Done())
	}
	l.Add(tenant)
	l.Run(ctx)
	return nil
}
