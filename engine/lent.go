package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/trackmem"
	"github.com/snapstore/snapstore/manifest"
)

// TrackingMode is how writes to lent memory are noticed.
type TrackingMode = trackmem.Mode

// The modes. TrackAuto is kernel where the machine has it, and hash elsewhere;
// bitmap is for hosts that write through WriteAt alone.
const (
	TrackAuto   = trackmem.ModeAuto
	TrackKernel = trackmem.ModeKernel
	TrackBitmap = trackmem.ModeBitmap
	TrackHash   = trackmem.ModeHash
)

// ParseTrackingMode reads a mode's name; the empty one is auto.
func ParseTrackingMode(s string) (TrackingMode, error) {
	m, err := trackmem.ParseMode(s)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return m, err
}

// startTracking probes the machine.
func (e *Engine) startTracking() error {
	var err error
	if e.tracker, err = trackmem.New(trackmem.Options{Mode: e.o.Tracking, HugePages: e.o.HugePages}); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	e.bufs = make(chan *trackmem.PageBuf, bufsKept)
	e.patchKept = maxPatchKept
	e.o.Logger.Info("writes to lent memory are tracked", "mode", e.tracker.Mode().String(), "reason", e.tracker.Reason())
	return nil
}

// lent is what a section has once it was lent: a reservation with all of the
// image. It is made and given up under the canister's operation lock and
// Memory.mu, and the rest is guarded by the operation lock alone.
type lent struct {
	tm *trackmem.Memory
	// dirty was collected and is neither durable nor in an operation under way.
	dirty trackmem.DirtySet
	// taken is in the operation under way, which puts it back or makes it
	// durable. Its copies are in early, made while the guest ran, and residue,
	// made in the pause; the latter count.
	taken          trackmem.DirtySet
	early, residue *trackmem.PageBuf
	// last is how large the last residue was, to have room for the next.
	last int
}

// Borrow is the right to use the bytes of a section until Release.
type Borrow struct{ b *trackmem.Borrow }

// Bytes is the section as long as it is now, for reading and writing. Its
// address is the same as long as the section is lent, also after Resize and
// Load; its capacity is what it may grow to. What lies behind the length must
// not be written before Resize.
func (b *Borrow) Bytes() []byte { return b.b.Bytes() }

// Release ends the right. The section stays as it is, and can be borrowed again
// at once.
func (b *Borrow) Release() error { return b.b.Release() }

// Bytes lends the section out as one flat region that never moves, for a Wasm
// runtime: all of the image is read from the store and verified first, and is
// held in memory from then on. limit is the most that it can grow to; a
// section that is lent already keeps the limit it has.
//
// Writes to the bytes are noticed as Options.Tracking says. Nobody may write
// them in a pause (see Guest), or from the call to the return of Take,
// Checkpoint, Load and Revert where no Guest is set.
func (m *Memory) Bytes(ctx context.Context, limit uint64) (*Borrow, error) {
	b, err := m.lend(ctx, limit)
	return b, opError("lend "+m.section.String(), m.s.id, m.s.snapshot, err)
}

func (m *Memory) lend(ctx context.Context, limit uint64) (*Borrow, error) {
	if !m.s.snapshot.IsZero() {
		return nil, fmt.Errorf("an upload has no live memory: %w", ErrInvalid)
	}
	release, err := m.s.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	m.mu.RLock()
	l, size := m.lent, m.size
	m.mu.RUnlock()
	if l == nil {
		if limit > MaxSectionSize || limit < size {
			return nil, fmt.Errorf("limit %d for %s of %d bytes, at most %d: %w", limit, m.section, size, uint64(MaxSectionSize), ErrInvalid)
		}
		if l, err = m.fill(ctx, limit); err != nil {
			return nil, err
		}
	}
	b, err := l.tm.Borrow()
	if errors.Is(err, trackmem.ErrClosed) {
		err = ErrClosed
	}
	if err != nil {
		return nil, err
	}
	return &Borrow{b}, nil
}

// hold keeps operations of the canister away, and what its head names.
func (s *space) hold(ctx context.Context) (release func(), err error) {
	ent, _, err := s.e.lookup(s.id)
	if err != nil {
		return nil, err
	}
	if err := ent.lock(ctx); err != nil {
		return nil, err
	}
	ended := s.e.tickets.Begin()
	release = func() { ended(); ent.unlock() }
	if err = s.open(); err == nil {
		err = translate(s.e.applier.Wait(ctx, ent.seq))
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// fillWindow is how many pages are read at a time while an image is filled.
const fillWindow = 4096

// fill makes the reservation. The base can not change meanwhile; what is
// written or cut off while it is read is brought in at the end.
func (m *Memory) fill(ctx context.Context, limit uint64) (_ *lent, err error) {
	tm, err := m.s.e.tracker.Reserve(int64(limit))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tm.Close())
		}
	}()
	m.mu.RLock()
	base, low := m.base, m.low
	m.mu.RUnlock()
	from := min(low, pagesOf(base.Size))
	if err := tm.Grow(int64(min(limit, from*PageSize))); err != nil {
		return nil, err
	}
	refs := make([]chunk.PageRef, 0, fillWindow)
	flush := func() error {
		err := m.s.store.Pages(ctx, refs)
		refs = refs[:0]
		return m.s.located(err, m.section, 0)
	}
	for en, err := range manifest.Pages(ctx, m.s.store, base, 0, from) {
		if err != nil {
			return nil, m.s.located(err, m.section, en.Index)
		}
		refs = append(refs, chunk.PageRef{ID: en.ID, Dst: tm.Page(en.Index)})
		if len(refs) == cap(refs) {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	if err := discard(tm); err != nil {
		return nil, err
	}

	m.s.gate.RLock()
	defer m.s.gate.RUnlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.s.open(); err != nil {
		return nil, err
	}
	l := &lent{tm: tm}
	have := uint64(tm.Size())
	if err := tm.Truncate(int64(min(have, m.low*PageSize, m.size))); err != nil {
		return nil, err
	}
	if err := tm.Grow(int64(m.size)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for page, q := range m.top.all() {
		if page < pagesOf(m.size) { // beyond it is nothing
			copy(tm.Page(page), q[:])
			l.dirty.Add(page)
		}
	}
	if err := discard(tm); err != nil {
		return nil, err
	}
	m.top, m.lent = newPageTable(), l
	return l, nil
}

// discard arms what was written by the engine itself.
func discard(tm *trackmem.Memory) error {
	var d trackmem.DirtySet
	tm.Touch()
	return tm.Collect(&d)
}

// Unlend turns a lent section back into a table of dirty pages over the store.
// It is refused while there are borrows.
func (m *Memory) Unlend(ctx context.Context) error {
	return opError("take back "+m.section.String(), m.s.id, m.s.snapshot, m.unlend(ctx))
}

func (m *Memory) unlend(ctx context.Context) error {
	release, err := m.s.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	m.s.gate.Lock()
	defer m.s.gate.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.lent
	switch {
	case l == nil:
		return nil
	case l.tm.Borrowed():
		return fmt.Errorf("%s is borrowed: release it first: %w", m.section, ErrInvalid)
	}
	m.collected(l.tm.Look(&l.dirty))
	for page := range l.dirty.Pages() {
		if page < pagesOf(m.size) {
			q := new(pageBytes)
			copy(q[:], l.tm.Page(page))
			m.top.set(page, q)
		}
	}
	m.lent = nil
	return l.tm.Close()
}

// collected says what the error of a collect means: everything is in its set,
// which is right and only slow.
func (m *Memory) collected(err error) {
	if err != nil {
		m.s.e.o.Logger.Warn("written pages are not known, all are taken", "canister", m.s.id.String(), "section", m.section.String(), "error", err)
	}
}

// rearm goes before the canister's next operation, after a pause in which it
// was looked what was written; the guest may run. What differs by now from the
// copies is dirty.
func (m *Memory) rearm(copies iter.Seq2[uint64, []byte]) {
	m.collected(m.lent.tm.Rearm(&m.lent.dirty, copies))
}

// bufsKept and bufPagesKept bound the copies' memory that is kept for the next
// take, so that it need not be asked for in a pause.
const (
	bufsKept     = 4
	bufPagesKept = 16 << 20 / PageSize
)

func (e *Engine) buffer() *trackmem.PageBuf {
	select {
	case b := <-e.bufs:
		return b
	default:
		return new(trackmem.PageBuf)
	}
}

func (e *Engine) keep(b *trackmem.PageBuf) {
	if b == nil {
		return
	}
	b.Reset()
	b.Shrink(bufPagesKept)
	select {
	case e.bufs <- b:
	default:
	}
}

// The rounds of pre-copy: at most this many, and none after one that found few
// pages or hardly fewer than the one before it.
const (
	preCopyRounds = 4
	preCopyFew    = 64
)

// preCopy copies what is dirty while the guest runs, so that little is left to
// copy in the pause. What was collected is in taken from then on.
func (m *Memory) preCopy(ctx context.Context, running bool) error {
	l, e := m.lent, m.s.e
	l.early, l.residue = e.buffer(), e.buffer()
	expect := l.last
	for round, before := 0, 0; running && round < preCopyRounds; round++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		var d trackmem.DirtySet
		d.Union(&l.dirty)
		l.dirty.Clear()
		m.collectRunning(&d)
		l.taken.Union(&d)
		l.tm.CopyDirty(&d, l.early)
		n := d.Len()
		expect = n
		if n <= preCopyFew || round > 0 && n > before*3/4 {
			break
		}
		before = n
	}
	l.residue.Reserve(min(2*expect+preCopyFew, int(pagesOf(m.Size()))))
	return nil
}

// collectRunning collects beside the guest where the mode can do that.
func (m *Memory) collectRunning(d *trackmem.DirtySet) {
	switch tm := m.lent.tm; tm.Mode() {
	case trackmem.ModeKernel:
		m.collected(tm.CollectRunning(d))
	case trackmem.ModeBitmap:
		m.s.gate.Lock() // writers stand still for the moment of it
		defer m.s.gate.Unlock()
		m.collected(tm.Collect(d))
	}
}

// sealLent is seal for a section that is lent: in the pause, under the gate.
func (m *Memory) sealLent() {
	l := m.lent
	var d trackmem.DirtySet
	d.Union(&l.dirty)
	l.dirty.Clear()
	m.collected(l.tm.Look(&d))
	l.taken.Union(&d)
	l.tm.CopyDirty(&d, l.residue)
	l.last = d.Len()
}

// resizeLent is resize for a section that is lent. What is cut off reads as
// zeros and counts as written when it grows again.
func (m *Memory) resizeLent(size uint64) error {
	tm := m.lent.tm
	switch {
	case size > uint64(tm.Limit()):
		return fmt.Errorf("%s of %d bytes, and it is lent with a limit of %d: %w", m.section, size, tm.Limit(), ErrInvalid)
	case size >= m.size:
		if err := tm.Grow(int64(size)); err != nil {
			return err
		}
	default:
		if err := tm.Truncate(int64(size)); err != nil {
			return err
		}
		m.low = min(m.low, pagesOf(size))
	}
	m.size = size
	return nil
}

// assignLent is assign for a section that is lent.
func (m *Memory) assignLent(buf []byte, indexes []uint64, st *AssignStats) error {
	for i, page := range indexes {
		st.Pages++
		src := buf[i*PageSize : (i+1)*PageSize]
		if bytes.Equal(m.lent.tm.Page(page), src) {
			continue
		}
		off := page * PageSize
		if _, err := m.lent.tm.WriteAt(src[:min(PageSize, m.size-off)], int64(off)); err != nil {
			return err
		}
		st.Changed++
	}
	return nil
}

// lentBytes is how much is held in memory because it is lent.
func (m *Memory) lentBytes() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.lent == nil {
		return 0
	}
	return m.size
}

// closeLent gives up all that is lent; memory that is borrowed goes with its
// last borrow. Nothing may be under way.
func (s *space) closeLent() {
	for _, m := range s.sections {
		m.mu.Lock()
		if m.lent != nil {
			if err := m.lent.tm.Close(); err != nil {
				s.e.o.Logger.Warn("unmap live memory", "canister", s.id.String(), "error", err)
			}
		}
		m.mu.Unlock()
	}
}

// table gives the copies as a table. It is called after the pause.
func (l *lent) table(size uint64) *pageTable {
	t := newPageTable()
	end := pagesOf(size)
	for _, b := range []*trackmem.PageBuf{l.early, l.residue} {
		for i := range b.Len() {
			if page, p := b.Page(i); page < end {
				if page == end-1 && size%PageSize != 0 {
					clear(p[size%PageSize:]) // whatever a host wrote there
				}
				t.set(page, (*pageBytes)(p))
			}
		}
	}
	return t
}

// durable forgets what was taken: it is in the store.
func (l *lent) durable(e *Engine) {
	l.taken.Clear()
	e.keep(l.early)
	e.keep(l.residue)
	l.early, l.residue = nil, nil
}

// giveBack makes what was taken dirty again. The copies may still be read by
// the operation that failed, so their memory is not used again.
func (l *lent) giveBack() {
	l.dirty.Union(&l.taken)
	l.taken.Clear()
	l.early, l.residue = nil, nil
}
