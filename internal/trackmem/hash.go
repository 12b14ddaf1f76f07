package trackmem

import (
	"runtime"
	"sync"
	"unsafe"

	"github.com/zeebo/blake3"
)

// hashes remembers the BLAKE3-256 of each page as of the last collect. A page
// of zeros has the zero hash, so that what was never touched needs none.
type hashes struct {
	of  [][32]byte
	res reservation
}

func newHashes(pages uint64) (hashes, error) {
	r, err := reserve(pages*32, false)
	if err != nil {
		return hashes{}, err
	}
	if err := r.commit(0, uint64(len(r.bytes))); err != nil {
		_ = r.release()
		return hashes{}, err
	}
	return hashes{of: unsafe.Slice((*[32]byte)(unsafe.Pointer(unsafe.SliceData(r.bytes))), pages), res: r}, nil
}

func (h *hashes) release() {
	if h.of != nil {
		_ = h.res.release() // what was mapped can be unmapped
		*h = hashes{}
	}
}

// collectPages is how many pages a goroutine takes at a time: whole words of
// the dirty set.
const collectPages = 4096

// collect adds the pages of [0, end) that are not what they were.
func (h *hashes) collect(mem []byte, d *DirtySet, end uint64) {
	if end == 0 {
		return
	}
	var mu sync.Mutex
	var next uint64
	take := func() (first, last uint64) {
		mu.Lock()
		defer mu.Unlock()
		first = next
		next = min(end, next+collectPages)
		return first, next
	}
	work := func() {
		var changed DirtySet
		for first, last := take(); first < last; first, last = take() {
			for p := first; p < last; p++ {
				if h.renew(p, (*[PageSize]byte)(mem[p*PageSize:])) {
					changed.Add(p)
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		d.Union(&changed)
	}
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), int((end+collectPages-1)/collectPages)) {
		wg.Go(work)
	}
	wg.Wait()
}

// renew tells whether a page changed, and remembers it as it is now.
func (h *hashes) renew(page uint64, p *[PageSize]byte) bool {
	var now [32]byte
	if *p != ([PageSize]byte{}) {
		now = blake3.Sum256(p[:])
	}
	if now == h.of[page] {
		return false
	}
	h.of[page] = now
	return true
}
