package configmap

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Label is on every ConfigMap of the ledger. Its value is the tenant namespace whose
// migrations are in it.
const Label = "headroom.vmquota.io/namespace"

const prefix = "headroom-"

// Name returns the name of the ConfigMap with the migrations of a tenant namespace. A
// namespace name has at most 63 characters and a ConfigMap's 253, so that nothing has
// to be cut off, and no two namespaces have the same.
func Name(namespace string) string { return prefix + namespace }

// Select makes a list or a watch one of the ConfigMaps of the ledger. It is for the
// factory of the informer of [WithInformer], which then caches nothing else:
//
//	informers.WithTweakListOptions(configmap.Select)
func Select(options *metav1.ListOptions) { options.LabelSelector = Label }

// keyOf returns the data key for uid. Those that Kubernetes makes stand for
// themselves. In others, what a key must not have in it is written as _ and two
// hexadecimal digits for each byte, the empty one as _, and one that gets too long
// for a key as its SHA-256 sum behind a dot, which no other key has.
func keyOf(uid types.UID) string {
	if uid == "" {
		return "_"
	}
	var key strings.Builder
	for _, c := range []byte(uid) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
			key.WriteByte(c)
		default:
			fmt.Fprintf(&key, "_%02x", c)
		}
	}
	if key.Len() <= validation.DNS1123SubdomainMaxLength { // which is the limit for a key, too
		return key.String()
	}
	sum := sha256.Sum256([]byte(uid))
	return "sha256." + hex.EncodeToString(sum[:])
}

// isKey reports whether keyOf makes key for any UID.
func isKey(key string) bool {
	if sum, long := strings.CutPrefix(key, "sha256."); long {
		_, err := hex.DecodeString(sum)
		return err == nil && len(sum) == 2*sha256.Size
	}
	return !strings.Contains(key, ".")
}
