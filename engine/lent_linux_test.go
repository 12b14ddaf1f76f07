package engine_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// So are pages that the host gives back before they are armed, though nothing of
// them is there to be seen.
func TestGivenBackRightAfterALoad(t *testing.T) {
	zerosAfterALoad(t, func(b []byte) error { return unix.Madvise(b, unix.MADV_DONTNEED) })
}
