package osfs

import (
	"errors"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// prefetchPiece is how much is asked for at a time. Linux reads no more for one call than
// the device's readahead or largest request, whichever is more, and tells nobody: of 16
// MiB it had 8 where a device reads 8 MiB ahead, and the usual one reads 128 KiB.
const prefetchPiece = 128 << 10

// Prefetch asks the system to have n bytes of a file at hand soon, all of them. It ends
// at the first error.
func Prefetch(f vfs.File, off, n int64) error {
	for ; n > 0; off, n = off+prefetchPiece, n-prefetchPiece {
		// vfs gives the error number of the call, and 0 where it succeeded.
		if err := f.Prefetch(off, min(n, prefetchPiece)); err != nil && !errors.Is(err, syscall.Errno(0)) {
			return err
		}
	}
	return nil
}
