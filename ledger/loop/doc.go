// Package loop is the work queue of a controller that has none of its own: client-go's
// rate-limiting queue, keyed by namespace, with coalescing and a spread start.
//
//	l, err := loop.New(loop.Config{Reconcile: controller.Reconcile, Namespaces: namespaces})
//	...
//	pods.AddEventHandler(l.Handler(migration.Namespace))
//	...
//	l.Run(ctx) // after the caches have synced
//
// # When a namespace is reconciled
//
// After an event at once, but no sooner than Config.Gap after the last reconcile began.
// All events in between cost one more reconcile at the end of the gap. No event is missed:
// a reconcile always begins after the last of them.
//
// At the start and on every resync the namespaces are spread over some time, so that a
// restart over thousands of namespaces is no load on the API server. An event does not wait
// for that.
//
// After an error a namespace is reconciled again with an exponential back-off.
package loop
