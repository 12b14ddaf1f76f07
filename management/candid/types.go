package candid

// Variant marks a struct that embeds it as a variant.
type Variant struct{}

// Null is the type null, and the payload of a case without one.
type Null struct{}

// Reserved is the type reserved: it reads anything and keeps nothing.
type Reserved struct{}

// Empty is the type empty, which has no values: it can stand in an opt or a
// vec that is always empty, and in a case that never comes.
type Empty struct{}

// MaxPrincipal is the most bytes a principal has.
const MaxPrincipal = 29

// Principal is the bytes of a principal, at most MaxPrincipal of them. None at
// all is the management canister.
type Principal []byte
