package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof" // in http.DefaultServeMux
	"time"

	"k8s.io/client-go/tools/leaderelection"
)

// health answers the probes of the kubelet. A replica that waits for the Lease is ready
// too, as soon as its caches are full: it can take over at once.
func health(synced func() error, elector *leaderelection.HealthzAdaptor) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", answer(func(r *http.Request) error { return elector.Check(r) }))
	mux.HandleFunc("/readyz", answer(func(*http.Request) error { return synced() }))
	return mux
}

func answer(check func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := check(r); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// serve serves handler at address until ctx is done; an empty address is nowhere. What
// goes wrong later than at the beginning is told to failed.
func serve(ctx context.Context, address string, handler http.Handler, failed func(error)) error {
	if address == "" {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	context.AfterFunc(ctx, func() {
		_ = server.Close() // the answers to probes and scrapes are not worth waiting for
	})
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed(err)
		}
	}()
	return nil
}
