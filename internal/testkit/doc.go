// Package testkit is what the tests of the store share: a disk that loses what
// was not synced, a plain model of what a store must hold, and histories of
// operations drawn from a seed. It imports nothing of the store, so every room
// can use it, and nothing but tests does.
//
// The nouns. A Disk is a medium with a page cache: a Crash gives the disk as it
// may be found after a power loss. An FS is one process's view of a Disk; it
// counts operations, fails those it is told to fail, and can be killed, which
// leaves the page cache but runs no code of the dead process. A Model maps
// canisters to bytes; applying an Op gives the models that are right after it.
// A Generator draws Ops that make sense for a Model. Package drive, below this
// one, plays Ops on an engine and holds it against the Model.
package testkit
