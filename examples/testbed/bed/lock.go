package bed

import (
	"bytes"
	"context"
	_ "embed" // for the policy
	"errors"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/vmquota/headroom/ledger/rancher"
)

// UnlockedLabel is on namespaces in which [Bed.LockQuotas] locks nothing, as with a Rancher
// from before its write lock.
const UnlockedLabel = "testbed.headroom.vmquota.io/unlocked"

// RancherUser, in the group system:masters, is who the lock lets through.
const RancherUser = "system:serviceaccount:cattle-system:rancher-webhook-sudo"

var errUnlocked = errors.New("anybody may create a quota of Rancher's")

//go:embed lock.yaml
var lockYAML []byte

// LockQuotas installs the write lock of Rancher 2.14.6 and 2.15.2 on the quotas that it
// manages, as a policy, and returns when the lock is in force.
func (b *Bed) LockQuotas(ctx context.Context) error {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(lockYAML), 4096)
	var policy admissionv1.ValidatingAdmissionPolicy
	var binding admissionv1.ValidatingAdmissionPolicyBinding
	if err := errors.Join(decoder.Decode(&policy), decoder.Decode(&binding)); err != nil {
		return err
	}
	binding.Spec.MatchResources = &admissionv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: UnlockedLabel, Operator: metav1.LabelSelectorOpDoesNotExist}},
	}}
	policies := b.client.AdmissionregistrationV1()
	_, err := policies.ValidatingAdmissionPolicies().Create(ctx, &policy, metav1.CreateOptions{})
	_, bound := policies.ValidatingAdmissionPolicyBindings().Create(ctx, &binding, metav1.CreateOptions{})
	for _, err := range []error{err, bound} {
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	probe := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "probe", Labels: map[string]string{rancher.QuotaLabel: "true"}}}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return poll(ctx, func(ctx context.Context) error {
		_, err := b.client.CoreV1().ResourceQuotas("default").Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if apierrors.IsForbidden(err) {
			return nil
		}
		return errors.Join(errUnlocked, err)
	})
}
