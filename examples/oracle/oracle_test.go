package oracle_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	helpers034 "headroom.test/component-helpers-0.34/resource"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/quota"
	"github.com/vmquota/headroom/quota/amounts"
)

func TestFootprintIsWhatKubernetesCharges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pod := atRest(drawPod(t))
		before := encode(t, pod)
		theirs := usage(t, podEvaluator(time.Time{}), pod.DeepCopy())
		ours := quota.Footprint(pod)
		requireSame(t, theirs, ours)
		requireOwnMemory(t, ours, pod, before)
	})
}

// In the middle of a resize in place Footprint is what API servers up to v1.36 charge, on
// pods whose status is as a kubelet writes it.
func TestFootprintInAResizeIsWhatKubernetesChargedBefore(t *testing.T) {
	resized := 0
	rapid.Check(t, func(t *rapid.T) {
		pod := drawPod(t)
		reportByKubelet(t, pod)
		options := helpers034.PodResourcesOptions{UseStatusResources: true}
		total := corev1.Container{Resources: corev1.ResourceRequirements{
			Requests: helpers034.PodRequests(pod.DeepCopy(), options), Limits: helpers034.PodLimits(pod.DeepCopy(), options),
		}}
		// The evaluator says under which names the totals are charged.
		theirs := usage(t, podEvaluator(time.Time{}), &corev1.Pod{
			Spec: corev1.PodSpec{Containers: []corev1.Container{total}}, Status: corev1.PodStatus{Phase: pod.Status.Phase},
		})
		before := encode(t, pod)
		ours := quota.Footprint(pod)
		count(!apiequality.Semantic.DeepEqual(ours, quota.Footprint(atRest(pod.DeepCopy()))), &resized)
		requireSame(t, theirs, ours)
		requireOwnMemory(t, ours, pod, before)
	})
	requireBoth(t, "pods in a resize", resized, "wanted", resized)
}

// And it is never less than what an API server of v1.37 charges.
func TestFootprintInAResizeIsNoLessThanKubernetesCharges(t *testing.T) {
	same, more := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		pod := drawPod(t)
		dropNegative(pod)
		theirs := usage(t, podEvaluator(time.Time{}), pod.DeepCopy())
		ours := quota.Footprint(pod)
		isMore := len(ours) > len(theirs)
		for name, charged := range theirs {
			got, ok := ours[name]
			if !ok || got.Cmp(charged) < 0 {
				t.Fatalf("%s: quota says %s (%v), Kubernetes %s\npod %s", name, got.String(), ok, charged.String(), encode(t, pod))
			}
			isMore = isMore || got.Cmp(charged) > 0
		}
		count(isMore, &more)
		count(!isMore, &same)
	})
	requireBoth(t, "pods for which both say the same", same, "for which Footprint says more", more)
}

func TestFootprintAtEndsWhenKubernetesEnds(t *testing.T) {
	ends, lasts := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		pod := atRest(drawPod(t))
		now := drawNow(t, pod)
		theirs := usage(t, podEvaluator(now), pod.DeepCopy())
		requireSame(t, theirs, quota.FootprintAt(pod, now))
		if pod.DeletionTimestamp == nil {
			return
		}
		if _, charged := theirs[corev1.ResourcePods]; charged {
			lasts++
		} else {
			ends++
		}
	})
	requireBoth(t, "deleted pods that are charged", lasts, "that are not", ends)
}

func TestClaimFootprintIsWhatKubernetesCharges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pvc := drawClaim(t)
		before := encode(t, pvc)
		theirs := usage(t, claimEvaluator(), pvc.DeepCopy())
		ours := quota.ClaimFootprint(pvc)
		requireSame(t, theirs, ours)
		requireOwnMemory(t, ours, pvc, before)
	})
}

func TestResourceClaimFootprintIsWhatKubernetesCharges(t *testing.T) {
	mapped := 0
	evaluator := deviceEvaluator()
	rapid.Check(t, func(t *rapid.T) {
		claim := drawResourceClaim(t)
		before := encode(t, claim)
		usage := usage(t, evaluator, claim.DeepCopy())
		// Quota admission counts no other names than these.
		theirs := quotav1.Mask(usage, evaluator.MatchingResources(quotav1.ResourceNames(usage)))
		ours := quota.ResourceClaimFootprint(claim, func(class string) string { return extendedClasses[class] })
		requireSame(t, theirs, ours)
		requireOwnMemory(t, ours, claim, before)
		_, isMapped := theirs["requests.example.com/gpu"]
		count(isMapped, &mapped)
	})
	requireBoth(t, "claims for extended resources", mapped, "wanted", mapped)
}

func TestSelectedByWhatKubernetesMatchesOfResourceClaims(t *testing.T) {
	evaluator := deviceEvaluator()
	rapid.Check(t, func(t *rapid.T) {
		rq := drawQuota(t)
		theirs, err := evaluator.Matches(limiting(rq), &resourcev1.ResourceClaim{})
		if ours := stored(t, quota.Traits{ResourceClaim: true}).SelectedBy(rq); ours != (theirs && err == nil) {
			t.Fatalf("the traits say %v, Kubernetes %v (error %v)\nquota %s", ours, theirs, err, encode(t, rq))
		}
	})
}

func TestSelectsWhatKubernetesMatches(t *testing.T) {
	selected, left := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		pod, rq := drawPod(t), drawQuota(t)
		dropNegative(pod) // from v1.37 on they are not as good as none
		// An error means that the quota matches nothing.
		theirs, err := podEvaluator(time.Time{}).Matches(limiting(rq), pod)
		theirs = theirs && err == nil
		if ours := quota.Selects(rq, pod); ours != theirs {
			t.Fatalf("Selects says %v, Kubernetes %v (error %v)\nquota %s\npod %s", ours, theirs, err, encode(t, rq), encode(t, pod))
		}
		if ours := stored(t, quota.TraitsOf(pod)).SelectedBy(rq); ours != theirs {
			t.Fatalf("the traits of the pod say %v, Kubernetes %v (error %v)\nquota %s\npod %s", ours, theirs, err, encode(t, rq), encode(t, pod))
		}
		count(theirs && isScoped(rq), &selected)
		count(!theirs, &left)
	})
	requireBoth(t, "pods that a scoped quota selects", selected, "that it leaves", left)
}

func TestSelectedByWhatKubernetesMatchesOfClaims(t *testing.T) {
	selected, left := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		pvc, rq := drawClaim(t), drawQuota(t)
		theirs, err := claimEvaluator().Matches(limiting(rq), pvc)
		theirs = theirs && err == nil
		if ours := stored(t, quota.TraitsOfClaim(pvc)).SelectedBy(rq); ours != theirs {
			t.Fatalf("the traits of the claim say %v, Kubernetes %v (error %v)\nquota %s\nclaim %s", ours, theirs, err, encode(t, rq), encode(t, pvc))
		}
		count(theirs && isScoped(rq), &selected)
		count(!theirs, &left)
	})
	requireBoth(t, "claims that a scoped quota selects", selected, "that it leaves", left)
}

// usage returns what Kubernetes charges for object.
func usage(t *rapid.T, evaluator quotav1.Evaluator, object runtime.Object) corev1.ResourceList {
	charged, err := evaluator.Usage(object)
	if err != nil {
		t.Fatalf("the evaluator of Kubernetes: %v", err)
	}
	return charged
}

// requireSame fails unless both lists have the same keys, amounts and spelling.
func requireSame(t *rapid.T, theirs, ours corev1.ResourceList) {
	names := maps.Clone(theirs)
	maps.Copy(names, ours)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		want, is := theirs[name]
		got, are := ours[name]
		if is != are || want.Cmp(got) != 0 || want.String() != got.String() {
			t.Fatalf("%s: quota says %s (%v), Kubernetes %s (%v)", name, got.String(), are, want.String(), is)
		}
	}
}

// requireOwnMemory fails if the object was changed since before was encoded, or
// changes when the caller adds to the amounts of its footprint, or if two of these
// amounts change together.
func requireOwnMemory(t *rapid.T, footprint corev1.ResourceList, object any, before string) {
	if now := encode(t, object); now != before {
		t.Fatalf("the object was changed\nfrom %s\nto   %s", before, now)
	}
	more := resource.MustParse("12345678901234567890")
	want := amounts.Each(footprint, nil, func(q, _ resource.Quantity) resource.Quantity { return amounts.Plus(q, more) })
	for name, q := range footprint {
		q.Add(more)
		footprint[name] = q
	}
	requireSame(t, want, footprint)
	if now := encode(t, object); now != before {
		t.Fatalf("the object shares memory with its footprint\nit was %s\nand is %s", before, now)
	}
}

// requireBoth fails if a test saw too few of either case to mean anything.
func requireBoth(t *testing.T, a string, as int, b string, bs int) {
	t.Helper()
	const enough = 20
	if !t.Failed() && (as < enough || bs < enough) {
		t.Errorf("%d %s and %d %s: want at least %d of each", as, a, bs, b, enough)
	}
}

func count(yes bool, n *int) {
	if yes {
		*n++
	}
}

// stored returns traits after a way through JSON.
func stored(t *rapid.T, traits quota.Traits) quota.Traits {
	var read quota.Traits
	if err := json.Unmarshal([]byte(encode(t, traits)), &read); err != nil {
		t.Fatal(err)
	}
	if read != traits {
		t.Fatalf("%+v comes back from JSON as %+v", traits, read)
	}
	return read
}

func encode(t *rapid.T, object any) string {
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Draws: each draw function returns one random object. None of them asks what the API
// server would accept, since the functions under test are total.
