package main

import (
	"fmt"
	"hash/fnv"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"
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

// slim returns a transform of an informer that keeps of the objects of other shards only
// what they are called, so that caches share the memory of a cluster's objects between
// the shards. Next makes something of the others; nil: nothing.
func (s shard) slim(empty func() any, next cache.TransformFunc) cache.TransformFunc {
	return func(object any) (any, error) {
		accessor, err := meta.Accessor(object)
		if err != nil {
			return object, nil //nolint:nilerr // it is a tombstone
		}
		accessor.SetManagedFields(nil)
		if !s.has(accessor.GetNamespace()) {
			stub := empty()
			name, err := meta.Accessor(stub)
			if err != nil {
				return nil, err
			}
			name.SetNamespace(accessor.GetNamespace())
			name.SetName(accessor.GetName())
			name.SetUID(accessor.GetUID())
			name.SetResourceVersion(accessor.GetResourceVersion())
			return stub, nil
		}
		if next == nil {
			return object, nil
		}
		return next(object)
	}
}
