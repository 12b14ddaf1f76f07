package chunk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/zeebo/blake3"
	"go.uber.org/goleak"

	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newRand is seeded by SEED, or by chance; a failing test says by what.
func newRand(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	if s := os.Getenv("SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}

// patterns are the pages that fill has made.
var patterns sync.Map // uint64 -> *pattern

type pattern struct {
	page [PageSize]byte
	id   ID
}

// fill writes a page that compresses about as real memory does, the same for
// the same n; every third one does not compress at all.
func fill(page []byte, n uint64) []byte {
	copy(page, patternOf(n).page[:])
	return page
}

func idOf(n uint64) ID { return patternOf(n).id }

func patternOf(n uint64) *pattern {
	if p, ok := patterns.Load(n); ok {
		return p.(*pattern)
	}
	p := new(pattern)
	draw(p.page[:], n)
	p.id = Sum(p.page[:])
	patterns.Store(n, p)
	return p
}

func draw(page []byte, n uint64) {
	r := rand.New(rand.NewPCG(n, 2))
	for i := 0; i < len(page); i += 8 {
		v := r.Uint64()
		if n%3 != 0 {
			v &= 0x0f0f
			if i%32 != 0 {
				v = uint64(i)
			}
		}
		binary.LittleEndian.PutUint64(page[i:], v)
	}
	binary.LittleEndian.PutUint64(page, n+1) // never a page of zeros
}

func pageOf(n uint64) []byte { return fill(make([]byte, PageSize), n) }

func fillPages(first uint64, n int) ([]ID, []byte) {
	pages := make([]byte, n*PageSize)
	ids := make([]ID, n)
	for i := range n {
		p := pages[i*PageSize : (i+1)*PageSize]
		fill(p, first+uint64(i))
		ids[i] = idOf(first + uint64(i))
	}
	return ids, pages
}

// fakeIndex is an index in a map. Its hooks run without its lock.
type fakeIndex struct {
	mu     sync.Mutex
	at     map[index.ID]index.Entry
	gets   int
	onGet  func(ID)
	onMay  func(ID)
	getErr error
}

func (x *fakeIndex) Get(id index.ID) (index.Entry, bool, error) {
	x.mu.Lock()
	hook, err := x.onGet, x.getErr
	x.gets++
	x.mu.Unlock()
	if hook != nil {
		hook(ID(id))
	}
	if err != nil {
		return index.Entry{}, false, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	e, ok := x.at[id]
	return e, ok, nil
}

func (x *fakeIndex) MayContainEach(ids []index.ID, may []bool) {
	for i := range ids {
		may[i] = x.MayContain(ids[i])
	}
}

func (x *fakeIndex) MayContain(id index.ID) bool {
	x.mu.Lock()
	hook := x.onMay
	x.mu.Unlock()
	if hook != nil {
		hook(ID(id))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	_, ok := x.at[id]
	return ok
}

func (x *fakeIndex) set(id ID, e index.Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.at[index.ID(id)] = e
}

// apply enters placements as the applier would, counting each once.
func (x *fakeIndex) apply(places []Placement) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range places {
		e, ok := x.at[p.Key]
		if !ok || e.Lost {
			e.Location, e.Node, e.Lost = p.Loc, p.Node, false
		}
		e.Count++
		x.at[p.Key] = e
	}
}

// fakeLog keeps frames in memory. before runs, without its lock, ahead of each
// read, and may answer instead.
type fakeLog struct {
	mu      sync.Mutex
	frames  map[seglog.Loc]seglog.NewFrame
	next    map[seglog.SegmentID]uint32
	before  func(seglog.Loc) error
	reads   map[seglog.Loc]int  // whole
	partial int                 // bytes read by ReadPart
	lie     map[seglog.Loc]bool // ReadPart of these gives other bytes
}

func (l *fakeLog) write(seg seglog.SegmentID, kind seglog.Kind, payload []byte) seglog.Loc {
	l.mu.Lock()
	defer l.mu.Unlock()
	loc := seglog.Loc{Segment: seg, Offset: l.next[seg], Length: uint32(64 + len(payload))}
	l.next[seg] += (loc.Length + 63) &^ 63
	l.frames[loc] = seglog.NewFrame{Kind: kind, Payload: append([]byte(nil), payload...)}
	return loc
}

func (l *fakeLog) ReadFrame(loc seglog.Loc, buf []byte) (seglog.Kind, []byte, error) {
	l.mu.Lock()
	l.reads[loc]++
	l.mu.Unlock()
	f, err := l.frame(loc)
	return f.Kind, append(buf[:0], f.Payload...), err
}

// ReadOn sees the frame behind only where buf has room, as the log does.
func (l *fakeLog) ReadOn(loc seglog.Loc, buf []byte, peek int) (seglog.Kind, []byte, seglog.Behind, error) {
	kind, payload, err := l.ReadFrame(loc, buf)
	var next seglog.Behind
	l.mu.Lock()
	defer l.mu.Unlock()
	at := loc.Offset + (loc.Length+63)&^63
	for behind, f := range l.frames {
		if behind.Segment == loc.Segment && behind.Offset == at && cap(buf) >= len(payload)+128+peek {
			head := append([]byte(nil), f.Payload[:min(peek, len(f.Payload))]...)
			next = seglog.Behind{Loc: behind, Kind: f.Kind, Head: head}
		}
	}
	return kind, payload, next, err
}

func (l *fakeLog) ReadPart(loc seglog.Loc, off int, buf []byte) error {
	f, err := l.frame(loc)
	if err == nil && copy(buf, f.Payload[min(off, len(f.Payload)):]) < len(buf) {
		err = io.ErrUnexpectedEOF
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial += len(buf)
	if l.lie[loc] {
		buf[len(buf)/2] ^= 1
	}
	return err
}

func (l *fakeLog) frame(loc seglog.Loc) (seglog.NewFrame, error) {
	l.mu.Lock()
	before := l.before
	l.mu.Unlock()
	if before != nil {
		if err := before(loc); err != nil {
			return seglog.NewFrame{}, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.frames[loc]
	if !ok {
		return f, seglog.ErrSegmentGone
	}
	return f, nil
}

func (l *fakeLog) drop(seg seglog.SegmentID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for loc := range l.frames {
		if loc.Segment == seg {
			delete(l.frames, loc)
		}
	}
}

// change hands the payload at loc to fn, in place.
func (l *fakeLog) change(loc seglog.Loc, fn func([]byte)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn(l.frames[loc].Payload)
}

// fakeSpill writes to a segment of the fake log.
type fakeSpill struct {
	l       *fakeLog
	seg     seglog.SegmentID
	flushed bool
	closed  int
	left    int // appends until one fails; 0 = never
}

var errDisk = errors.New("disk trouble")

func (s *fakeSpill) Append(kind seglog.Kind, payload []byte) (seglog.Loc, error) {
	if s.left > 0 {
		if s.left--; s.left == 0 {
			return seglog.Loc{}, errDisk
		}
	}
	return s.l.write(s.seg, kind, payload), nil
}
func (s *fakeSpill) Flush() error { s.flushed = true; return nil }
func (s *fakeSpill) Ranges() []seglog.Range {
	return []seglog.Range{{Segment: s.seg, Start: 0, End: s.l.next[s.seg]}}
}
func (s *fakeSpill) Close() error { s.closed++; return nil }

// A test node is "node" and anything.
func testNodeID(node []byte) (ID, error) {
	if len(node) < 4 || string(node[:4]) != "node" {
		return ID{}, errors.New("not a node")
	}
	return ID(blake3.Sum256(append([]byte("kind"), node...))), nil
}

func testNode(n int) (ID, []byte) {
	node := append([]byte("node"), make([]byte, 8+n%500)...)
	binary.LittleEndian.PutUint64(node[4:], uint64(n))
	id, _ := testNodeID(node)
	return id, node
}

// kit is a store over fakes.
type kit struct {
	t   testing.TB
	x   *fakeIndex
	l   *fakeLog
	s   *Store
	mu  sync.Mutex
	los []ID // what OnLost was told
	seg seglog.SegmentID
}

func newKit(t testing.TB, set func(*StoreOptions)) *kit {
	k := &kit{
		t: t, seg: 1,
		x: &fakeIndex{at: map[index.ID]index.Entry{}},
		l: &fakeLog{frames: map[seglog.Loc]seglog.NewFrame{}, next: map[seglog.SegmentID]uint32{}, reads: map[seglog.Loc]int{}},
	}
	o := StoreOptions{Index: k.x, Log: k.l, NodeID: testNodeID, Workers: 3, OnLost: func(key Key, _ *CorruptionError) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.los = append(k.los, ID(key))
	}}
	if set != nil {
		set(&o)
	}
	var err error
	if k.s, err = NewStore(o); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *kit) lost() []ID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]ID(nil), k.los...)
}

// sync writes the frames of a finished writer, as a commit would.
func (k *kit) sync(w *Writer) []Placement {
	frames, _, err := w.Finish()
	if err != nil {
		k.t.Fatal(err)
	}
	locs := make([]seglog.Loc, len(frames))
	for i, f := range frames {
		locs[i] = k.l.write(k.seg, f.Kind, f.Payload)
	}
	return w.Placements(locs)
}

// store puts pages and nodes into log and index and closes the writer.
func (k *kit) store(w *Writer) []Placement {
	places := k.sync(w)
	k.x.apply(places)
	if err := w.Close(); err != nil {
		k.t.Fatal(err)
	}
	return places
}

// put stores n pages numbered from first in groups of 16.
func (k *kit) put(first uint64, n int) []ID {
	w := k.s.NewWriter(WriterOptions{Codec: CodecS2Parts, NoDedup: true})
	var ids []ID
	for n > 0 {
		m := min(n, GroupPages)
		some, pages := fillPages(first, m)
		if err := w.AddGroup(Domain{}, CodecS2Parts, some, pages); err != nil {
			k.t.Fatal(err)
		}
		ids = append(ids, some...)
		first, n = first+uint64(m), n-m
	}
	k.store(w)
	return ids
}

// idle checks that every pooled buffer came back.
func (k *kit) idle() {
	k.t.Helper()
	if n := k.s.raws.Out(); n != 0 {
		k.t.Errorf("%d page buffers are still lent", n)
	}
	if n := k.s.frames.Out(); n != 0 {
		k.t.Errorf("%d frame buffers are still lent", n)
	}
}

// An image is a section in memory: which pattern stands at which page, 0 = zeros.
type image []uint64

func (m image) page(buf []byte, i int) []byte {
	if m[i] == 0 {
		clear(buf)
		return buf
	}
	return fill(buf, m[i])
}

func (m image) id(i int) ID {
	if m[i] == 0 {
		return ID{}
	}
	return idOf(m[i])
}

// all yields every page, from one buffer that is overwritten each time.
func (m image) all() iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		buf := make([]byte, PageSize)
		for i := range m {
			if !yield(uint64(i), m.page(buf, i)) {
				return
			}
		}
	}
}

func (m image) base(idx []uint64, out []ID) error {
	for k, i := range idx {
		if i < uint64(len(m)) {
			out[k] = m.id(int(i))
		}
	}
	return nil
}

// ingest takes m on top of base and checks what the sink is told.
func (k *kit) ingest(w *Writer, m, base image) IngestStats {
	k.t.Helper()
	next := 0
	st, err := w.Ingest(context.Background(), m.all(), base.base, func(i uint64, id ID) error {
		for ; next < int(i); next++ {
			if want := m.id(next); want != base.at(next) {
				return fmt.Errorf("page %d differs and the sink was not told", next)
			}
		}
		next++
		if id != m.id(int(i)) {
			return fmt.Errorf("page %d: sink got %v", i, id)
		}
		if id == base.at(int(i)) {
			return fmt.Errorf("page %d is as in the base and the sink was told", i)
		}
		return nil
	})
	if err != nil {
		k.t.Fatal(err)
	}
	for ; next < len(m); next++ {
		if m.id(next) != base.at(next) {
			k.t.Fatalf("page %d differs and the sink was not told", next)
		}
	}
	if st.Pages != st.Zero+st.Unchanged+st.Shared+st.New || st.Pages != uint64(len(m)) || st.RawBytes != st.New*PageSize {
		k.t.Fatalf("stats do not add up: %+v", st)
	}
	return st
}

func (m image) at(i int) ID {
	if i < len(m) {
		return m.id(i)
	}
	return ID{}
}
