package engine

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/manifest"
)

// MaxSectionSize bounds a section, in bytes; twice what the Internet Computer
// allows for stable memory.
const MaxSectionSize = 1 << 40

// Memory is one section of a canister's live state, or of an upload: a table
// of dirty pages over the store, so it costs memory only for what was written
// since the last commit. Once it is lent by Bytes it is all in memory. Its
// methods are safe for concurrent use; writes are held off for the moment in
// which a take seals the state.
//
// Nothing written is durable before the canister's next Checkpoint or Take,
// or the upload's Flush.
type Memory struct {
	s       *space
	section Section

	mu   sync.RWMutex
	size uint64
	// base is the durable state that dirty pages lie over. Pages from low on
	// were cut off since and read as zeros unless they are dirty.
	base SectionRoot
	low  uint64
	top  *pageTable
	// While a commit is under way the pages it took are sealed, and lie
	// between top and base; sealedLow is what low was for base then.
	sealed    *pageTable
	sealedLow uint64
	// lent, when not nil, holds all of the image; top is empty then, and sealed
	// has copies.
	lent *lent
}

func newMemory(s *space, root SectionRoot) *Memory {
	return &Memory{s: s, section: root.Section, size: root.Size, base: root, low: pagesOf(root.Size), top: newPageTable()}
}

func pagesOf(size uint64) uint64 { return (size + PageSize - 1) / PageSize }

// Section names what m is.
func (m *Memory) Section() Section { return m.section }

// Size in bytes.
func (m *Memory) Size() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.size
}

// DirtyPages is how many pages differ, or may differ, from the durable state. Of
// a lent section it is not known before the next take, and 0.
func (m *Memory) DirtyPages() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := m.top.n
	if m.sealed != nil {
		n += m.sealed.n
	}
	return n
}

// ReadAt implements io.ReaderAt. Pages never written read as zeros; pages not
// dirty are read from the store and verified.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.s.open(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, ErrInvalid)
	}
	if m.lent != nil {
		return m.lent.tm.ReadAt(p, off)
	}
	if uint64(off) >= m.size {
		return 0, io.EOF
	}
	var eof error
	if rest := m.size - uint64(off); uint64(len(p)) > rest {
		p, eof = p[:rest], io.EOF
	}
	var buf pageBytes
	for n := 0; n < len(p); {
		at := uint64(off) + uint64(n)
		in := at % PageSize
		dst := p[n:min(len(p), n+PageSize-int(in))]
		if q := m.resident(at / PageSize); q != nil {
			copy(dst, q[in:])
		} else if len(dst) == PageSize {
			if err := m.fromStore(at/PageSize, dst); err != nil {
				return n, err
			}
		} else {
			if err := m.fromStore(at/PageSize, buf[:]); err != nil {
				return n, err
			}
			copy(dst, buf[in:])
		}
		n += len(dst)
	}
	return len(p), eof
}

// resident finds a page that does not need the store; nil when it does.
func (m *Memory) resident(page uint64) *pageBytes {
	if q := m.top.get(page); q != nil {
		return q
	}
	if m.sealed != nil && page < m.low {
		return m.sealed.get(page)
	}
	return nil
}

// fromStore reads a page that is not resident.
func (m *Memory) fromStore(page uint64, dst []byte) error {
	id, err := m.baseLeaf(page)
	if err != nil {
		return m.s.located(err, m.section, page)
	}
	return m.s.located(m.s.store.Page(id, dst), m.section, page)
}

func (m *Memory) baseLeaf(page uint64) (chunk.ID, error) {
	if page >= m.low || m.sealed != nil && page >= m.sealedLow || page >= pagesOf(m.base.Size) {
		return chunk.ID{}, nil
	}
	return manifest.Leaf(context.Background(), m.s.store, m.base, page)
}

// WriteAt implements io.WriterAt. It never grows the section.
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	m.s.gate.RLock()
	defer m.s.gate.RUnlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.s.open(); err != nil {
		return 0, err
	}
	if off < 0 || uint64(off) > m.size || uint64(len(p)) > m.size-uint64(off) {
		return 0, fmt.Errorf("write of %d bytes at %d in %s of %d bytes: %w: grow it first", len(p), off, m.section, m.size, ErrInvalid)
	}
	if m.lent != nil {
		return m.lent.tm.WriteAt(p, off)
	}
	for n := 0; n < len(p); {
		at := uint64(off) + uint64(n)
		in := at % PageSize
		src := p[n:min(len(p), n+PageSize-int(in))]
		q, err := m.own(at/PageSize, len(src) == PageSize)
		if err != nil {
			return n, err
		}
		copy(q[in:], src)
		n += len(src)
	}
	return len(p), nil
}

// own gives a page in top that may be written; whole says that all of it will
// be, so that nothing needs to be read.
func (m *Memory) own(page uint64, whole bool) (*pageBytes, error) {
	if q := m.top.get(page); q != nil {
		return q, nil
	}
	q := new(pageBytes)
	if !whole {
		if r := m.resident(page); r != nil {
			*q = *r
		} else if err := m.fromStore(page, q[:]); err != nil {
			return nil, err
		}
	}
	m.top.set(page, q)
	return q, nil
}

// Resize grows with zeros or cuts off.
func (m *Memory) Resize(size uint64) error {
	m.s.gate.RLock()
	defer m.s.gate.RUnlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.s.open(); err != nil {
		return err
	}
	return m.resize(size)
}

func (m *Memory) resize(size uint64) error {
	if size > MaxSectionSize {
		return fmt.Errorf("%s of %d bytes, at most %d: %w", m.section, size, uint64(MaxSectionSize), ErrInvalid)
	}
	if m.lent != nil {
		return m.resizeLent(size)
	}
	if size < m.size {
		// What lies behind the end is zero, so that growing again shows zeros.
		if in := size % PageSize; in != 0 {
			q, err := m.own(size/PageSize, false)
			if err != nil {
				return err
			}
			clear(q[in:])
		}
		m.top.truncate(pagesOf(size))
		m.low = min(m.low, pagesOf(size))
	}
	m.size = size
	return nil
}

// AssignStats says what Assign did.
type AssignStats struct {
	Pages   uint64 // of the section
	Changed uint64 // of them written
}

// Assign makes the section equal to the first size bytes of r, writing only
// the pages that differ. On an error the section may be part old, part new;
// nothing is durable then.
func (m *Memory) Assign(ctx context.Context, r io.Reader, size uint64, progress func(done int64)) (AssignStats, error) {
	var st AssignStats
	if err := m.Resize(size); err != nil {
		return st, err
	}
	const window = 256
	buf := make([]byte, window*PageSize)
	ids := make([]chunk.ID, window)
	indexes := make([]uint64, 0, window)
	for off := uint64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return st, err
		}
		n := min(uint64(len(buf)), size-off)
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return st, fmt.Errorf("read %s at %d: %w", m.section, off, err)
		}
		clear(buf[n:])
		indexes = indexes[:0]
		for i := uint64(0); i < pagesOf(n); i++ {
			indexes = append(indexes, off/PageSize+i)
		}
		if err := m.assign(ctx, buf, indexes, ids, size, &st); err != nil {
			return st, err
		}
		off += n
		if progress != nil {
			progress(int64(off))
		}
	}
	return st, nil
}

// assign writes those of a window of pages that differ from what is there.
func (m *Memory) assign(ctx context.Context, buf []byte, indexes []uint64, ids []chunk.ID, size uint64, st *AssignStats) error {
	m.s.gate.RLock()
	defer m.s.gate.RUnlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.s.open(); err != nil {
		return err
	}
	if m.size != size {
		return fmt.Errorf("%s was resized meanwhile: %w", m.section, ErrInvalid)
	}
	if m.lent != nil {
		return m.assignLent(buf, indexes, st)
	}
	if err := m.leaves(ctx, indexes, ids); err != nil {
		return m.s.located(err, m.section, indexes[0])
	}
	lossy := m.s.e.counter.Lossy()
	for i, page := range indexes {
		st.Pages++
		src := (*pageBytes)(buf[i*PageSize:])
		if q := m.resident(page); q != nil {
			if *q == *src {
				continue
			}
		} else if chunk.Sum(src[:]) == ids[i] && !m.s.e.o.CompareOnHit && !(lossy && m.s.gone(ids[i])) {
			continue
		}
		q, err := m.own(page, true)
		if err != nil {
			return err
		}
		*q = *src
		st.Changed++
	}
	return nil
}

// leaves gives the base's page IDs, zero where pages were cut off since.
func (m *Memory) leaves(ctx context.Context, indexes []uint64, out []chunk.ID) error {
	limit := min(m.low, pagesOf(m.base.Size))
	if m.sealed != nil {
		limit = min(limit, m.sealedLow)
	}
	n := 0
	for n < len(indexes) && indexes[n] < limit {
		n++
	}
	clear(out)
	if n == 0 {
		return nil
	}
	return manifest.Leaves(ctx, m.s.store, m.base, indexes[:n], out[:n])
}

// sealedSection is what a commit works on: immutable, whatever the writer does.
type sealedSection struct {
	m     *Memory
	base  SectionRoot
	low   uint64
	size  uint64
	pages *pageTable
	lent  *lent // its copies are made pages after the pause
}

// seal hands the dirty pages to a commit. The caller holds the gate.
func (m *Memory) seal() sealedSection {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lent != nil {
		m.sealLent()
	}
	s := sealedSection{m: m, base: m.base, low: m.low, size: m.size, pages: m.top, lent: m.lent}
	m.sealed, m.sealedLow = m.top, m.low
	m.top, m.low = newPageTable(), pagesOf(m.size)
	return s
}

// settle makes root, the durable form of what was sealed, the new base.
func (m *Memory) settle(root SectionRoot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.base, m.sealed, m.sealedLow = root, nil, 0
	if m.lent != nil {
		m.lent.durable(m.s.e)
	}
}

// unseal puts the sealed pages back under what was written since: a commit
// that failed loses no dirty page.
func (m *Memory) unseal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sealed == nil {
		return
	}
	m.sealed.truncate(m.low)
	for page, q := range m.top.all() {
		m.sealed.set(page, q)
	}
	m.top, m.low = m.sealed, min(m.low, m.sealedLow)
	m.sealed, m.sealedLow = nil, 0
	if m.lent != nil {
		m.lent.giveBack()
	}
}

// reset makes root the whole content, dirty pages and all. The caller holds
// the gate, and has patched the section if it is lent.
func (m *Memory) reset(root SectionRoot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.size, m.base, m.low = root.Size, root, pagesOf(root.Size)
	m.top, m.sealed, m.sealedLow = newPageTable(), nil, 0
}
