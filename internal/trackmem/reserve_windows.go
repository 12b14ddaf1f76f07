package trackmem

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// reservation is address space; what is committed costs memory when touched.
type reservation struct{ bytes []byte }

func reserve(n uint64, _ bool) (reservation, error) {
	at, err := windows.VirtualAlloc(0, uintptr(n), windows.MEM_RESERVE, windows.PAGE_READWRITE)
	if err != nil {
		return reservation{}, err
	}
	// The system's memory, not the collector's: it never moves.
	p := *(*unsafe.Pointer)(unsafe.Pointer(&at))
	return reservation{bytes: unsafe.Slice((*byte)(p), n)}, nil
}

func (r *reservation) address() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(r.bytes))) }

// commit makes bytes usable that were not.
func (r *reservation) commit(from, to uint64) error {
	if from == to {
		return nil
	}
	_, err := windows.VirtualAlloc(r.address()+uintptr(from), uintptr(to-from), windows.MEM_COMMIT, windows.PAGE_READWRITE)
	return err
}

// drop gives the pages of [from, to) back; they read as zeros.
func (r *reservation) drop(from, to uint64) error {
	to = min(to, uint64(len(r.bytes)))
	if err := windows.VirtualFree(r.address()+uintptr(from), uintptr(to-from), windows.MEM_DECOMMIT); err != nil {
		return err
	}
	return r.commit(from, to)
}

func (r *reservation) release() error {
	if r.bytes == nil {
		return nil
	}
	at := r.address()
	r.bytes = nil
	return windows.VirtualFree(at, 0, windows.MEM_RELEASE)
}
