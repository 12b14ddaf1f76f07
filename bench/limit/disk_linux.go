package limit

import (
	"os"

	"golang.org/x/sys/unix"
)

func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// Forget syncs a file and lets the system forget what it has of it in memory.
// Nobody else's files are touched, and it needs no right but to open the file.
func Forget(f *os.File) (bool, error) {
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return false, err
	}
	return true, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
