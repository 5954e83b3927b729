package oracle_test

import (
	"flag"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/dynamic-resource-allocation/deviceclass/extendedresourcecache"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/quota/v1/evaluator/core"
	clocktesting "k8s.io/utils/clock/testing"
)

// checks is how many random objects each test draws; -rapid.checks goes before it.
const checks = "25000"

func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "rapid.checks" })
	if !chosen {
		if err := flag.Set("rapid.checks", checks); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// podEvaluator is Kubernetes' evaluator of pods, at the time now.
func podEvaluator(now time.Time) quotav1.Evaluator {
	return core.NewPodEvaluator(nil, clocktesting.NewFakeClock(now))
}

// claimEvaluator is Kubernetes' evaluator of PersistentVolumeClaims.
func claimEvaluator() quotav1.Evaluator { return core.NewPersistentVolumeClaimEvaluator(nil) }

// extendedClasses are the classes of devices that stand for an extended resource.
var extendedClasses = map[string]string{"gpu": "example.com/gpu", "nic": "example.com/nic"}

// deviceEvaluator is Kubernetes' evaluator of ResourceClaims.
func deviceEvaluator() quotav1.Evaluator {
	classes := extendedresourcecache.NewExtendedResourceCache(klog.Background())
	for class, name := range extendedClasses {
		classes.OnAdd(&resourcev1.DeviceClass{
			ObjectMeta: metav1.ObjectMeta{Name: class}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: &name},
		}, true)
	}
	return core.NewResourceClaimEvaluator(nil, classes, nil, nil)
}

// limiting returns rq with a limit on something that every pod and every claim of each kind is
// charged for: Kubernetes matches no quota that limits nothing of the object, and
// the scopes are what is to be compared.
func limiting(rq *corev1.ResourceQuota) *corev1.ResourceQuota {
	rq = rq.DeepCopy()
	rq.Status.Hard = corev1.ResourceList{
		corev1.ResourcePods:                   *resource.NewQuantity(1, resource.DecimalSI),
		corev1.ResourcePersistentVolumeClaims: *resource.NewQuantity(1, resource.DecimalSI),
		core.ClaimObjectCountName:             *resource.NewQuantity(1, resource.DecimalSI),
	}
	return rq
}
