// Package process is the library at work in a process of its own, as a controller that
// embeds it would have it: the observer, the nudger, the applier, and a ledger in
// ConfigMaps, on informers. It has no more rights than it needs.
//
// [Library] is the part that has no informers; a simulated cluster runs it, too. [Start]
// starts a real process, which can be killed. The program that calls it starts itself
// once more, so its main function, or TestMain, has to call [Main] first.
package process
