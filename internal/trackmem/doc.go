// Package trackmem holds memory that never moves and knows which of its pages
// were written.
//
// A Tracker is what this machine can do, probed once. It makes Memories: each
// is one reservation of address space with a length that grows inside it.
// Collect moves what was written since the collect before it into a DirtySet;
// what it reports is never less than what changed, and may be more. A Borrow
// lends the bytes out to a Wasm runtime; nothing is unmapped under it.
//
// In kernel mode (Linux 6.7 and later, no privilege) the kernel notes writes,
// whoever makes them, at the price of one fault for the first write of a page
// after a collect. In bitmap mode only WriteAt is seen. In hash mode a collect
// compares hashes of all pages.
//
// Who excludes whom: ReadAt and WriteAt take no lock, as a guest takes none.
// Collect, Truncate and Close must not run beside a WriteAt, and Close beside
// no method at all; the caller's lock sees to that. CollectRunning may run
// beside foreign writes and WriteAt.
//
// The package knows nothing of canisters, sections or the store.
package trackmem
