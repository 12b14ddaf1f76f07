// Package seglog is the log: the files that are the only truth of a store. It
// knows bytes, sequences and keys, but neither pages nor canisters.
//
// The nouns. A segment is a file; a frame is a framed and authenticated item
// in it; a batch is what one sync makes durable, a run of frames that ends
// with a trailer. Segments belong to a stream: commit (batches, with the data
// of small takes), bulk and moved (spilled data that batches depend on). ROOT,
// in two copies, lists the segments.
//
// What holds, whatever crashes:
//
//  1. Commit returns nil only when the batch is synced, and everything it
//     depends on was synced before it was written.
//  2. A batch in flight at a crash counts whole or not at all. Only the last
//     one can be in doubt: each later one proves that it was synced.
//  3. What was proved synced and is not whole is Damage, named and never
//     dropped in silence; each of its frames that is whole still counts.
//  4. Epochs, segment numbers and sequences are never used twice, and nothing
//     is appended to a segment of an earlier epoch.
//  5. A sync that failed is never repeated as if it could succeed: its segment
//     is closed for ever, and its batch withdrawn before anyone is told.
//  6. A frame verifies only at the place where it was written, under the key
//     of its store: neither content nor stale or misdirected blocks pose as one.
//  7. Recovery changes nothing before a new ROOT says what was decided, so a
//     crash during recovery is just another crash.
//
// To read the source: frame.go and trailer.go (what is written), queue.go and
// commit.go (how a batch comes to be), recover.go, accept.go and start.go (what
// a crash leaves), table.go (ROOT and the life of segments). docs/format.md
// has every byte.
//
// It is not for finding content: that is the index's business, which is made
// from Replay and Scan, and can be made again at any time. The caller holds
// the lock of the directory.
package seglog
