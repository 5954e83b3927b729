package proof

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/vmquota/headroom/examples/testbed/bed"
)

// system is the namespace of the manifests, user whom the controller is there.
const (
	system = "headroom"
	user   = "system:serviceaccount:" + system + ":headroom"
)

// What all tests share: one bed, on which the chart is installed with the guard, and programs
// as those who install them build them.
var (
	shared   *bed.Bed
	admin    kubernetes.Interface
	objects  dynamic.Interface
	programs string // the folder of controller, thief and helm
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	code, err := prepared(context.Background(), m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// prepared calls work when the bed and the programs are there.
func prepared(ctx context.Context, work func() int) (code int, err error) {
	if programs, err = os.MkdirTemp("", "headroom-proof-"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(programs)) }()
	if err := errors.Join(build(ctx, "..", "."), build(ctx, "../guard", "./thief"), build(ctx, "../chart", "helm.sh/helm/v3/cmd/helm")); err != nil {
		return 0, err
	}
	if shared, err = bed.Start(ctx, bed.Config{Log: os.Stderr, Step: 20 * time.Millisecond}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, shared.Stop()) }()
	if admin, err = kubernetes.NewForConfig(shared.Config()); err != nil {
		return 0, err
	}
	if objects, err = dynamic.NewForConfig(shared.Config()); err != nil {
		return 0, err
	}
	if err := install(ctx); err != nil {
		return 0, err
	}
	code = work()
	return code, uninstall(ctx)
}

// build builds a program of another module.
func build(ctx context.Context, module, program string) error {
	command := exec.CommandContext(ctx, "go", "-C", module, "build", "-o", programs+string(filepath.Separator), program)
	command.Stderr = os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("build %s of %s: %w", program, module, err)
	}
	return nil
}
