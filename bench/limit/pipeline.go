package limit

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/snapstore/snapstore/chunk"
)

const (
	pageSize  = chunk.PageSize
	groupSize = chunk.GroupPages * chunk.PageSize
	// stripe is what a worker takes at once, in pages: enough that it seldom
	// asks, and little enough that all end together.
	stripe = 256
)

// Pipeline is an image made ready for the storage-free pipeline: which of its
// pages are new was found before any clock runs. It is used by one goroutine.
type Pipeline struct {
	mem     []byte
	indexes []uint64 // the pages that are looked at
	fresh   []bool   // for each of them
	groups  [][]byte // compressed, after Run with keep
	workers []*worker
}

type worker struct {
	ids    []chunk.ID
	gather []byte // pages to hash, where they do not lie side by side
	kept   []byte
	names  []chunk.ID // of the pages in kept
	out    []byte
	stored int64
	groups [][]byte
	coder  chunk.Coder
}

// How a pipeline compresses.
type way uint8

const (
	withS2 way = iota
	withS2Kept
	withOwn
)

// NewPipeline looks at the pages of mem with these indexes, or at all of them if
// nil. seen are pages that count as known; what is new is added to it.
func NewPipeline(mem []byte, indexes []uint64, seen map[chunk.ID]struct{}) (*Pipeline, error) {
	p := &Pipeline{mem: mem, indexes: indexes}
	if indexes == nil {
		p.indexes = make([]uint64, len(mem)/pageSize)
		for i := range p.indexes {
			p.indexes[i] = uint64(i)
		}
	}
	p.fresh = make([]bool, len(p.indexes))
	ids := make([]chunk.ID, 1)
	for i, at := range p.indexes {
		if err := chunk.SumPages(ids, p.page(at)); err != nil {
			return nil, err
		}
		if _, ok := seen[ids[0]]; !ok && !ids[0].IsZero() {
			p.fresh[i] = true
			seen[ids[0]] = struct{}{}
		}
	}
	for range runtime.GOMAXPROCS(0) {
		p.workers = append(p.workers, &worker{
			ids: make([]chunk.ID, chunk.GroupPages), gather: make([]byte, groupSize), kept: make([]byte, 0, groupSize),
			out: make([]byte, 2*groupSize),
		})
	}
	return p, nil
}

func (p *Pipeline) page(i uint64) []byte { return p.mem[i*pageSize : (i+1)*pageSize] }

// Run hashes every page and compresses with s2 those that are new, sixteen
// together, on all cores, and keeps nothing. It returns how long that took and
// the compressed size. With keep the groups stay for Groups, which costs time.
func (p *Pipeline) Run(keep bool) (time.Duration, int64, error) {
	if keep {
		return p.run(withS2Kept)
	}
	return p.run(withS2)
}

// RunOwn is Run with the codec that the engine has for memory, and with its proof
// that what was compressed decompresses: what is left of a take without a store.
func (p *Pipeline) RunOwn() (time.Duration, int64, error) { return p.run(withOwn) }

func (p *Pipeline) run(how way) (time.Duration, int64, error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, len(p.workers))
	began := time.Now()
	for n, w := range p.workers {
		wg.Go(func() {
			w.stored, w.groups, w.kept, w.names = 0, nil, w.kept[:0], w.names[:0]
			for {
				from := int(next.Add(stripe)) - stripe
				if from >= len(p.indexes) {
					break
				}
				if errs[n] = p.stripe(w, from, min(from+stripe, len(p.indexes)), how); errs[n] != nil {
					return
				}
			}
			errs[n] = w.compress(how)
		})
	}
	wg.Wait()
	took := time.Since(began)
	stored := int64(0)
	p.groups = nil
	for n, w := range p.workers {
		if errs[n] != nil {
			return 0, 0, errs[n]
		}
		stored += w.stored
		p.groups = append(p.groups, w.groups...)
	}
	return took, stored, nil
}

func (p *Pipeline) stripe(w *worker, from, to int, how way) error {
	for ; from < to; from += chunk.GroupPages {
		n := min(chunk.GroupPages, to-from)
		pages := p.together(w, p.indexes[from:from+n])
		if err := chunk.SumPages(w.ids[:n], pages); err != nil {
			return err
		}
		for i := range n {
			if !p.fresh[from+i] {
				continue
			}
			w.names = append(w.names, w.ids[i])
			if w.kept = append(w.kept, pages[i*pageSize:(i+1)*pageSize]...); len(w.kept) == groupSize {
				if err := w.compress(how); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// together returns the pages side by side, copied only where they do not lie so.
func (p *Pipeline) together(w *worker, indexes []uint64) []byte {
	first, n := indexes[0], len(indexes)
	if indexes[n-1]-first == uint64(n-1) {
		return p.mem[first*pageSize : (first+uint64(n))*pageSize]
	}
	for i, at := range indexes {
		copy(w.gather[i*pageSize:], p.page(at))
	}
	return w.gather[:n*pageSize]
}

func (w *worker) compress(how way) error {
	if len(w.kept) == 0 {
		return nil
	}
	var enc []byte
	if how == withOwn {
		var err error
		if enc, _, err = w.coder.AppendGroup(w.out[:0], chunk.CodecDelta, w.names, w.kept); err != nil {
			return err
		}
	} else {
		enc = s2.Encode(w.out, w.kept)
	}
	w.stored += int64(len(enc))
	if how == withS2Kept {
		w.groups = append(w.groups, append([]byte(nil), enc...))
	}
	w.kept, w.names = w.kept[:0], w.names[:0]
	return nil
}

// Groups are the compressed groups of the last Run with keep.
func (p *Pipeline) Groups() [][]byte { return p.groups }

// Decode decompresses groups and hashes their pages, on all cores, and copies
// each page into dst, which is filled again and again up to size bytes: what a
// verified restore of an image of that size can not leave out. It returns how
// long that took.
func Decode(groups [][]byte, dst []byte, size int64) (time.Duration, error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	errs := make([]error, workers)
	// What is zero or there twice is only copied.
	perGroup := (size/int64(max(len(groups), 1)) + pageSize - 1) / pageSize * pageSize
	began := time.Now()
	for w := range workers {
		wg.Go(func() {
			buf, ids := make([]byte, groupSize), make([]chunk.ID, chunk.GroupPages)
			for {
				i := next.Add(1) - 1
				if i >= int64(len(groups)) {
					return
				}
				pages, err := s2.Decode(buf, groups[i])
				if err == nil {
					err = chunk.SumPages(ids[:len(pages)/pageSize], pages)
				}
				if err != nil {
					errs[w] = fmt.Errorf("decode a group of the limit: %w", err)
					return
				}
				at := i * perGroup % int64(len(dst))
				for left := perGroup; left > 0; {
					n := copy(dst[at:], pages[:min(int64(len(pages)), left)])
					left -= int64(n)
					at = (at + int64(n)) % int64(len(dst))
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return took, nil
}

// Memcpy copies src to dst on all cores.
func Memcpy(dst, src []byte) time.Duration {
	workers := runtime.GOMAXPROCS(0)
	part := (len(src) + workers - 1) / workers
	var wg sync.WaitGroup
	began := time.Now()
	for w := range workers {
		from, to := min(w*part, len(src)), min((w+1)*part, len(src))
		wg.Go(func() { copy(dst[from:to], src[from:to]) })
	}
	wg.Wait()
	return time.Since(began)
}
