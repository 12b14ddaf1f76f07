// Package principal converts Internet Computer principals between their bytes
// and their text.
//
// A principal is 0 to 29 bytes. Its text is a CRC-32 of the bytes, big-endian,
// followed by the bytes, in lower-case base32 without padding, cut into groups
// of five characters joined by dashes:
//
//	ryjl3-tyaaa-aaaaa-aaaba-cai   00 00 00 00 00 00 00 02 01 01
//	aaaaa-aa                      no bytes: the management canister
//
// There is one text for each principal: Parse accepts what Encode produces and
// nothing else, so text can be compared as text.
//
// The package knows nothing of classes of principals or of who may use them.
package principal
