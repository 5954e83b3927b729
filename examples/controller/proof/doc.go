// Package proof has no code but tests: the chart and the manifests on a real API server,
// its program with the rights that they give it and the real virt-controller beside it,
// the guard, and the demo of examples/kind.
//
//	go test .
//
// It builds the test bed first, which takes many minutes if nothing of it was ever built.
package proof
