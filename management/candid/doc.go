// Package candid reads and writes Candid messages, the argument and reply
// format of Internet Computer canisters, for a fixed set of Go types.
//
// Marshal and Unmarshal work by reflection:
//
//	record     struct; a field's tag is its label: `candid:"canister_id"`, or a
//	           number: `candid:"0"`. "-" leaves a field out, no tag is an error
//	variant    struct that embeds Variant; its other fields are pointers to the
//	           payloads, tagged alike, and exactly one is not nil. A case without
//	           payload is *Null, one that is declared reserved *Reserved
//	opt        pointer, at the top level too; opt opt is a pointer to a pointer.
//	           The payload `opt T` of a variant's case is therefore **T
//	vec        slice; vec nat8 (blob) is a slice of bytes
//	principal  Principal
//	nat, int   Nat, Int
//	nat8..64   uint8 to uint64; int8..64: int8 to int64
//	float32/64 float32, float64; bool: bool; text: string
//	null, reserved, empty: Null, Reserved, Empty
//
// Named Go types of these kinds work too, except that a type derived from
// Principal is a blob, and one derived from Nat or Int nothing. Func and service have no Go type; a
// service is read as a Principal, and whatever is not asked for is skipped.
//
// # Subtyping
//
// Unmarshal coerces as the specification (0.1) says: extra arguments and
// fields are skipped; missing ones are nil where they are opt, null or
// reserved, and an error otherwise; nat is read as int; anything is read as
// reserved; what does not fit an opt is nil, after its bytes have been read
// and checked; an unknown case of a variant does not fit. Types of a later
// specification are skipped by their length.
//
// # Untrusted input
//
// A message may come from anybody. Unmarshal does not panic, does not
// recurse deeper than Limits.Depth, and allocates and works only within
// Limits, whatever lengths the message declares: slices grow as their elements
// arrive, each value is charged, zero-sized ones as well. Bytes are taken as they
// must be: field ids and method names sorted and unique, tags and booleans 0
// or 1, text in UTF-8, nothing after the last value, no references. LEB128
// may be padded, as the specification allows, to 10 bytes.
//
// An error is an *Error around ErrMalformed (no message at all), ErrType (a
// message for other types), ErrLimit, or ErrUnsupported (the Go types are
// wrong, not the message). After an error no argument has been changed.
//
// What Unmarshal returns shares no memory with the message. A blob is copied
// once, into a slice of exactly its length. Empty vecs, blobs and principals are nil.
//
// Both functions keep nothing between calls and may be called concurrently.
package candid
