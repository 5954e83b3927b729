// Package quota is the rule: what the hard limits of a ResourceQuota must be
// while virtual machines live-migrate in its namespace.
//
// It is pure: functions from values to values, with no I/O, no clock, no logging
// and no state. Every function is total: it never fails and never panics, reads
// its arguments only, and returns values that share no memory with them.
//
// # Words
//
//   - static: the hard limits that the tenant was given (spec.hard). An absent key
//     is unlimited, a zero is a limit of zero.
//   - used: status.used of the ResourceQuota.
//   - surge: what one migration charges twice while its two pods exist.
//   - held: the part of a migration's surge that used already contains.
//   - temporary usage: the held surge of all migrations. Regular usage is the
//     rest of used.
//   - effective: what status.hard must be now.
//
// # Rule
//
// For every resource r of static, and for no other:
//
//	temporary[r] = sum of held[r] over the migrations
//	regular[r]   = max(0, used[r] - temporary[r])
//	effective[r] = max(static[r], min(regular[r], lift[r])) + sum of surge[r] over the granted
//	available[r] = max(0, static[r] - regular[r])
//
// Granted are the charged migrations, and those blocked ones that the budget of
// the [Policy] lets in; lift is a cap in the Policy, by default there is none.
// [Effective] is the rule without budget and cap.
package quota
