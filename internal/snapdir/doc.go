// Package snapdir reads and writes the directory in which the public tools of
// the Internet Computer (icp, dfx) keep a downloaded canister snapshot:
//
//	metadata.json                        sizes, globals, timer, and so on
//	wasm_module.bin                      the module as uploaded
//	wasm_memory.bin                      the main memory
//	stable_memory.bin                    the stable memory
//	wasm_chunk_store/<sha256 hex>.bin    entries of the wasm chunk store
//	snapstore.sums.json                  ours: sizes and BLAKE3 of all the above
//
// The nouns are Metadata; Part, one of the .bin files; Reader; and Writer. The
// sums file is written on export and checked where present. The tools open
// files by fixed names and do not see it, so a directory moves both ways.
//
// A directory comes from anywhere, so a Reader trusts nothing in it. Open
// refuses everything that can be refused without reading the contents: no
// symbolic link or special file is opened, no name leads outside, no declared
// number is believed before it is checked. Verify, or reading Streams to their
// end, refuses the rest. Neither changes the directory.
//
// A Writer works in a temporary sibling and renames it at the end, so the
// target is absent (or an empty directory) or whole. When Commit returns, the
// directory is on disk.
//
// Every refusal is an *Error that names the file, wraps one of the sentinels
// and says what to do next.
//
// The package knows nothing of stores, engines and pages. It keeps its own
// plain structs; whoever imports or exports converts them.
package snapdir
