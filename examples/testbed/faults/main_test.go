package faults_test

import (
	"os"
	"testing"

	"github.com/vmquota/headroom/examples/testbed/process"
)

func TestMain(m *testing.M) {
	process.Main()
	os.Exit(m.Run())
}
