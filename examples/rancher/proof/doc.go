// Package proof has no code but tests: the shim on wrangler's real controllers, on a real
// API server with the real virt-controller, with Rancher's write lock in force.
//
//	go test ./proof
//
// It builds the test bed first, which takes many minutes if nothing of it was ever built.
package proof
