// Package process is the library at work in a process of its own, as a controller that
// embeds it would have it: a migration.Controller. It has no more rights than it needs: of a
// quota it may change status only.
//
// [Start] starts a real process, which can be killed. The program that calls it starts itself
// once more, so its main function, or TestMain, has to call [Main] first.
package process
