// Package model is Rancher's quota controller as far as a namespace and its ResourceQuota are concerned
// (SyncController of its pkg/controllers/managementuser/resourcequota). It is written anew from what Rancher
// does, for tests that cannot have Rancher itself as a dependency. The tests in ../proof run it on wrangler's
// real controllers and caches, and [Simulate] on a simulated cluster.
//
// What it does as Rancher does: it gets the quota by its label from the cache, compares the limits by their
// value, updates the cached copy with its spec replaced, writes the limits and a condition with a timestamp to
// the namespace before that, so that each write of a quota is another event for it, creates zeros for what does
// not fit the project, leaves a quota alone whose new limits do not fit, retries after conflicts, and
// reconciles all namespaces after a start. It does not watch quotas.
//
// What it leaves out: limit ranges, roles, used limits, and where projects are stored. And it creates no second
// quota when its cache is slow, as Rancher may.
package model
