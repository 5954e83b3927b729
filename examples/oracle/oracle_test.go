package oracle_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"

	"github.com/vmquota/headroom/quota"
)

func TestFootprintIsWhatKubernetesCharges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pod := drawPod(t)
		before := pod.DeepCopy()
		theirs, err := podEvaluator(time.Time{}).Usage(pod.DeepCopy())
		if err != nil {
			t.Fatalf("the evaluator of Kubernetes: %v", err)
		}
		ours := quota.Footprint(pod)
		requireSame(t, theirs, ours)
		requireOwnMemory(t, ours, func() string { return encode(t, pod) }, encode(t, before))
	})
}

func TestFootprintAtEndsWhenKubernetesEnds(t *testing.T) {
	ends, lasts := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		pod := drawPod(t)
		now := drawNow(t, pod)
		theirs, err := podEvaluator(now).Usage(pod.DeepCopy())
		if err != nil {
			t.Fatalf("the evaluator of Kubernetes: %v", err)
		}
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
		before := pvc.DeepCopy()
		theirs, err := claimEvaluator().Usage(pvc.DeepCopy())
		if err != nil {
			t.Fatalf("the evaluator of Kubernetes: %v", err)
		}
		ours := quota.ClaimFootprint(pvc)
		requireSame(t, theirs, ours)
		requireOwnMemory(t, ours, func() string { return encode(t, pvc) }, encode(t, before))
	})
}

func TestSelectsWhatKubernetesMatches(t *testing.T) {
	selected, left := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		pod, rq := drawPod(t), drawQuota(t)
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
func requireOwnMemory(t *rapid.T, footprint corev1.ResourceList, object func() string, before string) {
	if now := object(); now != before {
		t.Fatalf("the object was changed\nfrom %s\nto   %s", before, now)
	}
	more := resource.MustParse("12345678901234567890")
	want := make(corev1.ResourceList, len(footprint))
	for name, q := range footprint {
		sum := q.DeepCopy()
		sum.Add(more)
		want[name] = sum
	}
	for name, q := range footprint {
		q.Add(more)
		footprint[name] = q
	}
	requireSame(t, want, footprint)
	if now := object(); now != before {
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
