// Package index finds what the log holds. It is a Pebble database that maps
// every content ID to where its bytes are and how often it is introduced, and
// keeps a copy of the newest record of every canister. It is the one place that
// knows keys.
//
// The nouns:
//
//   - An [Entry] is the place of one ID and its count.
//   - A [Batch] is one step of the applier: all of it is in the index or none.
//   - The watermark names the log batch up to which the index is applied. It is
//     written in every Batch, so whatever state a crash leaves is the state after
//     some Batch, and says which.
//   - The memtable is what batches have changed and is in no table yet.
//   - The filter is a set in memory that has every ID of the index and a few
//     that it has not. It answers "surely absent" without touching either.
//
// What holds:
//
//   - Nothing here is true by itself. The log is; the index can be deleted at any
//     time and built again with a [Rebuilder]. So Open repairs nothing: what is
//     absent, damaged, foreign, too old or too new is a [StaleError].
//   - Pebble runs without its write-ahead log and is given whole tables. Commit makes
//     a Batch visible, not durable: it goes into the memtable, and a flush writes all
//     of that in one step. DurableWatermark says what a crash would leave, at least.
//   - A result counts only while Untrusted is nil, asked after the result came.
//     Pebble reports some failures on another goroutine than the one that asked.
//     A page that was found can always be tried: it is checked against its ID.
//     A decision to destroy can not.
//   - Untrusted is for good: the next Open is stale.
//   - No error of the disk and no damage to a file ends the process or blocks a
//     call for ever.
//
// Any number of goroutines may read. Batches commit one at a time.
//
// It is not for page content, and it does not know what a record or a state
// value means.
package index
