// Command snapstore keeps snapshots of canisters in a content-addressed store:
// it makes and fills canisters, takes, loads, compares, exports and imports
// their snapshots, and verifies, cleans and inspects the store.
//
// There is one file for each verb. A verb is an xxxOptions, a newXxxCommand
// that fills it from flags, and a run method that returns a result. A result
// is a struct: its JSON tags are the contract of --json (docs/cli-json.md), its
// ids method is what --quiet prints, its text method is what a person reads.
//
// Rules every verb keeps:
//   - standard output carries the result and nothing else, standard error the
//     progress line, on a terminal only, and errors;
//   - an error has an exit code, a message and a hint, see errors.go;
//   - all arguments are checked before the store is opened, and what they name
//     is resolved before anything is changed;
//   - a signal cancels the context, and what had not returned by then is not
//     in the store.
package main
