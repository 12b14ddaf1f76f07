package seglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A model is what a store must hold: one line per request ever made.
type model struct {
	mu    sync.Mutex
	lines []*line
	// nextSeq is a lower bound for sequences handed out from now on.
	nextSeq Sequence
}

type fate uint8

const (
	pendingFate fate = iota // in flight: there or not
	acked                   // must be there
	withdrawn               // must not be there
	dropped                 // its segments were dropped
)

type line struct {
	fate    fate
	key     string
	recSeq  uint64
	frames  [][]byte // of the commit stream, then spilled
	payload []byte
}

func (m *model) set(l *line, f fate) {
	m.mu.Lock()
	l.fate = f
	m.mu.Unlock()
}

// snapshot copies the lines, since a crash freezes what is expected.
func (m *model) snapshot() []line {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]line, len(m.lines))
	for i, l := range m.lines {
		out[i] = *l
	}
	return out
}

// A history is a seeded sequence of operations on a log.
type history struct {
	t   testing.TB
	m   *model
	rng *rand.Rand
	l   *Log
	n   uint64
}

// commit makes one request, spilling some data if asked to. It reports the error.
func (h *history) commit(sizes []int, spill []int) error {
	h.n++
	r := request(fmt.Sprintf("key%d", h.n%3), h.n, sizes...)
	ln := &line{key: string(r.Records[0].Key), recSeq: h.n, payload: r.Records[0].Payload}
	for _, f := range r.Frames {
		ln.frames = append(ln.frames, f.Payload)
	}
	var sp *Spill
	if len(spill) > 0 {
		var err error
		if sp, err = h.l.Spill(StreamBulk + Stream(h.n%2)); err != nil {
			return err
		}
		defer sp.Close()
		for i, n := range spill {
			p := filler(h.n<<8|uint64(128+i), n)
			if _, err := sp.Append(KindGroup, p); err != nil {
				return err
			}
			ln.frames = append(ln.frames, p)
		}
		if err := sp.Flush(); err != nil {
			return err
		}
		r.Ranges = sp.Ranges()
	}
	h.m.mu.Lock()
	h.m.lines = append(h.m.lines, ln)
	h.m.mu.Unlock()
	_, err := h.l.Commit(context.Background(), r)
	if err == nil {
		h.m.set(ln, acked)
	} else if h.l.ReadOnly() == nil {
		h.m.set(ln, withdrawn)
	}
	return err
}

// step does something. Errors are for the caller to judge.
func (h *history) step() error {
	sizes := func(n, most int) []int {
		s := make([]int, n)
		for i := range s {
			s[i] = h.rng.IntN(most)
		}
		return s
	}
	switch k := h.rng.IntN(10); {
	case k < 5:
		return h.commit(sizes(h.rng.IntN(3), 900), nil)
	case k < 6:
		return h.commit(sizes(1, 6000), nil)
	case k < 8:
		return h.commit(nil, sizes(1+h.rng.IntN(5), 1500))
	case k < 9:
		return h.l.Seal(context.Background())
	default:
		return h.drop()
	}
}

// drop removes the oldest closed commit segment.
func (h *history) drop() error {
	for _, s := range h.l.Segments() {
		if !s.Sealed || s.Stream != StreamCommit {
			continue
		}
		var lines []*line
		err := h.l.Replay(context.Background(), 0, func(b *Batch) error {
			for _, r := range b.Records {
				if r.Loc.Segment != s.ID {
					continue
				}
				h.m.mu.Lock()
				lines = append(lines, h.m.lines[r.RecordSeq-1])
				h.m.mu.Unlock()
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, ln := range lines {
			h.m.set(ln, pendingFate)
		}
		if err := h.l.Drop(context.Background(), s.LastSeq, s.ID); err != nil {
			return err
		}
		for _, ln := range lines {
			h.m.set(ln, dropped)
		}
		return nil
	}
	return nil
}

// contents replays a log and returns what it holds by record sequence.
func contents(l *Log) (map[uint64]*Batch, error) {
	got := make(map[uint64]*Batch)
	var last Sequence
	err := l.Replay(context.Background(), 0, func(b *Batch) error {
		if b.Seq <= last {
			return fmt.Errorf("batch %s after %s", b.Seq, last)
		}
		last = b.Seq
		if b.Damaged != nil {
			return b.Damaged
		}
		if len(b.Records) == 0 && len(b.Frames) > 0 {
			return fmt.Errorf("batch %s has %d frames and no record", b.Seq, len(b.Frames))
		}
		for _, r := range b.Records {
			got[r.RecordSeq] = b
		}
		return nil
	})
	return got, err
}

// checkHolds compares a log with what is expected of it.
func checkHolds(l *Log, want []line) error {
	got, err := contents(l)
	if err != nil {
		return err
	}
	for i := range want {
		w := &want[i]
		b := got[w.recSeq]
		delete(got, w.recSeq)
		switch {
		case b == nil && w.fate == acked:
			return fmt.Errorf("acknowledged record %d is lost", w.recSeq)
		case b != nil && w.fate == withdrawn:
			return fmt.Errorf("withdrawn record %d is back in batch %s", w.recSeq, b.Seq)
		case b != nil && w.fate == dropped:
			return fmt.Errorf("dropped record %d is back in batch %s", w.recSeq, b.Seq)
		}
		if b == nil {
			continue
		}
		if err := checkBatch(l, b, w); err != nil {
			return fmt.Errorf("batch %s, record %d: %w", b.Seq, w.recSeq, err)
		}
	}
	if len(got) > 0 {
		return fmt.Errorf("%d records that nobody wrote", len(got))
	}
	if d := l.Damage(); len(d) > 0 {
		return fmt.Errorf("damage: %s", d[0])
	}
	return nil
}

// checkBatch compares a batch of one request with it.
func checkBatch(l *Log, b *Batch, w *line) error {
	if len(b.Records) != 1 || len(b.Frames) != len(w.frames) {
		return fmt.Errorf("%d records, %d frames; want 1 and %d", len(b.Records), len(b.Frames), len(w.frames))
	}
	if r := b.Records[0]; string(r.Key) != w.key || !bytes.Equal(r.Payload, w.payload) || r.Damaged != nil {
		return fmt.Errorf("record %q %q: %w", r.Key, r.Payload, r.Damaged)
	}
	for i, f := range b.Frames {
		if f.Damaged != nil {
			return f.Damaged
		}
		_, p, err := l.ReadFrame(f.Loc, nil)
		if err != nil {
			return err
		}
		if !bytes.Equal(p, w.frames[i]) {
			return fmt.Errorf("frame %d at %s has other content", i, f.Loc)
		}
	}
	return nil
}

// A crasher clones a file system at its operations, and checks every clone.
type crasher struct {
	t     testing.TB
	rng   *rand.Rand
	depth int // how often recovery itself is crashed

	// Of the crashes of a recovery one in sparse is tried.
	sparse int

	mu     sync.Mutex // operations come from several goroutines
	op     int
	images int
	failed bool
}

// attach wraps fs so that each of its changing operations is a crash point.
func (c *crasher) attach(fs *vfs.MemFS, level int, snapshot func() ([]line, Sequence)) *faultFS {
	return &faultFS{FS: fs, before: func(op fsOp) error {
		if !op.changes() {
			return nil
		}
		if level == 0 {
			c.mu.Lock()
			defer c.mu.Unlock()
		}
		c.op++
		if c.failed {
			return nil
		}
		want, next := snapshot()
		for i, percent := range []int{0, 100, 30 + c.rng.IntN(50), 50} {
			if level > 0 && c.rng.IntN(c.sparse) != 0 {
				continue // deeper levels are sampled
			}
			cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(c.rng.Uint64(), uint64(i)))}
			if err := c.check(fs.CrashClone(cfg), level, want, next); err != nil {
				c.failed = true
				c.t.Errorf("crash before operation %d (%s %s), level %d, %d %% of unsynced data: %v",
					c.op, op.name, op.path, level, percent, err)
				return nil
			}
		}
		return nil
	}}
}

// check recovers a crashed image, crashing on the way, and looks at the result.
func (c *crasher) check(image *vfs.MemFS, level int, want []line, next Sequence) error {
	c.images++
	// Nothing may be taken back once an Open has seen it and Start has
	// returned; until then what is in doubt stays in doubt.
	var fs vfs.FS = image
	decided := want
	if level < c.depth {
		fs = c.attach(image, level+1, func() ([]line, Sequence) { return decided, next })
	}
	l, err := Open(testOptions(fs))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if err := checkHolds(l, want); err != nil {
		return fmt.Errorf("after open: %w", err)
	}
	// What was seen by this Open must be seen by the next one too, unless the
	// crash takes unsynced data: only Start makes it durable.
	seen, err := contents(l)
	if err != nil {
		return err
	}
	if err := l.Start(context.Background()); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	settled := make([]line, len(want))
	copy(settled, want)
	for i := range settled {
		if s := &settled[i]; s.fate == pendingFate {
			s.fate = withdrawn
			if seen[s.recSeq] != nil {
				s.fate = acked
			}
		}
	}
	decided = settled
	if first, _ := l.Last(); first < next {
		return fmt.Errorf("sequence %s is used again: %s was next", first, next)
	}
	if err := checkHolds(l, settled); err != nil {
		return fmt.Errorf("after start: %w", err)
	}
	r := request("new", 1<<40+uint64(level))
	decided = append(settled[:len(settled):len(settled)], line{key: "new", recSeq: 1<<40 + uint64(level), payload: r.Records[0].Payload})
	seq, err := l.Commit(context.Background(), r)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	after := append([]line(nil), decided...)
	after[len(after)-1].fate = acked
	decided = after
	if err := l.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if l, err = Open(testOptions(image)); err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	defer l.Close()
	if err := checkHolds(l, after); err != nil {
		return fmt.Errorf("after the second open: %w", err)
	}
	if last, _ := l.Last(); last < seq {
		return fmt.Errorf("last is %s, want %s", last, seq)
	}
	return nil
}

// TestCrashEverywhere crashes small histories before every operation that
// changes the file system, and recoveries of those in turn.
func TestCrashEverywhere(t *testing.T) {
	seeds, steps, sparse := uint64(2), 12, 100
	if testing.Short() {
		seeds, steps, sparse = 1, 6, 300
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			c := &crasher{t: t, rng: rand.New(rand.NewPCG(seed, 1)), depth: 2, sparse: sparse}
			mem := vfs.NewCrashableMem()
			newStore(t, mem)
			h := &history{t: t, m: &model{}, rng: rand.New(rand.NewPCG(seed, 2))}
			var l *Log
			fs := c.attach(mem, 0, func() ([]line, Sequence) {
				if l == nil {
					return h.m.snapshot(), h.m.nextSeq
				}
				l.mu.RLock()
				defer l.mu.RUnlock()
				return h.m.snapshot(), l.nextSeq
			})
			for range 2 {
				l = nil
				opened := mustOpen(t, testOptions(fs))
				l, h.l = opened, opened
				if err := l.Start(context.Background()); err != nil {
					t.Fatal(err)
				}
				for range steps {
					if err := h.step(); err != nil {
						t.Fatal(err)
					}
				}
				if err := l.Seal(context.Background()); err != nil {
					t.Fatal(err)
				}
				if err := h.drop(); err != nil {
					t.Fatal(err)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				h.m.nextSeq = l.nextSeq
			}
			t.Logf("%d operations, %d crashes", c.op, c.images)
		})
	}
}

// TestAcceptedIsDurable kills the process, not the machine, at every sync of a
// batch: the next process finds what the disk may not have yet. What it takes
// for true must survive the machine.
func TestAcceptedIsDurable(t *testing.T) {
	accepted := 0
	for n := 0; ; n++ {
		mem := vfs.NewCrashableMem()
		newStore(t, mem)
		count, dead := 0, false
		var mu sync.Mutex
		fs := &faultFS{FS: mem, before: func(op fsOp) error {
			mu.Lock()
			defer mu.Unlock()
			if op.name == "syncdata" && op.segment() {
				dead = dead || count == n
				count++
			}
			if dead && op.changes() {
				return errGone
			}
			return nil
		}}
		h := &history{t: t, m: &model{}, rng: rand.New(rand.NewPCG(3, 9))}
		h.l = mustOpen(t, testOptions(fs))
		if h.l.Start(context.Background()) == nil {
			for range 8 {
				if h.commit([]int{100, 3000}, []int{200}) != nil {
					break
				}
			}
		}
		h.l.Close()
		if !dead {
			break
		}
		l := mustOpen(t, testOptions(mem))
		seen, err := contents(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		img := mem.CrashClone(vfs.CrashCloneCfg{})
		l.Close()
		l = mustOpen(t, testOptions(img))
		got, err := contents(l)
		if err != nil {
			t.Fatal(err)
		}
		for rec := range seen {
			if got[rec] == nil {
				t.Errorf("killed at sync %d: record %d was seen, and is lost", n, rec)
			}
		}
		want := h.m.snapshot()
		for i := range want {
			if want[i].fate != acked && seen[want[i].recSeq] != nil {
				accepted++
			}
			if want[i].fate == withdrawn {
				want[i].fate = pendingFate // the process could not take it back
			}
		}
		if err := checkHolds(l, want); err != nil {
			t.Errorf("killed at sync %d: %v", n, err)
		}
	}
	if accepted == 0 {
		t.Error("no batch was ever in doubt")
	}
}

// TestTailChanges: the unproved last batch reads well at Open, and otherwise
// at Start, when the disk is asked instead of the cache.
func TestTailChanges(t *testing.T) {
	mem := vfs.NewCrashableMem()
	newStore(t, mem)
	l := mustStart(t, testOptions(mem))
	r := request("k", 1, 300)
	mustCommit(t, l, r)
	img := copyLive(t, l, mem)
	l.Close()
	l = mustOpen(t, testOptions(img))
	defer l.Close()
	data, err := img.UnsafeGetFileDataBuffer(l.segmentPath(r.Locs[0].Segment))
	if err != nil {
		t.Fatal(err)
	}
	clear(data[r.Locs[0].Offset+100:][:100])
	if err := l.Start(context.Background()); !errors.Is(err, ErrDamaged) {
		t.Fatalf("start: %v", err)
	}
	l = mustStart(t, testOptions(img))
	if got, err := contents(l); err != nil || len(got) != 0 {
		t.Fatal(got, err)
	}
}
