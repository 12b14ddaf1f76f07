package trackmem

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"sync/atomic"
)

// Errors that callers tell apart.
var (
	ErrClosed = errors.New("memory is closed")
	// ErrNotRunning: the mode can not collect beside writers.
	ErrNotRunning = errors.New("this tracking mode collects only while nobody writes")
)

// Memory is a reservation that never moves, with a length that grows inside
// it. The package comment says who excludes whom.
type Memory struct {
	t     *Tracker
	mode  Mode
	res   reservation
	size  atomic.Int64
	wrote atomic.Bool // something may have been written since the last Collect

	// marked are the pages to report whatever the kernel or the hashes say.
	marked marks
	// hot is the offset of a page below size of which a write is noted, or noPage.
	hot    atomic.Uint64
	hashes hashes // in hash mode

	mu      sync.Mutex // guards what follows, and that nothing is unmapped in use
	touched DirtySet   // regions that are armed, in kernel mode
	// loose are pages that Look reported in regions that are not armed, and those
	// that Rearm was told of. They may have become zeros since, which are not there
	// to be seen.
	loose   DirtySet
	borrows int
	closed  bool
}

// arming says which of the pages that a collect reports it arms.
type arming uint8

const (
	armStill   arming = iota // all; nobody writes
	armRunning               // all; there may be writers
	armNothing
)

// Limit is the most that m can grow to, in bytes.
func (m *Memory) Limit() int64 { return int64(len(m.res.bytes)) }

// Size in bytes.
func (m *Memory) Size() int64 { return m.size.Load() }

// Mode is how writes are noticed.
func (m *Memory) Mode() Mode { return m.mode }

func pages(bytes int64) uint64 { return (uint64(bytes) + PageSize - 1) / PageSize }

// ReadAt implements io.ReaderAt.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	size := m.size.Load()
	if off < 0 {
		return 0, fmt.Errorf("read at %d: negative offset", off)
	}
	if off >= size {
		return 0, io.EOF
	}
	n := copy(p, m.res.bytes[off:size])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt. It never grows the memory.
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	// Most writes go where the one before them went. That page is below the size
	// and noted already; the third comparison fails where there is no such page.
	hot, last := m.hot.Load(), uint64(off)+uint64(len(p))-1
	if (uint64(off)^hot)|(last^hot) < PageSize && uint64(off) < uint64(len(m.res.bytes)) {
		return copy(m.res.bytes[off:], p), nil
	}
	return m.writeNoted(p, off)
}

// noPage is in no reservation: they end with the int64 before it.
const noPage = 1 << 63

// writeNoted is WriteAt where nothing is known of the page.
func (m *Memory) writeNoted(p []byte, off int64) (int, error) {
	size := m.size.Load()
	if off < 0 || off > size || int64(len(p)) > size-off {
		return 0, outside(len(p), off, size)
	}
	if len(p) == 0 {
		return 0, nil
	}
	// Noted before the write, which is as good: a Collect never runs beside it.
	first, last := uint64(off)/PageSize, (uint64(off)+uint64(len(p))-1)/PageSize
	var noted bool
	if m.mode != ModeBitmap {
		if noted = m.wrote.Load(); !noted {
			m.wrote.Store(true)
		}
	} else if noted = first == last && m.marked.has(first); !noted {
		m.marked.set(first, last+1)
	}
	// A store that others wait for is dear, so it is made where more writes are
	// likely to follow: after the first of a page, and in passes from its start.
	if (!noted || uint64(off)%PageSize == 0) && int64(last+1)*PageSize <= size {
		m.hot.Store(last * PageSize)
	}
	return copy(m.res.bytes[off:], p), nil
}

func outside(n int, off, size int64) error {
	return fmt.Errorf("write of %d bytes at %d in a memory of %d bytes: grow it first", n, off, size)
}

// Grow makes the memory longer; what is new reads as zeros.
func (m *Memory) Grow(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.size.Load()
	switch {
	case m.closed:
		return ErrClosed
	case size < have:
		return fmt.Errorf("grow from %d to %d bytes: smaller", have, size)
	case size > m.Limit():
		return fmt.Errorf("grow to %d bytes: at most %d are reserved", size, m.Limit())
	}
	if err := m.res.commit(uint64(have), uint64(size)); err != nil {
		return fmt.Errorf("grow to %d bytes: %w", size, err)
	}
	m.size.Store(size)
	return nil
}

// Truncate cuts the memory to size. What lies behind is given back to the
// system and reads as zeros when the memory grows again; it counts as written.
func (m *Memory) Truncate(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.size.Load()
	switch {
	case m.closed:
		return ErrClosed
	case size < 0 || size > have:
		return fmt.Errorf("truncate %d bytes to %d: not smaller", have, size)
	case size == have:
		return nil
	}
	first, end := pages(size), pages(have)
	if size%PageSize != 0 {
		clear(m.res.bytes[size:min(int64(first)*PageSize, have)])
		m.marked.set(first-1, first)
	}
	m.size.Store(size)
	m.hot.Store(noPage)
	if first == end {
		return nil
	}
	m.marked.set(first, end)
	return m.res.drop(first*PageSize, end*PageSize)
}

// Collect moves the pages written since the last Collect into d, all below
// Size, and arms them again. Nobody may write meanwhile. After an error every
// page is in d, because nothing is known.
func (m *Memory) Collect(d *DirtySet) error { return m.collect(d, armStill) }

// Look is Collect for a pause: in kernel mode it arms nothing, which is what
// takes the time (each page table that has something to arm makes all
// processors drop what they know of it). What it put into d is armed by Rearm or
// the next Collect, and until then reported again.
func (m *Memory) Look(d *DirtySet) error { return m.collect(d, armNothing) }

func (m *Memory) collect(d *DirtySet, how arming) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	end := pages(m.size.Load())
	m.hot.Store(noPage)
	m.marked.take(d, end)
	// wrote is set by a borrow and stays while there is one, so it is clear only
	// when nobody could write.
	quiet := m.mode != ModeBitmap && m.borrows == 0 && !m.wrote.Swap(false)
	if quiet {
		return nil
	}
	var err error
	switch m.mode {
	case ModeKernel:
		err = m.collectKernel(d, end, how)
	case ModeHash:
		m.hashes.collect(m.res.bytes, d, end)
	}
	if err != nil {
		m.wrote.Store(true)
		d.AddRange(0, end)
		return fmt.Errorf("collect written pages: %w", err)
	}
	return nil
}

// CollectRunning is Collect beside writers. What is written while it runs is
// reported by it or by the next. It works where Mode.Running says so.
func (m *Memory) CollectRunning(d *DirtySet) error {
	if !m.mode.Running() {
		return ErrNotRunning
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.collectRunning(d)
}

func (m *Memory) collectRunning(d *DirtySet) error {
	if m.closed {
		return ErrClosed
	}
	end := pages(m.size.Load())
	if err := m.collectKernel(d, end, armRunning); err != nil {
		d.AddRange(0, end)
		return fmt.Errorf("collect written pages: %w", err)
	}
	return nil
}

// Rearm arms what Look reported, beside writers, and adds to d what may differ
// by now from what Look saw: copies are the pages it reported, as they were
// then, or nil where that is not known. A page that equals its copy after it was
// armed is as it was; one whose copy is nil is taken to differ. One that is not in
// copies was not reported, so it was as it had been armed, or zeros where it never
// was. copies is gone through twice. After an error every page is in d. It has
// nothing to do where collecting does not arm.
func (m *Memory) Rearm(d *DirtySet, copies iter.Seq2[uint64, []byte]) error {
	if m.mode != ModeKernel {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var zeros [PageSize]byte
	for page, was := range copies {
		if !m.touched.Has(page/regionPages) && !bytes.Equal(was, zeros[:]) {
			// It may be a hole by now, which is not there to be seen.
			m.loose.Add(page)
		}
	}
	var again, before, seen DirtySet
	before.Union(&m.touched)
	if err := m.collectRunning(&again); err != nil {
		d.Union(&again)
		return err
	}
	same := func(page uint64, was []byte) {
		if now := m.Page(page); now != nil && bytes.Equal(now, was) {
			again.Remove(page)
		}
	}
	for page, was := range copies {
		seen.Add(page)
		if again.Has(page) {
			same(page, was)
		}
	}
	// Regions that were not armed before were zeros where Look saw nothing.
	for region := range m.touched.Pages() {
		if before.Has(region) {
			continue
		}
		for page := region * regionPages; page < (region+1)*regionPages; page++ {
			if again.Has(page) && !seen.Has(page) {
				same(page, zeros[:])
			}
		}
	}
	d.Union(&again)
	return nil
}

// CopyDirty copies the pages of d below Size to the end of b.
func (m *Memory) CopyDirty(d *DirtySet, b *PageBuf) {
	end, from := pages(m.size.Load()), b.Len()
	for first, last := range d.Ranges() {
		if first >= end {
			break
		}
		b.list(first, min(last, end))
	}
	b.fill(m.res.bytes, from)
}

// Page gives a page as it is now. Whoever writes to it calls Touch afterwards,
// and is not seen in bitmap mode. It is nil behind the end.
func (m *Memory) Page(page uint64) []byte {
	if page >= pages(m.size.Load()) {
		return nil
	}
	return m.res.bytes[page*PageSize : (page+1)*PageSize : (page+1)*PageSize]
}

// Touch says that pages were written through Page, without a Borrow.
func (m *Memory) Touch() { m.wrote.Store(true) }

// Borrowed tells whether somebody may use the bytes.
func (m *Memory) Borrowed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.borrows > 0
}

// Close ends the use of m. Its memory goes when the last Borrow is released.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	m.size.Store(0)
	m.hot.Store(noPage)
	return m.unmap()
}

// unmap releases everything once nobody needs it. The caller holds mu.
func (m *Memory) unmap() error {
	if !m.closed || m.borrows > 0 {
		return nil
	}
	m.marked.release()
	m.hashes.release()
	return m.res.release()
}

// Borrow is the right to use the bytes of a Memory.
type Borrow struct {
	m    *Memory
	once sync.Once
}

// Borrow lends the bytes out until Release.
func (m *Memory) Borrow() (*Borrow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrClosed
	}
	m.borrows++
	m.wrote.Store(true)
	return &Borrow{m: m}, nil
}

// Bytes is the memory as long as it is now; its capacity is the limit. The
// address is always the same. Bytes behind the length must not be written
// before Grow.
func (b *Borrow) Bytes() []byte {
	size := b.m.size.Load()
	return b.m.res.bytes[:size:len(b.m.res.bytes)]
}

// Release ends the right: no slice that Bytes gave may be used any more.
func (b *Borrow) Release() error {
	var err error
	b.once.Do(func() {
		b.m.mu.Lock()
		defer b.m.mu.Unlock()
		b.m.borrows--
		err = b.m.unmap()
	})
	return err
}
