// Package process is the library at work in a process of its own, as a controller that
// embeds it would have it: a keeper that is called by a loop, on informers, with a ledger
// in ConfigMaps. It has no more rights than it needs.
//
// [NewKeeper] is the part that has no informers; a simulated cluster runs it, too. [Start]
// starts a real process, which can be killed. The program that calls it starts itself
// once more, so its main function, or TestMain, has to call [Main] first.
package process
