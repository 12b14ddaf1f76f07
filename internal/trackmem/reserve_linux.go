package trackmem

import "golang.org/x/sys/unix"

const mapNoReserve = unix.MAP_NORESERVE

// adviseHuge decides about huge pages, whatever the system's default is, so
// that memory is in proportion to what is touched unless they were asked for.
// A kernel without them refuses, which is as good.
func adviseHuge(b []byte, huge bool) {
	advice := unix.MADV_NOHUGEPAGE
	if huge {
		advice = unix.MADV_HUGEPAGE
	}
	_ = unix.Madvise(b, advice)
}

// drop gives the pages of [from, to) back; they read as zeros.
func (r *reservation) drop(from, to uint64) error {
	b := r.bytes[from:min(to, uint64(len(r.bytes)))]
	if err := unix.Madvise(b, unix.MADV_DONTNEED); err != nil {
		clear(b) // locked memory, or pages larger than ours
	}
	return nil
}
