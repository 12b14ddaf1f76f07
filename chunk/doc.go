// Package chunk turns pages into stored groups and back.
//
// The nouns:
//
//   - An [ID] names the content of a page: its unkeyed BLAKE3-256. Nodes of
//     page trees have IDs too, hashed by the layer above under other contexts.
//   - A group is up to [GroupPages] pages of one take, stored together with
//     their IDs in one frame of the log; a node frame holds nodes side by side.
//   - A [Store] reads: it finds an ID, decodes its frame, verifies what it hands
//     out, and caches it.
//   - A [Writer] appends what one take brings: it hashes, drops zero pages and
//     what is stored already, groups, compresses, and tells where everything is.
//   - [Pins] hold what a take met in the store until the take is applied.
//
// What holds:
//
//   - Every byte that leaves the package was verified against its ID, or written
//     by this process. Damage is read once more past every cache, then reported;
//     a page that is whole in a damaged frame is served as well.
//   - What a group stores decodes to the pages it names: this was tried before
//     the group was handed out, on a copy that nobody else can change.
//   - An ID that a take met is not destroyed before the take is applied; an ID
//     that is being destroyed is not met.
//   - Frames are appended in the order of pages, whatever the number of workers.
//   - Memory is bounded by windows, buffers and caches; the rest grows by some
//     100 bytes for each new page of a take.
//
// It is not for counting references, it does not know canisters, snapshots or
// kinds of nodes, and it opens no file.
package chunk
