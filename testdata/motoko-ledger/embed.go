// Package motokoledger carries a series of memory images of a Motoko ledger
// canister; README.md beside it says where they come from. Package demodata
// reads them.
package motokoledger

import _ "embed"

//go:embed images.ssi
var images string

// Images is the file as it is.
func Images() string { return images }
