//go:build unix

package trackmem

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// reservation is address space that costs memory only where it is touched.
type reservation struct {
	bytes []byte
	raw   []byte // as mapped
}

// reserve maps n bytes, rounded up to whole regions when huge is asked for.
func reserve(n uint64, huge bool) (reservation, error) {
	raw, err := unix.Mmap(-1, 0, int(n+regionBytes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|mapNoReserve)
	if err != nil {
		return reservation{}, err
	}
	// Regions begin where page tables do.
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(raw))) % regionBytes
	r := reservation{bytes: raw[skip : uint64(skip)+n : uint64(skip)+n], raw: raw}
	adviseHuge(r.bytes, huge)
	return r, nil
}

// commit makes bytes usable that were not.
func (r *reservation) commit(_, _ uint64) error { return nil }

func (r *reservation) release() error {
	if r.raw == nil {
		return nil
	}
	raw := r.raw
	r.raw, r.bytes = nil, nil
	return unix.Munmap(raw)
}
