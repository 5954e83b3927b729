package ledger_test

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/memory"
	"github.com/vmquota/headroom/quota"
)

// Whoever sees the migrations records them; whoever writes the quota reads them.
func Example() {
	ctx := context.Background()
	var record ledger.Ledger = memory.New()

	err := record.Replace(ctx, "tenant", []quota.Migration{{
		UID:   "0d4aa6d4-5c7e-4f5d-9d4e-61a1d2f0a001",
		VMI:   "database",
		State: quota.Blocked,
		Surge: corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("1")},
	}})
	if err != nil {
		fmt.Println(err)
	}

	migrations, err := record.Migrations(ctx, "tenant")
	if err != nil {
		fmt.Println(err)
	}
	static := corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("4")}
	limit := quota.Effective(static, migrations, static)[corev1.ResourceLimitsCPU]
	fmt.Println("limits.cpu is", limit.String())

	// Output: limits.cpu is 5
}

func ExampleEqual() {
	cpu := func(s string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse(s)}
	}
	seen := []quota.Migration{{UID: "b", Surge: cpu("1")}, {UID: "a", Surge: cpu("500m")}}
	recorded := []quota.Migration{{UID: "a", Surge: cpu("0.5")}, {UID: "b", Surge: cpu("1000m")}}
	fmt.Println(ledger.Equal(seen, recorded))

	// Output: true
}
