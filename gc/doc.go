// Package gc is the life of a reference: it counts, drops, destroys, and
// gives the space back.
//
// The nouns. A run is an ordered list of versions of one canister that are
// counted against each other: the snapshots that were taken, and the head
// last; an uploaded snapshot is a run of its own, and so is what a deleted
// canister left behind. A version introduces what it has at a place when the
// version before it in its run has something else there. The count of an ID
// is the number of places, over all versions of all runs, that introduce it.
// A drop takes one version out of its run, in bounded steps. Limbo is where an
// ID with count zero waits until nothing in flight can have met it.
//
// What holds:
//
//  1. Counts change only under Counter's lock, in one atomic step with the
//     watermark or with the cursor of the drop: a crash neither leaks nor
//     loses, it repeats.
//  2. An ID is destroyed only when its count is zero, no operation holds a
//     pin on it, and every operation that was under way when it came to
//     limbo has ended. No clock decides.
//  3. A segment is dropped only when no entry points into it, the index state
//     that says so is durable, and ROOT's floor forbids an older one.
//  4. An underflow, or a tree that can not be read while counting, makes the
//     index untrusted: drops, destruction and cleaning stop, and the next
//     open recounts from the records.
//
// The package opens no file and knows no limits of the interface: which
// versions exist is decided by the canister records it is handed.
package gc
