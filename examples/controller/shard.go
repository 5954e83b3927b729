package main

import (
	"fmt"
	"hash/fnv"
	_ "net/http/pprof" // in http.DefaultServeMux
)

// A shard is one part of the namespaces of a cluster. A namespace belongs to the shard
// that FNV-1a (32 bit) of its name names, modulo their number, so that it needs no
// coordination, and each has about as many as any other.
type shard struct{ index, count uint32 }

// has reports whether namespace belongs to s.
func (s shard) has(namespace string) bool {
	if s.count <= 1 {
		return true
	}
	hash := fnv.New32a()
	hash.Write([]byte(namespace))
	return hash.Sum32()%s.count == s.index
}

// lease is the name of the Lease of this shard's replicas.
func (s shard) lease(name string) string {
	if s.count <= 1 {
		return name
	}
	return fmt.Sprintf("%s-%d", name, s.index)
}
