package chunk

import (
	"bytes"
	"fmt"

	"github.com/snapstore/snapstore/internal/pagehash"
)

// isZero says whether a page holds only zeros. It looks no further than the
// first byte that is not.
func isZero(page []byte) bool { return bytes.Equal(page, zeroPage[:]) }

// SumPages sets ids to the IDs of pages, which lie side by side and do not
// overlap ids. It is the one place where many pages are hashed: up to
// GroupPages at once, where the processor can.
func SumPages(ids []ID, pages []byte) error {
	if err := pagehash.SumNonZero(pagehash.Best(), ids, pages); err != nil {
		return fmt.Errorf("chunk: %w", err)
	}
	weaken(ids)
	return nil
}

// sumEach is SumPages for pages that lie anywhere.
func sumEach(ids []ID, pages []*[PageSize]byte) error {
	if err := pagehash.SumEach(pagehash.Best(), ids, pages); err != nil {
		return fmt.Errorf("chunk: %w", err)
	}
	weaken(ids)
	return nil
}
