// Package loop is the work queue that a controller needs to keep quotas right: it looks
// at namespaces, at each when something has happened there, and at all of them now and
// then. It is for controllers that have no queue of their own; what is looked at is up to
// the caller, such as migration.Keeper's Keep or applier.Applier's Apply.
//
//	l, err := loop.New(loop.Config{Look: keeper.Keep, Namespaces: namespaces})
//	...
//	pods.AddEventHandler(l.Handler(migration.Namespace))
//	...
//	return l.Run(ctx) // after the caches have synced
//
// # When a namespace is looked at
//
// After an event at once, but no sooner than Config.Gap after the last look began. All
// that happens meanwhile costs one more look at the end of the gap. So what comes in
// bursts, such as fifty migrations that start together, costs a few looks, and none of
// the events is missed: a look always begins after the last of them.
//
// At the start, and at each resync, the namespaces are spread over some time instead of
// being looked at in one go, so that a restart over thousands of namespaces does not
// fall upon the API server. An event does not wait for that.
//
// After an error again, with growing pauses.
package loop
