// Package chart has no code but tests: Helm lints and renders the chart, and the objects are
// compared with those of kustomize. The module also pins the helm command:
//
//	go tool helm template headroom .
package chart
