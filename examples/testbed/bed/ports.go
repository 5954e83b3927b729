package bed

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// newAddresses returns a loopback address and free ports of it. The address is drawn
// by lot, so that nobody takes a port between now and when it is used.
func newAddresses() (addresses, error) {
	a := addresses{host: fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))}
	for _, port := range []*int{&a.etcd, &a.etcdPeer, &a.api, &a.otherAPI, &a.controllerManager, &a.virtControllerAPI} {
		listener, err := net.Listen("tcp", net.JoinHostPort(a.host, "0"))
		if err != nil {
			return addresses{}, fmt.Errorf("no free port: %w", err)
		}
		defer func() { _ = listener.Close() }() // not before all have one
		address, ok := listener.Addr().(*net.TCPAddr)
		if !ok {
			return addresses{}, fmt.Errorf("no free port: %v", listener.Addr())
		}
		*port = address.Port
	}
	return a, nil
}
