package workload

import (
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/snapstore/snapstore/chunk"
)

// Ideal counts what an exact store without any metadata would need: every
// distinct page that is not zero once, each compressed alone with zstd at its
// fastest, and not more than a page. It is not safe for concurrent use.
type Ideal struct {
	// Pages and Bytes are of all that was added.
	Pages int
	Bytes int64
	seen  map[chunk.ID]struct{}
}

// Add counts the pages of mem with these indexes; nil is all of them.
func (d *Ideal) Add(mem []byte, dirty []uint64) error {
	if d.seen == nil {
		d.seen = map[chunk.ID]struct{}{}
	}
	if dirty == nil {
		dirty = make([]uint64, len(mem)/PageSize)
		for i := range dirty {
			dirty[i] = uint64(i)
		}
	}
	var fresh [][]byte
	id := make([]chunk.ID, 1)
	for _, i := range dirty {
		p := mem[i*PageSize : (i+1)*PageSize]
		if err := chunk.SumPages(id, p); err != nil {
			return err
		}
		if _, ok := d.seen[id[0]]; ok || id[0].IsZero() {
			continue
		}
		d.seen[id[0]] = struct{}{}
		fresh = append(fresh, p)
	}
	n, err := compressedAlone(fresh)
	d.Pages, d.Bytes = d.Pages+len(fresh), d.Bytes+n
	return err
}

// compressedAlone sums the sizes of pages, on all cores.
func compressedAlone(pages [][]byte) (int64, error) {
	workers := runtime.GOMAXPROCS(0)
	sums, errs := make([]int64, workers), make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
			if err != nil {
				errs[w] = err
				return
			}
			defer enc.Close()
			buf := make([]byte, 0, 2*PageSize)
			for i := w; i < len(pages); i += workers {
				sums[w] += int64(min(len(enc.EncodeAll(pages[i], buf[:0])), PageSize))
			}
		})
	}
	wg.Wait()
	total := int64(0)
	for w := range workers {
		if errs[w] != nil {
			return 0, errs[w]
		}
		total += sums[w]
	}
	return total, nil
}
