package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/manifest"
)

// space is a set of sections and metadata over a durable manifest: the live
// state of a canister, or an upload.
type space struct {
	e  *Engine
	id CanisterID
	// store is the chunk store as the canister sees it.
	store *chunk.Store
	// snapshot is what an upload fills; zero for live state.
	snapshot SnapshotID

	// gate is held by every write, shared, and by a seal alone, so that all
	// sections are sealed at one moment.
	gate     sync.RWMutex
	sections map[Section]*Memory
	meta     Metadata
	closed   atomic.Pointer[error] // why nothing can be done any more
	// headless is why the durable state can not be read: nothing can be done but
	// to load a snapshot. Nil where it can.
	headless atomic.Pointer[error]
}

// fill makes the space equal to a manifest. The caller holds the gate, or is
// the only one to know s.
func (s *space) fill(m *manifest.Manifest) {
	old := s.sections
	s.sections = make(map[Section]*Memory, len(m.Sections))
	for _, root := range m.Sections {
		mem := old[root.Section]
		if mem == nil {
			mem = newMemory(s, root)
		} else {
			mem.reset(root)
		}
		s.sections[root.Section] = mem
		delete(old, root.Section)
	}
	for _, mem := range old {
		mem.reset(SectionRoot{Section: mem.section})
		s.sections[mem.section] = mem
	}
	s.meta = m.Meta
}

// open says whether the space may be read and written.
func (s *space) open() error {
	if err := s.openToLoad(); err != nil {
		return err
	}
	if err := s.headless.Load(); err != nil {
		return *err
	}
	return nil
}

// openToLoad is open for who replaces all there is.
func (s *space) openToLoad() error {
	if err := s.closed.Load(); err != nil {
		return *err
	}
	if s.e.closing.Load() {
		return ErrClosed
	}
	return nil
}

// shut makes every later call fail with err, and waits for writes under way.
func (s *space) shut(err error) {
	s.gate.Lock()
	s.closed.Store(&err)
	s.closeLent()
	s.gate.Unlock()
}

// located adds to a damage report where the caller met it.
func (s *space) located(err error, section Section, page uint64) error {
	return locate(err, s.id, s.snapshot, section, page)
}

func locate(err error, c CanisterID, snap SnapshotID, section Section, page uint64) error {
	err = translate(err)
	var ce *CorruptionError
	var absent *chunk.NotStoredError
	if !errors.As(err, &ce) && errors.As(err, &absent) {
		// A record names it, so it was there.
		ce = &CorruptionError{ID: absent.ID, Err: err}
		err = ce
	}
	if ce != nil {
		ce.Canister = c.String()
		if section.Kind != 0 {
			ce.Section, ce.Page = section.String(), page
		}
		if !snap.IsZero() {
			ce.Snapshot = snap.String()
		}
	}
	return err
}

// memory finds a section, or makes it with size 0.
func (s *space) memory(section Section) (*Memory, error) {
	if err := section.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	if err := s.open(); err != nil {
		return nil, err
	}
	m := s.sections[section]
	if m == nil {
		if s.inUse() >= manifest.MaxSections {
			return nil, fmt.Errorf("%d sections are the most: %w", manifest.MaxSections, ErrInvalid)
		}
		m = newMemory(s, SectionRoot{Section: section})
		s.sections[section] = m
	}
	return m, nil
}

// inUse counts the sections that a manifest would have. The caller holds the
// gate.
func (s *space) inUse() (n int) {
	for _, m := range s.sections {
		if m.Size() > 0 {
			n++
		}
	}
	return n
}

// list names the sections in order.
func (s *space) list() []Section {
	s.gate.RLock()
	defer s.gate.RUnlock()
	out := make([]Section, 0, len(s.sections))
	for sec := range s.sections {
		out = append(out, sec)
	}
	slices.SortFunc(out, Section.Compare)
	return out
}

// sealed is the state of a space at one moment, ready to be made durable.
type sealed struct {
	s        *space
	sections []sealedSection
	meta     Metadata
	pause    time.Duration
	// early and residue are how many pages of lent sections were copied before
	// and in the pause.
	early, residue int
	settled        bool
}

// seal freezes the state; writers go on after a moment, which is the pause.
func (s *space) seal() (*sealed, error) {
	began := time.Now()
	s.gate.Lock()
	defer s.gate.Unlock()
	if err := s.open(); err != nil {
		return nil, err
	}
	out := &sealed{s: s, meta: s.meta}
	for _, m := range s.sections {
		out.sections = append(out.sections, m.seal())
	}
	slices.SortFunc(out.sections, func(a, b sealedSection) int { return a.m.section.Compare(b.m.section) })
	out.pause = time.Since(began)
	return out, nil
}

// logical is the logical size of what was sealed.
func (z *sealed) logical() uint64 {
	m := manifest.Manifest{Meta: z.meta}
	for _, sec := range z.sections {
		if sec.size > 0 {
			m.Sections = append(m.Sections, SectionRoot{Section: sec.m.section, Size: sec.size})
		}
	}
	return m.LogicalSize()
}

// logical is the logical size as it is now.
func (s *space) logical() uint64 {
	s.gate.RLock()
	defer s.gate.RUnlock()
	m := manifest.Manifest{Meta: s.meta}
	for section, mem := range s.sections {
		if n := mem.Size(); n > 0 {
			m.Sections = append(m.Sections, SectionRoot{Section: section, Size: n})
		}
	}
	return m.LogicalSize()
}

// undo gives every sealed page back. It does nothing after settle.
func (z *sealed) undo() {
	if z == nil || z.settled {
		return
	}
	for _, sec := range z.sections {
		sec.m.unseal()
	}
	z.settled = true
}

// settle makes what was built the base of the live state.
func (z *sealed) settle(m *manifest.Manifest) {
	roots := map[Section]SectionRoot{}
	for _, r := range m.Sections {
		roots[r.Section] = r
	}
	for _, sec := range z.sections {
		root, ok := roots[sec.m.section]
		if !ok {
			root = SectionRoot{Section: sec.m.section}
		}
		sec.m.settle(root)
	}
	z.settled = true
}

// built is a state whose pages, nodes and manifest are in a writer.
type built struct {
	manifest *manifest.Manifest
	root     chunk.ID
	stats    PageStats
}

// build writes what the sealed state adds to the store into w.
func (z *sealed) build(ctx context.Context, w *chunk.Writer, source manifest.Source, takenAt time.Time) (*built, error) {
	out := &built{manifest: &manifest.Manifest{Meta: z.meta}}
	out.manifest.Meta.Source = source
	out.manifest.Meta.TakenAt = uint64(takenAt.UnixNano())
	for _, sec := range z.sections {
		if sec.lent != nil {
			sec.pages = sec.lent.table(sec.size)
		}
		root, st, err := z.s.buildSection(ctx, w, sec)
		if err != nil {
			return nil, locate(err, z.s.id, z.s.snapshot, sec.m.section, 0)
		}
		addStats(&out.stats, st)
		if root.Size > 0 {
			out.manifest.Sections = append(out.manifest.Sections, root)
		}
	}
	return out, z.s.addManifest(w, out)
}

func (s *space) addManifest(w *chunk.Writer, out *built) error {
	enc, err := out.manifest.Encode()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if out.root, err = manifest.NodeID(enc); err != nil {
		return err
	}
	return w.KeepNode(out.root, enc)
}

// buildSection writes one section's dirty pages and the nodes above them.
func (s *space) buildSection(ctx context.Context, w *chunk.Writer, sec sealedSection) (SectionRoot, PageStats, error) {
	base := sec.base
	nodes := manifest.Getter(s.store.Scattered())
	if sec.low < pagesOf(base.Size) {
		// The section was cut to less than its base and may have grown again:
		// what lay beyond must not come back.
		// The few nodes on the path to the cut are stored nowhere yet, and the
		// cache may lose them.
		cut := overlay{Getter: s.store, nodes: map[chunk.ID][]byte{}}
		add := func(id chunk.ID, node []byte) error {
			cut.nodes[id] = bytes.Clone(node)
			return w.KeepNode(id, node)
		}
		var err error
		if base, err = manifest.NewBuilder(ctx, s.store, base, min(base.Size, sec.low*PageSize), add).Finish(); err != nil {
			return SectionRoot{}, PageStats{}, err
		}
		nodes = cut
	}
	b := manifest.NewBuilder(ctx, nodes, base, sec.size, w.KeepNode)
	ingest := w.IngestHeld
	if sec.lent != nil {
		ingest = w.Ingest
	}
	st, err := ingest(ctx, pageSeq(sec.pages), leavesOf(ctx, nodes, base), b.Set)
	if err != nil {
		return SectionRoot{}, st, err
	}
	root, err := b.Finish()
	root.Section = sec.m.section
	return root, st, err
}

// leavesOf gives what a writer compares pages with: the IDs that base has.
func leavesOf(ctx context.Context, nodes manifest.Getter, base SectionRoot) func([]uint64, []chunk.ID) error {
	limit := pagesOf(base.Size)
	return func(pages []uint64, out []chunk.ID) error {
		n := 0
		for n < len(pages) && pages[n] < limit {
			n++
		}
		clear(out)
		if n == 0 {
			return nil
		}
		return manifest.Leaves(ctx, nodes, base, pages[:n], out[:n])
	}
}

// overlay reads nodes that are not stored yet beside those that are.
type overlay struct {
	manifest.Getter
	nodes map[chunk.ID][]byte
}

// Node implements manifest.Getter.
func (o overlay) Node(ctx context.Context, id chunk.ID) ([]byte, error) {
	if n, ok := o.nodes[id]; ok {
		return n, nil
	}
	return o.Getter.Node(ctx, id)
}

func pageSeq(t *pageTable) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i, p := range t.all() {
			if !yield(i, p[:]) {
				return
			}
		}
	}
}

func addStats(a *PageStats, b PageStats) {
	a.Pages += b.Pages
	a.Zero += b.Zero
	a.Unchanged += b.Unchanged
	a.Shared += b.Shared
	a.New += b.New
	a.RawBytes += b.RawBytes
	a.StoredBytes += b.StoredBytes
}
