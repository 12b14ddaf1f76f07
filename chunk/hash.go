package chunk

import (
	"bytes"
	"fmt"
)

// isZero says whether a page holds only zeros. It looks no further than the
// first byte that is not.
func isZero(page []byte) bool { return bytes.Equal(page, zeroPage[:]) }

// SumPages sets ids to the IDs of pages, which lie side by side. It is the one
// place where many pages are hashed, so that a kernel that hashes up to
// GroupPages pages at once changes nothing else.
func SumPages(ids []ID, pages []byte) error {
	if len(pages) != len(ids)*PageSize {
		return fmt.Errorf("chunk: %d bytes for %d ids", len(pages), len(ids))
	}
	for i := range ids {
		ids[i] = Sum(pages[i*PageSize : (i+1)*PageSize])
	}
	return nil
}
