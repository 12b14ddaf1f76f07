// Package hostile holds what is sent to a store to do it harm: crafted bytes for
// every decoder, directories, ids, uploads and roots. Its test asserts of each
// case that it is refused with a typed error, costs little memory, and leaves
// the store exactly as it was; and how many cases there are.
//
// Decoders that only their own package reaches have cases of their own there:
// frames, trailers, directories and ROOT in internal/seglog, the files beside
// Pebble in internal/index, directories of other tools in internal/snapdir,
// messages in management/candid.
package hostile
