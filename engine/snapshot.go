package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/manifest"
)

// Snapshot reads a snapshot. While it is open the snapshot's bytes stay, even
// when it is deleted; close it. Methods are safe for concurrent use.
type Snapshot struct {
	e    *Engine
	id   SnapshotID
	from *chunk.Store // as its canister sees it
	info SnapshotInfo
	m    *manifest.Manifest
	once sync.Once
	mu   sync.RWMutex
	done bool
}

// Snapshot opens a snapshot for reading.
func (e *Engine) Snapshot(ctx context.Context, id SnapshotID) (*Snapshot, error) {
	s, err := e.pin(ctx, id)
	return s, opError("open snapshot", id.Canister, id, err)
}

func (e *Engine) pin(ctx context.Context, id SnapshotID) (*Snapshot, error) {
	ent, _, err := e.lookup(id.Canister)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	var snap record.Snapshot
	if ent.rec == nil {
		err = ErrDamaged
	} else {
		snap, err = find(ent.rec, id)
	}
	if err == nil {
		ent.readers[id.Local]++
		e.counters.readers.Add(1)
	}
	e.mu.Unlock()
	if err != nil {
		return nil, err
	}
	s := &Snapshot{e: e, id: id, from: e.in(id.Canister), info: snapshotInfo(id.Canister, snap)}
	if s.m, err = e.manifest(ctx, s.from, snap.Root); err != nil {
		s.Close()
		return nil, locate(err, id.Canister, id, Section{}, 0)
	}
	return s, nil
}

// Close lets the snapshot go.
func (s *Snapshot) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		s.done = true
		s.mu.Unlock()
		s.e.mu.Lock()
		if ent := s.e.table[s.id.Canister]; ent != nil {
			if ent.readers[s.id.Local]--; ent.readers[s.id.Local] <= 0 {
				delete(ent.readers, s.id.Local)
			}
		}
		s.e.mu.Unlock()
		s.e.counters.readers.Add(-1)
		s.e.gc.Kick()
	})
	return nil
}

// Info describes the snapshot.
func (s *Snapshot) Info() SnapshotInfo { return s.info }

// Detail adds what its manifest holds.
func (s *Snapshot) Detail() SnapshotDetail {
	return SnapshotDetail{SnapshotInfo: s.info, Sections: s.m.Sections, Metadata: s.m.Meta}
}

// Sections lists the sections with size and root, in order.
func (s *Snapshot) Sections() []SectionRoot { return s.m.Sections }

// Section opens a section for reading.
func (s *Snapshot) Section(sec Section) (*SectionReader, error) {
	for _, r := range s.m.Sections {
		if r.Section == sec {
			return &SectionReader{s: s, root: r}, nil
		}
	}
	return nil, opError("read "+sec.String(), s.id.Canister, s.id, fmt.Errorf("the snapshot has no section %s: %w", sec, ErrNotFound))
}

// SectionReader reads one section of a snapshot; every page is verified.
type SectionReader struct {
	s    *Snapshot
	root SectionRoot
}

// Size in bytes.
func (r *SectionReader) Size() int64 { return int64(r.root.Size) }

// readWindow is how many pages are planned at a time where they are read to where
// they are wanted: 128 MiB, for two of plan. What takes of 1 % have scattered is decoded
// again for each window that a group of it reaches into: 4 % more with 32 MiB. For
// what is not as large it is a quarter, though not less than leastWindow, so that the tree
// is walked beside. Nothing is read while the tree of the first is walked, so that is
// firstWindow, and each is twice the one before, up to that: a cold restore of 1 GiB took
// a twentieth less.
const (
	readWindow  = 32 << 10
	leastWindow = 8 << 10
	firstWindow = 4 << 10
)

// warmShare: the index is read ahead where its tables take no more than an eighth of
// what is read. They have some 70 bytes for a page.
const warmShare = 8

// warm has the index read ahead for a read of so many bytes, if that is much.
func (r *SectionReader) warm(n uint64) {
	if n >= leastWindow*PageSize {
		r.s.e.idx.Warm(int64(n) / warmShare)
	}
}

// ReadAt implements io.ReaderAt. All of p is the call's own until it returns: pages that
// occur again are copied from there, and what comes next may be written already when
// reading fails. Beyond 32 MiB it uses up to 32 bytes a page besides.
func (r *SectionReader) ReadAt(p []byte, off int64) (int, error) {
	return r.readAt(p, off, min(max(len(p)/PageSize/4, leastWindow), readWindow))
}

func (r *SectionReader) readAt(p []byte, off int64, window int) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, ErrInvalid)
	}
	if uint64(off) >= r.root.Size {
		return 0, io.EOF
	}
	var eof error
	if rest := r.root.Size - uint64(off); uint64(len(p)) > rest {
		p, eof = p[:rest], io.EOF
	}
	n := 0
	if whole := len(p) / PageSize * PageSize; off%PageSize == 0 && whole > 0 {
		// Whole pages go where they are wanted.
		var err error
		if n, err = r.fillWhole(context.Background(), uint64(off)/PageSize, p[:whole], window); err != nil {
			return n, r.fault(err)
		}
	}
	for chunkOfPages, err := range r.windows(context.Background(), uint64(off)+uint64(n), uint64(len(p)-n)) {
		if err != nil {
			return n, err
		}
		n += copy(p[n:], chunkOfPages)
	}
	return n, eof
}

func (r *SectionReader) fault(err error) error {
	return opError("read "+r.root.Section.String(), r.s.id.Canister, r.s.id, err)
}

// WriteTo implements io.WriterTo: it streams the section, each stored group
// decoded once a window.
func (r *SectionReader) WriteTo(w io.Writer) (int64, error) {
	return r.Copy(context.Background(), w, 0, r.root.Size)
}

// Copy streams length bytes from off on, and reads ahead while w takes what was read
// before. It uses up to 32 MiB.
func (r *SectionReader) Copy(ctx context.Context, w io.Writer, off, length uint64) (int64, error) {
	if off > r.root.Size {
		off = r.root.Size
	}
	length = min(length, r.root.Size-off)
	var n int64
	for b, err := range r.ahead(ctx, off, length) {
		if err != nil {
			return n, err
		}
		m, err := w.Write(b)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// windows yields the bytes from off on, in pieces that stay valid until the
// next one.
func (r *SectionReader) windows(ctx context.Context, off, length uint64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if length == 0 {
			return
		}
		end := off + length
		buf := make([]byte, min(verifyWindow, pagesOf(end)-off/PageSize)*PageSize)
		var plan fillPlan
		for at := off; at < end; {
			b, err := r.window(ctx, at, end, buf, &plan)
			if !yield(b, err) || err != nil {
				return
			}
			at += uint64(len(b))
		}
	}
}

// window reads as much of the bytes from off to end as there is room for in buf, in
// which the result lies. buf is whole pages.
func (r *SectionReader) window(ctx context.Context, off, end uint64, buf []byte, plan *fillPlan) ([]byte, error) {
	first := off / PageSize
	pages := min(uint64(len(buf)/PageSize), pagesOf(end)-first)
	b := buf[:pages*PageSize]
	if err := r.fill(ctx, first, b, plan); err != nil {
		return nil, r.fault(err)
	}
	return b[off-first*PageSize : min(uint64(len(b)), end-first*PageSize)], nil
}

// aheadWindow is how many pages are read ahead: 16 MiB. A group of what a take of 1 %
// has scattered reaches over 12 MiB of 1 GiB, and each window that wants something of
// it decodes it again.
const aheadWindow = 4096

// ahead is windows, larger ones, and the next is read while the caller has one.
func (r *SectionReader) ahead(ctx context.Context, off, length uint64) iter.Seq2[[]byte, error] {
	if length <= verifyWindow*PageSize {
		return r.windows(ctx, off, length)
	}
	type piece struct {
		b, buf []byte
		err    error
	}
	return func(yield func([]byte, error) bool) {
		r.warm(length)
		end := off + length
		reading, stop := context.WithCancel(ctx)
		free, pieces := make(chan []byte, 2), make(chan piece)
		for range cap(free) {
			free <- make([]byte, min(aheadWindow, pagesOf(end)-off/PageSize)*PageSize)
		}
		var reader sync.WaitGroup
		reader.Go(func() {
			defer close(pieces)
			var plan fillPlan
			for at := off; at < end; {
				var p piece
				select {
				case p.buf = <-free:
				case <-reading.Done():
					return
				}
				p.b, p.err = r.window(reading, at, end, p.buf, &plan)
				select {
				case pieces <- p:
				case <-reading.Done():
					return
				}
				if p.err != nil {
					return
				}
				at += uint64(len(p.b))
			}
		})
		defer reader.Wait()
		defer stop()
		at := off
		for p := range pieces {
			if !yield(p.b, p.err) || p.err != nil {
				return
			}
			at += uint64(len(p.b))
			free <- p.buf
		}
		if at < end { // the reader was cancelled
			yield(nil, r.fault(ctx.Err()))
		}
	}
}

// fillPlan is what a fill has to read. Its memory is used again.
type fillPlan struct {
	refs []chunk.PageRef
	at   []uint32 // in pages from the first
	err  error    // of the walk
}

// fillWhole reads whole pages from first on, in windows of so many: while one is read,
// the tree is walked for the next, and the log ahead of that asked for. What occurs again
// is copied from where it was read to.
func (r *SectionReader) fillWhole(ctx context.Context, first uint64, p []byte, window int) (n int, err error) {
	r.warm(uint64(len(p)))
	var plans [2]fillPlan
	if len(p) <= window*PageSize {
		if err := r.fill(ctx, first, p, &plans[0]); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	sweep := r.s.from.Sweep()
	earlier := r.s.from.NewEarlier(p)
	var walks sync.WaitGroup
	defer func() {
		walks.Wait() // they write zeros
		r.s.from.Done(earlier)
	}()
	walk := func(at, end int, plan *fillPlan) {
		from := at / PageSize
		walks.Go(func() {
			plan.err = r.walk(ctx, sweep, first+uint64(from), p[at:end], plan)
			for i := range plan.refs {
				ref := &plan.refs[i] // the windows before are read when this is
				ref.Same = earlier.Meet(&ref.ID, from+int(plan.at[i]), from)
			}
		})
	}
	size := min(window, firstWindow) * PageSize
	next := min(len(p), size)
	walk(0, next, &plans[0])
	for turn := 0; n < len(p); turn++ {
		walks.Wait()
		plan := &plans[turn%2]
		if plan.err != nil {
			return n, plan.err
		}
		end := next
		if next < len(p) {
			size = min(2*size, window*PageSize)
			next = min(len(p), next+size)
			walk(end, next, &plans[(turn+1)%2])
		}
		if err := r.read(ctx, first+uint64(n/PageSize), plan); err != nil {
			return n, err
		}
		n = end
	}
	return n, nil
}

// fill reads whole pages from first on.
func (r *SectionReader) fill(ctx context.Context, first uint64, b []byte, plan *fillPlan) error {
	if err := r.walk(ctx, r.s.from, first, b, plan); err != nil {
		return err
	}
	return r.read(ctx, first, plan)
}

// opened keeps the snapshot from being closed until done is called.
func (r *SectionReader) opened(ctx context.Context) (done func(), err error) {
	r.s.mu.RLock()
	if r.s.done || r.s.e.closing.Load() {
		err = ErrClosed
	} else {
		err = ctx.Err()
	}
	if err != nil {
		r.s.mu.RUnlock()
		return nil, err
	}
	return r.s.mu.RUnlock, nil
}

// walk plans to read the pages from first on into b, by nodes from g, and makes zeros of
// what is zeros.
func (r *SectionReader) walk(ctx context.Context, g manifest.Getter, first uint64, b []byte, plan *fillPlan) error {
	done, err := r.opened(ctx)
	if err != nil {
		return err
	}
	defer done()
	n, filled := uint64(len(b)/PageSize), uint64(0)
	plan.refs, plan.at = slices.Grow(plan.refs[:0], int(n)), slices.Grow(plan.at[:0], int(n))
	for p, err := range manifest.Pages(ctx, g, r.root, first, first+n) {
		if err != nil {
			at := first
			if node := (*manifest.NodeError)(nil); errors.As(err, &node) {
				from, _ := node.Place.Pages()
				at = max(at, from)
			}
			return locate(err, r.s.id.Canister, r.s.id, r.root.Section, at)
		}
		i := p.Index - first
		zeroPages(b[filled*PageSize : i*PageSize]) // what is not listed is zeros
		filled = i + 1
		plan.refs = append(plan.refs, chunk.PageRef{ID: p.ID, Dst: b[i*PageSize : (i+1)*PageSize]})
		plan.at = append(plan.at, uint32(i))
	}
	zeroPages(b[filled*PageSize:])
	return nil
}

// read reads what was planned of the pages from first on.
func (r *SectionReader) read(ctx context.Context, first uint64, plan *fillPlan) error {
	done, err := r.opened(ctx)
	if err != nil {
		return err
	}
	defer done()
	err = r.s.from.PagesOwn(ctx, plan.refs)
	if err != nil {
		if i, perr := firstUnread(ctx, r.s.from, plan.refs, err); perr != nil {
			err = locate(perr, r.s.id.Canister, r.s.id, r.root.Section, first+uint64(plan.at[i]))
		}
	}
	return err
}

// zeroPages makes pages all zeros, and writes to none that is: a quarter of an image
// may be, and memory that nobody has written yet costs a fault for each.
func zeroPages(b []byte) {
	var zeros pageBytes
	for ; len(b) > 0; b = b[PageSize:] {
		if !bytes.Equal(b[:PageSize], zeros[:]) {
			clear(b[:PageSize])
		}
	}
}

// Diff yields the pages in which two snapshots differ, in order, without
// reading pages; A and B are zero where a page is all zeros.
func (e *Engine) Diff(ctx context.Context, a, b SnapshotID) iter.Seq2[PageDiff, error] {
	return func(yield func(PageDiff, error) bool) {
		sa, err := e.pin(ctx, a)
		if err != nil {
			yield(PageDiff{}, opError("diff", a.Canister, a, err))
			return
		}
		defer sa.Close()
		sb, err := e.pin(ctx, b)
		if err != nil {
			yield(PageDiff{}, opError("diff", b.Canister, b, err))
			return
		}
		defer sb.Close()
		for d, err := range manifest.Diff(ctx, either(sa.from, sb.from), sa.info.Root, sb.info.Root) {
			if !yield(d, opError("diff", b.Canister, b, err)) || err != nil {
				return
			}
		}
	}
}
