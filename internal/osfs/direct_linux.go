package osfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Direct is a file that is written past the page cache, next to another handle of
// it. What is written is durable when that other handle was synced, as ever.
type Direct struct {
	f     *os.File
	align int
}

// OpenDirect opens a file that is there for writes past the page cache. The error
// is errors.ErrUnsupported where the file system has none.
func (s FS) OpenDirect(name string) (*Direct, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|unix.O_DIRECT|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	if err != nil {
		return nil, err
	}
	// Without an answer, what every system of today is content with.
	d := &Direct{f, 4096}
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st); err == nil && st.Mask&unix.STATX_DIOALIGN != 0 {
		d.align = int(max(st.Dio_mem_align, st.Dio_offset_align))
		if st.Dio_offset_align == 0 || d.align > 4096 || 4096%d.align != 0 {
			return nil, errors.Join(errors.ErrUnsupported, f.Close())
		}
	}
	return d, nil
}

// Align is what offset, length and address in memory of each write are multiples
// of. It divides 4096.
func (d *Direct) Align() int { return d.align }

// WriteAt implements io.WriterAt.
func (d *Direct) WriteAt(p []byte, off int64) (int, error) {
	n, err := d.f.WriteAt(p, off)
	if errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return n, err
}

// Close implements io.Closer.
func (d *Direct) Close() error { return d.f.Close() }
