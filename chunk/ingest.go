package chunk

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
)

// IngestStats count pages: Pages is the sum of the four that follow.
type IngestStats struct {
	Pages     uint64
	Zero      uint64 // of zeros, whatever the base has there
	Unchanged uint64 // as in the base, and not zero
	Shared    uint64 // changed, and stored already or met before in the same take
	New       uint64 // appended

	RawBytes    uint64 // of the new pages
	StoredBytes uint64 // of their groups
}

// windowPages is how much of the source is in hand at a time: 1 MiB. With more, all
// wait longer for the first; with less, they wait more often for each other.
const windowPages = 16 * GroupPages

// A window is a run of pages that go through the stations together. Pages are
// copied as they come, unless they are held: their memory may be written again
// before they are compressed, and what is stored under an ID is what was hashed.
// Zero pages have no copy.
type window struct {
	index []uint64
	at    []int32  // of each page: which copy, or -1
	ids   []ID     // of each copy, or of each held page
	slabs [][]byte // copies, GroupPages of them in each
	n     int      // copies
	held  []*[PageSize]byte
	// isHeld says that pages are held and not copied.
	isHeld bool
	was    []ID // what the base has
	err    error
	done   sync.WaitGroup // of the hashing, and of the look at the base
}

// id is the ID of page i, zero also for a page that became zeros between the
// look at it and the copy.
func (wi *window) id(i int) ID {
	if wi.isHeld {
		return wi.ids[i]
	}
	if at := wi.at[i]; at >= 0 {
		return wi.ids[at]
	}
	return ID{}
}

// page is what page i was hashed as. Zero pages that are not held have none.
func (wi *window) page(i int) []byte {
	if wi.isHeld {
		return wi.held[i][:]
	}
	return wi.copyOf(i)
}

func (wi *window) copyOf(i int) []byte {
	at := int(wi.at[i])
	return wi.slabs[at/GroupPages][at%GroupPages*PageSize:][:PageSize]
}

// Ingest takes in pages: ascending indexes, each with PageSize bytes that stay as
// they are until the next is asked for. base sets the IDs that the base has at
// given indexes; nil stands for a base of zeros. sink is told the new ID of every
// page that differs from the base, in order. sink and pages run in the caller's
// goroutine, and sink may add nodes to the same writer; base may run beside them, for
// two windows at once.
//
// Pages go through in windows: while one is compared, looked up and grouped, the
// next is being hashed and the base asked about it, and groups are compressed
// behind both. In hand are at most two windows and maxJobs groups, less than 8 MiB,
// and what waits in memory for the commit.
//
// After an error the writer is only good for Close.
func (w *Writer) Ingest(ctx context.Context, pages iter.Seq2[uint64, []byte], base func([]uint64, []ID) error, sink func(uint64, ID) error) (IngestStats, error) {
	return w.ingest(ctx, pages, base, sink, false)
}

// IngestHeld is Ingest for pages that nobody writes before it returns. They are
// hashed where they lie and copied once, by who compresses them.
func (w *Writer) IngestHeld(ctx context.Context, pages iter.Seq2[uint64, []byte], base func([]uint64, []ID) error, sink func(uint64, ID) error) (IngestStats, error) {
	return w.ingest(ctx, pages, base, sink, true)
}

func (w *Writer) ingest(ctx context.Context, pages iter.Seq2[uint64, []byte], base func([]uint64, []ID) error, sink func(uint64, ID) error, held bool) (IngestStats, error) {
	var st IngestStats
	if err := w.ready(); err != nil {
		return st, err
	}
	in := &ingest{w: w, st: &st, base: base, sink: sink, held: held}
	err := in.run(ctx, pages)
	in.release()
	if err != nil {
		w.abandon()
		if w.err == nil {
			w.err = err
		}
	}
	return st, err
}

type ingest struct {
	w    *Writer
	st   *IngestStats
	base func([]uint64, []ID) error
	sink func(uint64, ID) error
	held bool

	filling, hashing *window
	group            *job // being filled with new pages
	// scratch for one window
	fresh []int
	ids   []ID
	met   []bool
}

func (in *ingest) run(ctx context.Context, pages iter.Seq2[uint64, []byte]) error {
	in.filling = in.window()
	next := uint64(0)
	for i, page := range pages {
		if err := checkPage(page); err != nil {
			return err
		}
		if i < next {
			return fmt.Errorf("chunk: page %d after page %d", i, next-1)
		}
		next = i + 1
		in.add(i, page)
		if len(in.filling.index) == windowPages {
			if err := in.turn(ctx); err != nil {
				return err
			}
		}
		if next == 0 {
			break // that was the last index there is
		}
	}
	for len(in.filling.index) > 0 || in.hashing != nil {
		if err := in.turn(ctx); err != nil {
			return err
		}
	}
	if err := in.flush(); err != nil {
		return err
	}
	return in.w.drain(in.st)
}

// add copies a page into the window.
func (in *ingest) add(i uint64, page []byte) {
	wi := in.filling
	wi.index = append(wi.index, i)
	if in.held {
		wi.held = append(wi.held, (*[PageSize]byte)(page))
		return
	}
	if isZero(page) {
		wi.at = append(wi.at, -1)
		return
	}
	if wi.n%GroupPages == 0 {
		wi.slabs = append(wi.slabs, in.w.s.raws.Get())
	}
	copy(wi.slabs[wi.n/GroupPages][wi.n%GroupPages*PageSize:], page)
	wi.at = append(wi.at, int32(wi.n))
	wi.n++
}

// turn starts to hash the window that was filled and finishes the one before.
func (in *ingest) turn(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ready := in.hashing
	in.hashing = nil
	if len(in.filling.index) > 0 {
		in.hashing, in.filling = in.filling, in.window()
		in.hash(in.hashing)
	}
	if ready == nil {
		return nil
	}
	err := in.decide(ready)
	in.free(ready)
	return err
}

// hash starts to hash the pages of a window on all workers, and to look at what the
// base has there. What is no more than a group is done at once: with many small takes
// it took longer until another goroutine had its turn.
func (in *ingest) hash(wi *window) {
	n := max(wi.n, len(wi.held))
	wi.ids = slices.Grow(wi.ids[:0], n)[:n]
	wi.was, wi.err = append(wi.was[:0], make([]ID, len(wi.index))...), nil
	sets := (n + GroupPages - 1) / GroupPages
	if sets <= 1 {
		in.hashSet(wi, 0, n)
		if in.base != nil {
			wi.err = in.base(wi.index, wi.was)
		}
		return
	}
	if in.base != nil {
		wi.done.Go(func() { wi.err = in.base(wi.index, wi.was) })
	}
	var next atomic.Int64
	for range min(in.w.o.Workers, sets) {
		wi.done.Go(func() {
			for {
				k := int(next.Add(1)) - 1
				if k >= sets {
					return
				}
				in.hashSet(wi, k, n)
			}
		})
	}
}

// hashSet hashes the k-th GroupPages of the n pages of a window.
func (in *ingest) hashSet(wi *window, k, n int) {
	first, end := k*GroupPages, min((k+1)*GroupPages, n)
	if first == end {
		return
	}
	ids := wi.ids[first:end]
	// Lengths agree.
	if wi.isHeld {
		_ = sumEach(ids, wi.held[first:end])
	} else {
		_ = SumPages(ids, wi.slabs[k][:len(ids)*PageSize])
	}
}

// decide compares a window with the base, meets what changed, tells the sink,
// and hands new pages on to be compressed.
func (in *ingest) decide(wi *window) error {
	wi.done.Wait()
	if wi.err != nil {
		return wi.err
	}
	n := len(wi.index)
	in.st.Pages += uint64(n)
	in.ids, in.fresh = in.ids[:0], in.fresh[:0]
	for i := range n {
		switch id := wi.id(i); {
		case id.IsZero():
			in.st.Zero++
		case id == wi.was[i] && !in.w.o.Heal && !in.w.o.Compare:
			in.st.Unchanged++
		default:
			in.fresh = append(in.fresh, i)
			in.ids = append(in.ids, id)
		}
	}
	in.met = append(in.met[:0], make([]bool, len(in.ids))...)
	if err := in.w.meet(in.ids, in.met); err != nil {
		return err
	}
	if err := in.compare(wi); err != nil {
		return err
	}
	for k, i := range in.fresh {
		switch {
		case in.met[k] && in.ids[k] == wi.was[i]:
			in.st.Unchanged++
			continue
		case in.met[k]:
			in.st.Shared++
			continue
		}
		in.st.New++
		in.st.RawBytes += PageSize
		if err := in.addNew(in.ids[k], wi, i); err != nil {
			return err
		}
	}
	for i := range n {
		if id := wi.id(i); id != wi.was[i] {
			if err := in.sink(wi.index[i], id); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare finds what was met and is something else.
func (in *ingest) compare(wi *window) error {
	if in.w.compare == nil {
		return nil
	}
	for k, i := range in.fresh {
		id := in.ids[k]
		same, err := in.w.compare.page(wi.index[i], id, wi.page(i), in.met[k] || id == wi.was[i])
		if err != nil {
			return err
		}
		in.met[k] = in.met[k] && same
	}
	return nil
}

// addNew puts page i of a window into the group at hand.
func (in *ingest) addNew(id ID, wi *window, i int) error {
	if in.group == nil {
		in.group = in.w.newJob(in.w.o.Codec)
	}
	g := in.group
	if wi.isHeld {
		g.held = append(g.held, wi.held[i])
	} else {
		if g.raw == nil {
			g.raw = in.w.s.raws.Get()
		}
		copy(g.raw[len(g.ids)*PageSize:], wi.copyOf(i))
	}
	if g.ids = append(g.ids, id); len(g.ids) == GroupPages {
		return in.flush()
	}
	return nil
}

// flush hands the group at hand on.
func (in *ingest) flush() error {
	g := in.group
	if g == nil {
		return nil
	}
	in.group = nil
	return in.w.submit(g, in.st)
}

// window returns an empty window, of which the memory was used before.
func (in *ingest) window() *window {
	wi, _ := in.w.s.windows.Get().(*window)
	if wi == nil {
		wi = &window{}
	}
	wi.isHeld = in.held
	return wi
}

// free ends the use of a window that nobody hashes any more.
func (in *ingest) free(wi *window) {
	for _, b := range wi.slabs {
		in.w.s.raws.Put(b)
	}
	clear(wi.slabs)
	clear(wi.held) // of pages that may be gone soon
	wi.index, wi.at, wi.slabs, wi.held, wi.n = wi.index[:0], wi.at[:0], wi.slabs[:0], wi.held[:0], 0
	in.w.s.windows.Put(wi)
}

// release waits for what still runs and gives all buffers back.
func (in *ingest) release() {
	for _, wi := range []*window{in.hashing, in.filling} {
		if wi != nil {
			wi.done.Wait()
			in.free(wi)
		}
	}
	in.hashing, in.filling = nil, nil
	if in.group != nil {
		in.w.release(in.group)
	}
}
