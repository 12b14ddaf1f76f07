// Package manifest turns the state of a canister into one hash, and compares
// states in time proportional to what differs.
//
// A section is an address space of pages. Its pages stand under a tree of
// nodes with 16 children each; a node of level 0 holds page IDs, a higher one
// node IDs. A manifest holds each section's root and byte length, and the
// metadata; the ID of the encoded manifest is the root of the state. A place
// is a page, a node's position, or the manifest.
//
// Invariants:
//   - Equal content gives equal roots, whatever the history: the depth follows
//     from the byte length, an all-zero subtree is the zero ID at every level,
//     nothing stands beyond the byte length, and an encoding that is not the
//     canonical one is refused.
//   - A node's ID hashes its kind and level, with a BLAKE3 key context for each
//     kind, so it is never the ID of a page or of another level's node.
//   - Walks do not read what is known to be equal. Versions of different depth
//     meet place by place: the shallower root is child 0 of nothing.
//   - Walks go children first, so stopping a counting walk at any place, with
//     its changes applied so far, leaves alive all that is needed to go on.
//
// The package reads nodes through a Getter that verifies them, and hands out
// those it makes. It knows nothing of where they are stored, nor of what the
// counts are for; it starts no goroutines and keeps nothing between calls.
package manifest
