// Package model is Rancher's quota controller as far as a namespace and its ResourceQuota
// are concerned, on wrangler's real controllers, caches and clients. It is written anew
// from what Rancher does, for tests that cannot have Rancher itself as a dependency.
//
// What it does as Rancher does: it looks up the quota by its label in the cache, compares
// the limits by their value, updates the cached copy with its spec replaced, writes the
// limits and a condition with a timestamp to the namespace before that, so that each write
// of a quota is another event for it, creates zeros for what does not fit the project,
// leaves a quota alone whose new limits do not fit, retries after conflicts, and looks at
// all namespaces after a start.
//
// What it leaves out: limit ranges, roles, used limits, and where projects are stored. And
// it waits for its cache after it has created a quota, where Rancher, if its cache is slow,
// creates another one.
//
// Nothing of the controller is decorated. Headroom runs beside it (Config.Headroom).
package model
