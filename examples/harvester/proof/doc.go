// Package proof has no code but tests: the program of this example, with the rights of
// rbac.yaml and no others, on a real API server with the real virt-controller.
//
//	go test ./proof
//
// It builds the test bed first, which takes many minutes if nothing of it was ever built.
package proof
