package drive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
)

// Compare holds everything the engine shows against the model.
func (r *Run) Compare() error {
	if err := r.compareDurable(r.M); err != nil {
		return err
	}
	return r.compareLive(r.M)
}

// compareDurable compares what is durable: canisters, heads and snapshots.
func (r *Run) compareDurable(m *testkit.Model) error {
	want := map[engine.CanisterID]int{}
	snapshots, logical := 0, uint64(0)
	for i, c := range m.Canisters {
		if c.Exists {
			want[Canister(i)] = i
		}
	}
	for info, err := range r.E.Canisters() {
		if err != nil {
			return fmt.Errorf("canisters: %w", err)
		}
		i, ok := want[info.ID]
		if !ok {
			return finding(Silent, 1, fmt.Errorf("canister %v should not be there", info.ID))
		}
		delete(want, info.ID)
		if err := r.compareCanister(i, m.Canisters[i], info); err != nil {
			return fmt.Errorf("canister c%d: %w", i, err)
		}
		snapshots += len(m.Canisters[i].Snapshots)
		logical += info.SnapshotsLogical
	}
	if len(want) > 0 {
		n := 0
		for _, i := range want {
			n += len(m.Canisters[i].Snapshots)
		}
		return finding(Lost, n, fmt.Errorf("canisters are missing: %v", want))
	}
	if st := r.E.Stats(); st.Snapshots != snapshots || st.LogicalBytes != logical || st.DamagedCanisters != 0 {
		return fmt.Errorf("statistics tell %d snapshots of %d bytes, %d damaged; want %d of %d", st.Snapshots, st.LogicalBytes, st.DamagedCanisters, snapshots, logical)
	}
	return nil
}

func (r *Run) compareCanister(i int, c *testkit.Canister, info engine.CanisterInfo) error {
	if info.HeadRoot.IsZero() == c.HasHead {
		return fmt.Errorf("head %v, want one: %t", info.HeadRoot, c.HasHead)
	}
	if info.HeadLogical != c.Head.Logical() {
		return fmt.Errorf("head of %d bytes, want %d", info.HeadLogical, c.Head.Logical())
	}
	if err := compareRoots(info.Sections, c.Head, r.roots); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	handle, err := r.E.Canister(Canister(i))
	if err != nil {
		return err
	}
	host, err := handle.Host()
	if err != nil {
		return err
	}
	if !bytes.Equal(host, c.Host) {
		return fmt.Errorf("host blob of %d bytes, want %d", len(host), len(c.Host))
	}
	n := 0
	var logical uint64
	for have, err := range r.E.Snapshots(Canister(i)) {
		if err != nil {
			return err
		}
		if n == len(c.Snapshots) {
			return finding(Silent, 1, fmt.Errorf("snapshot %v should not be there", have.ID))
		}
		w := c.Snapshots[n]
		n++
		source := "taken"
		if w.Upload {
			source = "uploaded"
		}
		if have.ID != SnapshotID(i, w.Local) || have.Size != w.State.Logical() || have.TakenAt.UnixNano() != w.TakenAt ||
			have.Source.String() != source || have.Mutable != w.Mutable {
			return finding(Lost, 1, fmt.Errorf("snapshot %d is listed as %+v, want local %d, %d bytes, %s at %d, mutable %t",
				n-1, have, w.Local, w.State.Logical(), source, w.TakenAt, w.Mutable))
		}
		logical += have.Size
		s, err := r.E.Snapshot(context.Background(), have.ID)
		if err != nil {
			return err
		}
		err = compareSnapshot(s, w.State, r.roots)
		s.Close()
		if named(err) {
			return finding(Lost, 1, fmt.Errorf("snapshot %d: %w", w.Local, err))
		}
		if err != nil {
			return fmt.Errorf("snapshot %d: %w", w.Local, err)
		}
	}
	if n != len(c.Snapshots) {
		return finding(Lost, len(c.Snapshots)-n, fmt.Errorf("%d snapshots, want %d", n, len(c.Snapshots)))
	}
	if info.Snapshots != n || info.SnapshotsLogical != logical {
		return fmt.Errorf("%d snapshots of %d bytes are told, want %d of %d", info.Snapshots, info.SnapshotsLogical, n, logical)
	}
	return nil
}

// compareRoots checks names and sizes of sections, and that content that was
// seen before has the root it had then.
func compareRoots(have []engine.SectionRoot, want testkit.State, roots map[[32]byte]engine.Root) error {
	if len(have) != len(want.Sections) {
		return fmt.Errorf("sections %v, want %v", have, want.Names())
	}
	for i, name := range want.Names() {
		h, im := have[i], want.Sections[name]
		if h.Section != Section(name) || h.Size != im.Size {
			return fmt.Errorf("section %v of %d bytes, want %v of %d", h.Section, h.Size, name, im.Size)
		}
		if h.Root.IsZero() != (len(im.Pages) == 0) {
			return fmt.Errorf("section %v with %d pages has root %v", name, len(im.Pages), h.Root)
		}
		if known, ok := roots[im.Sum()]; ok && known != h.Root {
			return fmt.Errorf("section %v has root %v, equal content had %v", name, h.Root, known)
		}
	}
	return nil
}

// noteRoots remembers the roots of content that was compared byte by byte.
func noteRoots(have []engine.SectionRoot, want testkit.State, roots map[[32]byte]engine.Root) {
	for i, name := range want.Names() {
		roots[want.Sections[name].Sum()] = have[i].Root
	}
}

// compareSnapshot reads a snapshot bit for bit.
func compareSnapshot(s *engine.Snapshot, want testkit.State, roots map[[32]byte]engine.Root) error {
	if err := compareRoots(s.Sections(), want, roots); err != nil {
		return err
	}
	if v := s.Detail().Metadata.CanisterVersion; v != want.Version {
		return fmt.Errorf("version %d, want %d", v, want.Version)
	}
	for _, name := range want.Names() {
		sec, err := s.Section(Section(name))
		if err != nil {
			return err
		}
		im := want.Sections[name]
		if im.Size <= small {
			got := &bytes.Buffer{}
			if _, err := sec.WriteTo(got); err != nil {
				return err
			}
			if err := equal(got.Bytes(), im); err != nil {
				return fmt.Errorf("%v: %w", name, err)
			}
		} else if err := compareAt(sec, im); err != nil {
			return fmt.Errorf("%v: %w", name, err)
		}
	}
	noteRoots(s.Sections(), want, roots)
	return nil
}

// small sections are compared whole; of others every page that is not zero,
// and around it, and some that are.
const small = 1 << 20

func equal(got []byte, im *testkit.Image) error {
	if uint64(len(got)) != im.Size {
		return fmt.Errorf("%d bytes, want %d", len(got), im.Size)
	}
	want := make([]byte, len(got))
	im.ReadAt(want, 0)
	if bytes.Equal(got, want) {
		return nil
	}
	i := 0
	for got[i] == want[i] {
		i++
	}
	return finding(Silent, 1, fmt.Errorf("differs first at byte %d, page %d: %#x, want %#x", i, i/testkit.PageSize, got[i], want[i]))
}

// places gives where to look in a large section.
func places(im *testkit.Image) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for _, i := range slices.Sorted(maps.Keys(im.Pages)) {
			if !yield(i) || !yield(i+1) || i > 0 && !yield(i-1) {
				return
			}
		}
		rng := rand.New(rand.NewPCG(im.Size, 0))
		for range 8 {
			if !yield(rng.Uint64N(im.Size) / testkit.PageSize) {
				return
			}
		}
		yield((im.Size - 1) / testkit.PageSize)
	}
}

func compareAt(r io.ReaderAt, im *testkit.Image) error {
	var buf [testkit.PageSize]byte
	for page := range places(im) {
		off := page * testkit.PageSize
		if off >= im.Size {
			continue
		}
		p := buf[:min(testkit.PageSize, im.Size-off)]
		if _, err := r.ReadAt(p, int64(off)); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("page %d: %w", page, err)
		}
		want := make([]byte, len(p))
		im.ReadAt(want, off)
		if !bytes.Equal(p, want) {
			return finding(Silent, 1, fmt.Errorf("page %d differs", page))
		}
	}
	return nil
}

// compareLive compares live memory.
func (r *Run) compareLive(m *testkit.Model) error {
	for i, c := range m.Canisters {
		if !c.Exists {
			continue
		}
		handle, err := r.E.Canister(Canister(i))
		if err != nil {
			return err
		}
		if err := r.compareMemory(handle, c.Live); err != nil {
			return fmt.Errorf("live canister c%d: %w", i, err)
		}
	}
	return nil
}

func (r *Run) compareMemory(c *engine.Canister, want testkit.State) error {
	if v := c.Metadata().CanisterVersion; v != want.Version {
		// A state that can not be read has no metadata; its sections say why.
		if _, err := c.Memory(engine.WasmMemory); err != nil {
			return err
		}
		return fmt.Errorf("version %d, want %d", v, want.Version)
	}
	known := map[engine.Section]bool{}
	for _, name := range want.Names() {
		known[Section(name)] = true
		m, err := c.Memory(Section(name))
		if err != nil {
			return err
		}
		im := want.Sections[name]
		if m.Size() != im.Size {
			return fmt.Errorf("%v has %d bytes, want %d", name, m.Size(), im.Size)
		}
		if im.Size > small {
			if err := compareAt(m, im); err != nil {
				return fmt.Errorf("%v: %w", name, err)
			}
			continue
		}
		p := make([]byte, im.Size)
		if _, err := m.ReadAt(p, 0); err != nil {
			return fmt.Errorf("%v: %w", name, err)
		}
		if err := equal(p, im); err != nil {
			return fmt.Errorf("%v: %w", name, err)
		}
	}
	for _, sec := range c.Sections() {
		if known[sec] {
			continue
		}
		m, err := c.Memory(sec)
		if err != nil {
			return err
		}
		if m.Size() != 0 {
			return fmt.Errorf("section %v of %d bytes should not be there", sec, m.Size())
		}
	}
	return nil
}

// Verify asks the engine to check itself; it must find nothing.
func (r *Run) Verify(ctx context.Context) error {
	err := r.verify(ctx)
	if err == nil {
		return nil
	}
	if again := r.verify(ctx); again == nil {
		return fmt.Errorf("%w\nand nothing when asked again", err)
	}
	return fmt.Errorf("%w\nand again when asked again", err)
}

func (r *Run) verify(ctx context.Context) error {
	var found []error
	for p, err := range r.E.Verify(ctx, engine.VerifyOptions{}) {
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		err := fmt.Errorf("verify: %+v", p)
		switch p.Kind {
		case engine.ProblemLeak:
			err = finding(Leaked, testkit.PageSize, err)
		case engine.ProblemMissing, engine.ProblemNode, engine.ProblemPage:
			err = finding(FreedEarly, 1, err)
		}
		if found = append(found, err); len(found) == 5 {
			break
		}
	}
	return errors.Join(found...)
}

// CheckGC collects everything and recomputes what must be true then: nothing
// is left of what no version names, nothing is missing, and the log is not much
// larger than what lives in it.
func (r *Run) CheckGC(ctx context.Context) error {
	if _, err := r.E.GC(ctx, engine.GCOptions{}); err != nil {
		return fmt.Errorf("gc: %w", err)
	}
	if err := r.Verify(ctx); err != nil {
		return fmt.Errorf("after gc: %w", err)
	}
	if len(r.readers) > 0 {
		return nil // what they hold stays
	}
	st := r.E.Stats()
	if st.PendingDrops != 0 {
		return fmt.Errorf("after gc %d versions wait to be dropped", st.PendingDrops)
	}
	u, err := r.E.Usage(ctx)
	if err != nil {
		return err
	}
	if u.Limbo != 0 || u.Lost != 0 {
		return fmt.Errorf("after gc: %+v", u)
	}
	switch want := uint64(r.M.Pages(r.E.DedupDomain() == engine.DedupCanister)); {
	case u.Pages > want:
		return finding(Leaked, int(u.Pages-want)*testkit.PageSize, fmt.Errorf("after gc %d pages are stored, want %d", u.Pages, want))
	case u.Pages < want:
		return finding(FreedEarly, int(want-u.Pages), fmt.Errorf("after gc %d pages are stored, want %d", u.Pages, want))
	}
	return r.checkSize(st)
}

// checkSize bounds the log after gc: every sealed segment is live enough or too
// small to be worth it, and few are open.
func (r *Run) checkSize(st engine.Stats) error {
	below := r.options.CleanBelow
	if below == 0 {
		below = engine.DefaultCleanBelow
	}
	bound := int64(float64(st.LiveBytes)/below) + 40*(r.options.SegmentSize/8)
	if st.LogBytes > bound {
		return finding(Leaked, int(st.LogBytes-bound), fmt.Errorf("after gc the log has %d bytes with %d live, bound %d", st.LogBytes, st.LiveBytes, bound))
	}
	return nil
}

// CheckRebuild builds the index anew in two copies of the store: each must hold
// what the model says, and the two indexes must be equal, key by key.
func (r *Run) CheckRebuild(ctx context.Context) error {
	if err := r.Close(); err != nil {
		return err
	}
	var dumps [2]string
	for i := range dumps {
		c := Resume(r.Config, r.Disk.Crash(100, nil), r.M)
		c.roots = r.roots
		c.Options = func(o *engine.Options) {
			if r.Options != nil {
				r.Options(o)
			}
			o.RebuildIndex, o.NoBackground, o.IdleSync, o.ScrubEvery = true, true, -1, 0
		}
		if err := c.rebuilt(ctx, &dumps[i]); err != nil {
			return fmt.Errorf("rebuild: %w", err)
		}
	}
	if a, b, same := firstDifference(dumps[0], dumps[1]); !same {
		return fmt.Errorf("two rebuilds differ: %q and %q", a, b)
	}
	return r.Open()
}

func (r *Run) rebuilt(ctx context.Context, dump *string) (err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.Open(); err != nil {
		return err
	}
	if err := r.Verify(ctx); err != nil {
		return err
	}
	var b bytes.Buffer
	err = r.E.DumpIndex(&b)
	*dump = b.String()
	return err
}

func firstDifference(a, b string) (string, string, bool) {
	la, lb := bytes.Split([]byte(a), []byte("\n")), bytes.Split([]byte(b), []byte("\n"))
	for i := range max(len(la), len(lb)) {
		var x, y []byte
		if i < len(la) {
			x = la[i]
		}
		if i < len(lb) {
			y = lb[i]
		}
		if !bytes.Equal(x, y) {
			return string(x), string(y), false
		}
	}
	return "", "", true
}

// Depth says how much Check looks at.
type Depth int

// The depths of Check; each includes those before it.
const (
	Look    Depth = iota // all bytes, and the engine's own verification
	Collect              // gc, and what must be true after it
	Rebuild              // the index built anew twice, and opened once more
)

// Check holds the store against the model and its invariants.
func (r *Run) Check(ctx context.Context, d Depth) error {
	if err := r.Compare(); err != nil {
		return err
	}
	if err := r.Verify(ctx); err != nil {
		return err
	}
	if d >= Collect {
		if err := r.CloseReaders(); err != nil {
			return err
		}
		if err := r.CheckGC(ctx); err != nil {
			return err
		}
		if err := r.Compare(); err != nil {
			return fmt.Errorf("after gc: %w", err)
		}
	}
	if d >= Rebuild {
		if err := r.CheckRebuild(ctx); err != nil {
			return err
		}
		if err := r.Reopen(); err != nil {
			return fmt.Errorf("opened once more: %w", err)
		}
		if err := r.Compare(); err != nil {
			return err
		}
	}
	return nil
}
