package chunk

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"
)

// PageSize is the unit of everything: addressing, hashing, deduplication.
const PageSize = 4096

// IDSize is the length of an ID in bytes.
const IDSize = 32

// An ID names content: a page by its unkeyed BLAKE3-256, never truncated.
// The zero ID stands for a page of zeros (and, in trees, for an all-zero
// subtree); nothing is ever stored under it.
type ID [IDSize]byte

// zeroPage is what the zero ID stands for.
var zeroPage [PageSize]byte

// Sum returns the ID of a page. A page of PageSize zeros has the zero ID;
// zeros of any other length are hashed like other content.
func Sum(page []byte) ID {
	if len(page) != PageSize {
		return ID(blake3.Sum256(page))
	}
	var id [1]ID
	_ = SumPages(id[:], page) // lengths agree
	return id[0]
}

// IsZero reports whether id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders IDs as byte strings, which is the order of index keys.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// String returns the ID as 64 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID parses what String prints, and nothing else.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("chunk: id %q: want %d hexadecimal digits", clip(s), 2*len(id))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("chunk: id %q: %w", s, err)
	}
	if id.String() != s {
		return ID{}, fmt.Errorf("chunk: id %q: want lower-case digits", s)
	}
	return id, nil
}

// clip keeps foreign input out of error messages beyond a glance.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
