// Package wasmrewrite exports what a module keeps to itself and a host must
// save and restore: its mutable globals, and its start function.
//
// No compiler exports mutable globals. A host that restores memory without
// them goes on with a stack pointer or an allocation pointer of another time,
// and corrupts memory long before anything fails.
//
// It reads the frame of a module and the sections for imports, globals,
// exports and start; all else is copied as it is. It does not check code.
package wasmrewrite
