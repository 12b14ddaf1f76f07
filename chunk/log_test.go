package chunk

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

// The real things fit.
var (
	_ Lookup = (*index.Index)(nil)
	_ Frames = (*seglog.Log)(nil)
	_ Spill  = (*seglog.Spill)(nil)
)

// real is a store over a log and an index in a file system in memory.
type real struct {
	t    *testing.T
	fs   *vfs.MemFS
	log  *seglog.Log
	idx  *index.Index
	s    *Store
	seq  uint64
	todo []applied // synced, not applied
}

type applied struct {
	seq    seglog.Sequence
	hash   seglog.Hash
	places []*Places
}

func newReal(t *testing.T) *real {
	k := &real{t: t, fs: vfs.NewMem()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(k.fs.MkdirAll("s", 0o700))
	must(seglog.Create(seglog.CreateOptions{FS: k.fs, Dir: "s", SegmentSize: 1 << 20}))
	var err error
	k.log, err = seglog.Open(seglog.Options{FS: k.fs, Dir: "s", IdleDelay: -1, OnCommit: func(c seglog.Committed) {
		a := applied{seq: c.Seq, hash: c.Hash}
		for _, r := range c.Requests {
			a.places = append(a.places, k.s.Publish(r.Tag.(*Writer).Placements(r.Locs)))
		}
		k.todo = append(k.todo, a)
	}})
	must(err)
	o := index.Options{FS: k.fs, Dir: "s/index", StoreID: k.log.StoreID()}
	k.idx, err = index.Open(o)
	var stale *index.StaleError
	if errors.As(err, &stale) {
		rb, err := index.NewRebuilder(o, index.RebuildOptions{})
		must(err)
		must(rb.FinishLocations())
		k.idx, err = rb.Finish(0, [32]byte{})
		must(err)
	} else {
		must(err)
	}
	k.s, err = NewStore(StoreOptions{Index: k.idx, Log: k.log, NodeID: testNodeID, PageCacheBytes: -1, NodeCacheBytes: -1})
	must(err)
	must(k.log.Start(context.Background()))
	t.Cleanup(func() {
		must(k.log.Close())
		must(k.idx.Close())
	})
	return k
}

func (k *real) commit(w *Writer) {
	k.t.Helper()
	frames, ranges, err := w.Finish()
	if err != nil {
		k.t.Fatal(err)
	}
	k.seq++
	req := &seglog.Request{
		Frames: frames, Ranges: ranges, Tag: w,
		Records: []seglog.NewRecord{{Key: []byte("k"), RecordSeq: k.seq, Payload: []byte("r")}},
	}
	if _, err := k.log.Commit(context.Background(), req); err != nil {
		k.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		k.t.Fatal(err)
	}
}

func (k *real) apply() {
	for _, a := range k.todo {
		b := k.idx.NewBatch()
		for _, places := range a.places {
			for _, p := range places.List {
				b.SetEntry(p.Key, index.Entry{Location: p.Loc, Count: 1, Node: p.Node})
			}
		}
		b.SetWatermark(uint64(a.seq), a.hash)
		if err := b.Commit(); err != nil {
			k.t.Fatal(err)
		}
		for _, places := range a.places {
			k.s.Retire(places)
		}
	}
	k.todo = nil
}

// A small take in the commit stream and a large one in the bulk stream read back
// whole, before and after they are applied; the second meets what the first
// brought.
func TestOnLog(t *testing.T) {
	k := newReal(t)
	ctx := context.Background()
	m := make(image, 3000)
	for i := range m {
		m[i] = uint64(i)
	}
	read := func(m image) {
		t.Helper()
		ids := make([]ID, len(m))
		for i := range m {
			ids[i] = m.id(i)
		}
		kk := &kit{t: t, s: k.s}
		refs, check := kk.refs(ids)
		for i := range refs {
			refs[i].Dst[0]++
		}
		if err := k.s.Pages(ctx, refs); err != nil {
			t.Fatal(err)
		}
		check()
	}
	pins := k.s.NewPins()
	for _, n := range []int{20, 3000} {
		w := k.s.NewWriter(WriterOptions{Codec: CodecS2, Pins: pins, SpillAfter: 1 << 20, Spill: func() (Spill, error) { return k.log.Spill(seglog.StreamBulk) }})
		st, err := w.Ingest(ctx, m[:n].all(), nil, func(i uint64, _ ID) error { return w.AddNode(testNode(int(i))) })
		if err != nil {
			t.Fatal(err)
		}
		if n == 3000 && (st.Shared != 19 || st.New != 2980) {
			t.Fatalf("%+v", st)
		}
		k.commit(w)
		read(m[:n])
	}
	if k.log.Stats().BulkBytes == 0 {
		t.Fatal("nothing went to the bulk stream")
	}
	if k.s.Stats().Published != 2999+2999 {
		t.Fatalf("%d published", k.s.Stats().Published)
	}
	k.apply()
	if k.s.Stats().Published != 0 {
		t.Fatalf("%d published", k.s.Stats().Published)
	}
	read(m)
	for i := 1; i < 3000; i += 7 {
		id, node := testNode(i)
		if got, err := k.s.Node(ctx, id); err != nil || !bytes.Equal(got, node) {
			t.Fatal(err)
		}
	}
	pins.Release()

	// An index that is not trusted any more meets nothing, and the take goes on.
	k.idx.MarkUntrusted(errDisk)
	pins = k.s.NewPins()
	w := k.s.NewWriter(WriterOptions{Codec: CodecS2, Pins: pins})
	st, err := w.Ingest(ctx, m[:20].all(), nil, func(uint64, ID) error { return nil })
	if err != nil || st.New != 19 || len(pins.ids) != 0 {
		t.Fatalf("%+v, %d pinned, %v", st, len(pins.ids), err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// Any byte of any frame that changes on the disk is found, by whoever reads that
// frame, and by nobody else.
func TestAnyByteOnDisk(t *testing.T) {
	k := newReal(t)
	ctx := context.Background()
	w := k.s.NewWriter(WriterOptions{NoDedup: true})
	for i, codec := range codecs {
		n := 2
		if codec.inParts() {
			n = partPages + 1
		}
		ids, pages := fillPages(uint64(1+30*i), n)
		if err := w.AddGroup(Domain{}, codec, ids, pages); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if err := w.AddNode(testNode(i)); err != nil {
			t.Fatal(err)
		}
	}
	k.commit(w)
	places := w.Placements(nil)
	for _, a := range k.todo {
		for _, p := range a.places {
			places = append(places, p.List...)
		}
	}
	k.apply()
	if len(places) != 19 {
		t.Fatalf("%d placements", len(places))
	}
	path := ""
	for _, si := range k.log.Segments() {
		if uint64(si.ID) == places[0].Loc.Segment {
			path = si.Path
		}
	}
	f, err := k.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Who reads frames as a whole sees each of them.
	read := func(p Placement) error {
		if p.Node {
			_, err := k.s.Node(ctx, ID(p.Key))
			return err
		}
		return k.s.Direct().Page(ID(p.Key), make([]byte, PageSize))
	}
	// Others are served pages that are whole.
	whole, not := 0, 0
	serve := func(p Placement) error {
		dst := make([]byte, PageSize)
		err := k.s.PagesOnce(ctx, []PageRef{{ID: ID(p.Key), Dst: dst}})
		switch {
		case errors.Is(err, ErrCorrupt):
			not++
		case err != nil:
			return err
		case Sum(dst) != ID(p.Key):
			return errors.New("served as whole, and is not")
		default:
			whole++
		}
		return nil
	}
	first, last := places[0].Loc, places[len(places)-1].Loc
	end := int64(last.Offset) + int64(last.Length)
	for off := int64(first.Offset); off < end; off++ {
		var b [1]byte
		if _, err := f.ReadAt(b[:], off); err != nil {
			t.Fatal(err)
		}
		b[0] ^= byte(1 << (off % 8))
		if _, err := f.WriteAt(b[:], off); err != nil {
			t.Fatal(err)
		}
		for _, p := range places {
			inside := off >= int64(p.Loc.Offset) && off < int64(p.Loc.Offset)+int64(p.Loc.Length)
			if !inside && off%16 > 0 { // others often enough
				continue
			}
			if err := read(p); errors.Is(err, ErrCorrupt) != inside || !inside && err != nil {
				t.Fatalf("byte %d, %v: %v", off, p.Loc, err)
			}
			if inside && !p.Node && off%8 == 0 {
				if err := serve(p); err != nil {
					t.Fatalf("byte %d, %v: %v", off, p.Loc, err)
				}
			}
		}
		b[0] ^= byte(1 << (off % 8))
		if _, err := f.WriteAt(b[:], off); err != nil {
			t.Fatal(err)
		}
	}
	if whole == 0 || not == 0 {
		t.Errorf("%d pages served of damaged frames, %d not", whole, not)
	}
}
