package chunk

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

func (k *kit) page(id ID) ([]byte, error) {
	dst := bytes.Repeat([]byte{0xee}, PageSize)
	err := k.s.Page(id, dst)
	if err != nil && !bytes.Equal(dst, bytes.Repeat([]byte{0xee}, PageSize)) {
		k.t.Fatal("a failed read wrote to dst")
	}
	if err == nil && Sum(dst) != id {
		k.t.Fatalf("%v: other bytes were served", id)
	}
	return dst, err
}

func (k *kit) where(id ID) seglog.Loc {
	k.x.mu.Lock()
	defer k.x.mu.Unlock()
	return frameLoc(k.x.at[index.ID(id)].Location)
}

func TestPage(t *testing.T) {
	for _, cache := range []int64{0, -1} {
		k := newKit(t, func(o *StoreOptions) { o.PageCacheBytes = cache })
		ids := k.put(0, 100)
		for range 2 {
			for i, id := range ids {
				if got, err := k.page(id); err != nil || !bytes.Equal(got, pageOf(uint64(i))) {
					t.Fatalf("page %d: %v", i, err)
				}
			}
		}
		if got, err := k.page(ID{}); err != nil || !isZero(got) {
			t.Fatalf("zero page: %v", err)
		}
		if _, err := k.page(ID{1}); !errors.Is(err, ErrNotStored) || errors.Is(err, ErrCorrupt) {
			t.Fatalf("not stored: %v", err)
		}
		if err := k.s.Page(ids[0], make([]byte, 7)); err == nil {
			t.Fatal("a short dst")
		}
		st := k.s.Stats()
		if cache == 0 && st.Groups != 25 || cache < 0 && st.Groups != 200 {
			t.Fatalf("%d groups decoded", st.Groups)
		}
		if cache == 0 && st.Lookups != 26 { // 25 parts of groups and the one that is not stored
			t.Fatalf("%d look-ups", st.Lookups)
		}
		if len(k.lost()) != 0 {
			t.Fatal("something is lost")
		}
		k.idle()
	}
}

// What is published is found before the index is asked.
func TestPagePublished(t *testing.T) {
	k := newKit(t, nil)
	w := k.s.NewWriter(WriterOptions{})
	ids, pages := fillPages(0, 3)
	if err := w.AddGroup(Domain{}, CodecS2, ids, pages); err != nil {
		t.Fatal(err)
	}
	places := k.sync(w)
	if _, err := k.page(ids[1]); !errors.Is(err, ErrNotStored) {
		t.Fatalf("seen before it is published: %v", err)
	}
	k.s.Publish(places)
	if _, err := k.page(ids[1]); err != nil {
		t.Fatal(err)
	}
	w.Close()
}

// Bytes that rot in the log are found, whichever they are; what rots in the
// cache before it was verified is not served either.
func TestPageDamage(t *testing.T) {
	for _, codec := range codecs {
		k := newKit(t, func(o *StoreOptions) { o.PageCacheBytes = -1 })
		w := k.s.NewWriter(WriterOptions{})
		ids, pages := fillPages(1, 2)
		if err := w.AddGroup(Domain{}, codec, ids, pages); err != nil {
			t.Fatal(err)
		}
		k.store(w)
		loc := k.where(ids[0])
		n := int(loc.Length) - 64
		for i := range n {
			if i > groupHeader+2*idSize && i%3 > 0 {
				continue // enough of the data
			}
			flip := func(b []byte) { b[i] ^= 1 << (i % 8) }
			k.l.change(loc, flip)
			lost := 0
			for p, id := range ids {
				got, err := k.page(id)
				if err == nil && !bytes.Equal(got, pages[p*PageSize:(p+1)*PageSize]) {
					t.Fatalf("%v: byte %d: wrong page", codec, i)
				}
				if err != nil {
					lost++
					var ce *CorruptionError
					if !errors.As(err, &ce) || !errors.Is(err, ErrCorrupt) || ce.ID != id || ce.Node || ce.Segment != 1 || ce.Offset != loc.Offset || ce.Err == nil {
						t.Fatalf("%v: byte %d: %v", codec, i, err)
					}
				}
			}
			if got := len(k.lost()); got != lost {
				t.Fatalf("%v: byte %d: %d lost, %d reported", codec, i, lost, got)
			}
			k.los = nil
			if i >= groupHeader+2*idSize && codec == CodecRaw && lost != 1 {
				t.Fatalf("raw: byte %d: %d pages are damaged", i, lost)
			}
			if i < groupHeader && lost != 2 {
				t.Fatalf("%v: header byte %d: %d pages are damaged", codec, i, lost)
			}
			k.l.change(loc, flip)
		}
		k.idle()
	}
}

// Damage on the way, gone at the second look, is no damage.
func TestSecondLook(t *testing.T) {
	frameErr := &seglog.FrameError{File: "x.seg", Reason: "checksum"}
	for name, first := range map[string]error{"frame": frameErr, "gone": seglog.ErrSegmentGone} {
		k := newKit(t, nil)
		id := k.put(0, 5)[3]
		nid, node := testNode(1)
		w := k.s.NewWriter(WriterOptions{})
		if err := w.AddNode(nid, node); err != nil {
			t.Fatal(err)
		}
		k.store(w)
		once := func() {
			n := 0
			k.l.before = func(seglog.Loc) error {
				if n++; n == 1 {
					return first
				}
				return nil
			}
		}
		once()
		if _, err := k.page(id); err != nil {
			t.Fatalf("%s: page: %v", name, err)
		}
		once()
		if got, err := k.s.Node(context.Background(), nid); err != nil || !bytes.Equal(got, node) {
			t.Fatalf("%s: node: %v", name, err)
		}
		once()
		dst := make([]byte, PageSize)
		k.s.pages = newPageCache(0)
		if err := k.s.Pages(context.Background(), []PageRef{{ID: id, Dst: dst}}); err != nil || Sum(dst) != id {
			t.Fatalf("%s: pages: %v", name, err)
		}
		if len(k.lost()) != 0 {
			t.Fatalf("%s: called lost", name)
		}
		// For ever, it is lost, after as many looks as the rule says.
		clear(k.l.reads)
		k.l.before = func(seglog.Loc) error { return first }
		if _, err := k.page(id); !errors.Is(err, ErrCorrupt) || !errors.Is(err, first) {
			t.Fatalf("%s: %v", name, err)
		}
		if want := map[string]int{"frame": 2, "gone": goneTries}[name]; k.l.reads[k.where(id)] != want {
			t.Fatalf("%s: %d reads, want %d", name, k.l.reads[k.where(id)], want)
		}
		if !slices.Equal(k.lost(), []ID{id}) {
			t.Fatalf("%s: lost: %v", name, k.lost())
		}
	}
}

// Trouble that says nothing about the content is passed on and nothing is lost.
func TestOtherTrouble(t *testing.T) {
	k := newKit(t, nil)
	id := k.put(0, 5)[3]
	k.l.before = func(seglog.Loc) error { return seglog.ErrClosed }
	_, err := k.page(id)
	err2 := k.s.Pages(context.Background(), []PageRef{{ID: id, Dst: make([]byte, PageSize)}})
	for _, err := range []error{err, err2} {
		if !errors.Is(err, seglog.ErrClosed) || errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	}
	k.l.before = nil
	k.x.getErr = errDisk
	if _, err := k.page(id); !errors.Is(err, errDisk) || errors.Is(err, ErrNotStored) {
		t.Fatal(err)
	}
	if len(k.lost()) != 0 {
		t.Fatal("called lost")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := k.s.Pages(ctx, []PageRef{{ID: id, Dst: make([]byte, PageSize)}}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := k.s.Node(ctx, ID{1}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	k.idle()
}

// Cleaning moves a page and drops its segment under a reader.
func TestMovedUnderReader(t *testing.T) {
	k := newKit(t, func(o *StoreOptions) { o.PageCacheBytes = -1 })
	ids := k.put(0, 40)
	moved := false
	k.l.before = func(seglog.Loc) error {
		if moved {
			return nil
		}
		moved = true
		k.x.mu.Lock()
		clear(k.x.at)
		k.x.mu.Unlock()
		k.seg = 2
		k.put(0, 40)
		k.l.drop(1)
		return nil
	}
	refs, check := k.refs(ids)
	if err := k.s.Pages(context.Background(), refs); err != nil {
		t.Fatal(err)
	}
	check()
	moved = false
	k.seg = 3
	k.l.before = nil
	if _, err := k.page(ids[0]); err != nil {
		t.Fatal(err)
	}
}

// An index that points to the wrong slot, or to a frame of another kind, does
// not make the store serve other bytes.
func TestWrongPlace(t *testing.T) {
	k := newKit(t, nil)
	ids := k.put(0, 16)
	nid, node := testNode(5)
	w := k.s.NewWriter(WriterOptions{})
	if err := w.AddNode(nid, node); err != nil {
		t.Fatal(err)
	}
	k.store(w)
	page, nodes := k.x.at[index.ID(ids[0])], k.x.at[index.ID(nid)]
	for _, slot := range []uint8{1, 15, 16, 255} {
		e := page
		e.Slot, e.Slots = slot, slot+1
		k.x.set(ids[0], e)
		if _, err := k.page(ids[0]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("slot %d: %v", slot, err)
		}
	}
	// An entry that says itself that it is of the other kind damages nothing.
	k.x.set(ids[0], nodes)
	if _, err := k.page(ids[0]); !errors.Is(err, ErrNotStored) {
		t.Fatal(err)
	}
	for _, e := range []index.Entry{page, {Location: index.Location{Segment: nodes.Segment, Offset: nodes.Offset, Length: nodes.Length, Slot: 3, Slots: 4}}} {
		k.x.set(nid, e)
		if _, err := k.s.Node(context.Background(), nid); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotStored) {
			t.Fatal(err)
		}
	}
	k.idle()
}

func TestNodes(t *testing.T) {
	k := newKit(t, nil)
	w := k.s.NewWriter(WriterOptions{})
	var ids []ID
	var nodes [][]byte
	for i := range 40 {
		id, node := testNode(i)
		ids, nodes = append(ids, id), append(nodes, node)
		if err := w.AddNode(id, node); err != nil {
			t.Fatal(err)
		}
		if err := w.AddNode(id, node); err != nil { // only once
			t.Fatal(err)
		}
	}
	big := append([]byte("node"), make([]byte, MaxNode-4)...)
	bigID, _ := testNodeID(big)
	if err := w.AddNode(bigID, big); err != nil {
		t.Fatal(err)
	}
	if err := w.AddNode(bigID, append(big, 0)); err == nil {
		t.Fatal("a node beyond the limit")
	}
	if err := w.AddNode(ID{}, nodes[0]); err == nil {
		t.Fatal("a node with the zero id")
	}
	places := k.store(w)
	if len(places) != 41 {
		t.Fatalf("%d placements", len(places))
	}
	for _, p := range places {
		if !p.Node {
			t.Fatal("a node is placed as a page")
		}
	}
	ctx := context.Background()
	for i, id := range ids {
		got, err := k.s.Node(ctx, id)
		if err != nil || !bytes.Equal(got, nodes[i]) {
			t.Fatalf("node %d: %v", i, err)
		}
	}
	if got, err := k.s.Node(ctx, bigID); err != nil || !bytes.Equal(got, big) {
		t.Fatal(err)
	}
	if st := k.s.Stats(); st.Frames != 3 || st.NodeHits != 38 {
		t.Fatalf("%+v", st)
	}
	if _, err := k.s.Node(ctx, ID{}); !errors.Is(err, ErrNotStored) {
		t.Fatal(err)
	}

	// Rot: in a fresh store each time, since the first has them in its cache.
	loc := k.where(ids[0])
	for i := range int(loc.Length) - 64 {
		s, err := NewStore(StoreOptions{Index: k.x, Log: k.l, NodeID: testNodeID})
		if err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 { // any byte, in less time
			k.l.change(loc, func(b []byte) { b[i] ^= 0x20 })
			bad := 0
			for n, id := range ids[:16] {
				got, err := s.Node(ctx, id)
				if err == nil && !bytes.Equal(got, nodes[n]) {
					t.Fatalf("byte %d: wrong node", i)
				}
				if err != nil {
					bad++
					var ce *CorruptionError
					if !errors.As(err, &ce) || !ce.Node || ce.ID != id {
						t.Fatal(err)
					}
				}
			}
			if bad == 0 {
				t.Fatalf("byte %d: damage was not seen", i)
			}
			k.l.change(loc, func(b []byte) { b[i] ^= 0x20 })
		}
	}
	k.idle()
}

func TestKeepNode(t *testing.T) {
	k := newKit(t, func(o *StoreOptions) { o.NodeCacheBytes = 16 * 4096 })
	id, node := testNode(1)
	k.s.keepNode(id, node)
	want := bytes.Clone(node)
	node[0] = 'x' // the cache has its own copy
	if got, err := k.s.Node(context.Background(), id); err != nil || !bytes.Equal(got, want) {
		t.Fatal(err)
	}
	for i := range 5000 {
		id, node := testNode(i)
		k.s.keepNode(id, node)
		if n := k.s.Stats().NodeCacheBytes; n > 16*4096 {
			t.Fatalf("%d bytes cached", n)
		}
	}
	if k.s.Stats().NodeCacheBytes < 8*4096 {
		t.Fatal("hardly anything cached")
	}
	// Nothing of a cache that is off.
	off := newKit(t, func(o *StoreOptions) { o.NodeCacheBytes = -1 })
	off.s.keepNode(id, want)
	if off.s.Stats().NodeCacheBytes != 0 {
		t.Fatal("cached in a cache that is off")
	}
}

// The page cache stays within its limit, keeps what is read again, and does not
// serve a page that it holds and that is not what its ID names.
func TestPageCache(t *testing.T) {
	const groups, parts = 8, GroupPages / partPages
	k := newKit(t, func(o *StoreOptions) { o.PageCacheBytes = groups * 70_000 })
	ids := k.put(0, 100*GroupPages)
	for i := range ids {
		if _, err := k.page(ids[i]); err != nil {
			t.Fatal(err)
		}
		if _, err := k.page(ids[0]); err != nil { // stays
			t.Fatal(err)
		}
		if n := k.s.Stats().PageCacheBytes; n > groups*70_000 {
			t.Fatalf("%d bytes cached", n)
		}
	}
	if st := k.s.Stats(); st.Groups > 100*parts+2 { // the hand may come round once before it is read again
		t.Fatalf("%d groups decoded", st.Groups)
	}
	entries := 0
	for i := range k.s.pages.shards {
		entries += len(k.s.pages.shards[i].at)
	}
	if entries != len(k.s.pages.ring)*partPages {
		t.Fatalf("%d entries for %d parts", entries, len(k.s.pages.ring))
	}

	// A neighbour that was never verified turns out to be damaged: it is read
	// again, past the cache.
	k = newKit(t, nil)
	ids = k.put(0, GroupPages)
	loc := k.where(ids[0])
	k.l.change(loc, func(b []byte) { b[len(b)-1] ^= 1 })
	whole := k.l.frames[loc].Payload
	for _, id := range ids {
		_, _ = k.page(id) // some fail
	}
	k.l.change(loc, func(b []byte) { b[len(b)-1] ^= 1 })
	for _, id := range ids {
		if _, err := k.page(id); err != nil {
			t.Fatalf("healed and not read: %v (%d bytes)", err, len(whole))
		}
	}
}

// The memory of a group that is evicted goes to the next one, and never while
// somebody still copies from it.
func TestPageCacheUnderReaders(t *testing.T) {
	k := newKit(t, func(o *StoreOptions) { o.PageCacheBytes = 2 * 70_000 })
	ids := k.put(0, 12*GroupPages)
	var readers sync.WaitGroup
	for w := range 8 {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			var dst [PageSize]byte
			for range 3000 {
				id := ids[rng.IntN(len(ids))]
				if err := k.s.Page(id, dst[:]); err != nil {
					t.Errorf("page %v: %v", id, err)
					return
				}
				if Sum(dst[:]) != id {
					t.Errorf("page %v: other bytes", id)
					return
				}
			}
		})
	}
	readers.Wait()
	if out, ring := k.s.pages.whole.Out()+k.s.pages.partial.Out(), len(k.s.pages.ring); out != int64(ring) {
		t.Errorf("%d pieces of memory are lent, and %d parts of groups are kept", out, ring)
	}
}

// Direct sees rot below what the caches hold, and leaves nothing in them.
func TestDirect(t *testing.T) {
	k := newKit(t, nil)
	ctx := context.Background()
	ids := k.put(0, 3)
	nid, node := testNode(1)
	w := k.s.NewWriter(WriterOptions{})
	if err := w.AddNode(nid, node); err != nil {
		t.Fatal(err)
	}
	k.store(w)
	dst := make([]byte, PageSize)
	read := func() (page, pages, nodes error) {
		d := k.s.Direct()
		page = d.Page(ids[0], dst)
		pages = d.Pages(ctx, []PageRef{{ID: ids[0], Dst: dst}})
		_, nodes = d.Node(ctx, nid)
		return page, pages, nodes
	}
	if a, b, c := read(); a != nil || b != nil || c != nil {
		t.Fatal(a, b, c)
	}
	if st := k.s.Stats(); st.PageCacheBytes+st.NodeCacheBytes != 0 {
		t.Fatalf("%+v", st)
	}
	if _, err := k.page(ids[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := k.s.Node(ctx, nid); err != nil {
		t.Fatal(err)
	}
	k.l.change(k.where(ids[0]), func(b []byte) { b[groupHeader] ^= 1 })
	k.l.change(k.where(nid), func(b []byte) { b[len(b)-1] ^= 1 })
	if a, b, c := read(); !errors.Is(a, ErrCorrupt) || !errors.Is(b, ErrCorrupt) || !errors.Is(c, ErrCorrupt) {
		t.Fatal(a, b, c)
	}
	if _, err := k.page(ids[0]); err != nil {
		t.Fatalf("cached and verified: %v", err)
	}
	dst[0] = 1
	if err := k.s.Direct().Page(ID{}, dst); err != nil || !isZero(dst) {
		t.Fatal(err)
	}
	if k.s.Direct().Page(ID{}, dst[1:]) == nil {
		t.Fatal("a short dst")
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := k.s.Direct().Node(done, nid); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	k.idle()
}

func TestCorruptionErrorSays(t *testing.T) {
	e := &CorruptionError{ID: ID{0xab}, Segment: 3, Offset: 64, Err: errDisk}
	if want := "chunk ab00000000000000000000000000000000000000000000000000000000000000 in segment 3 at offset 64: stored data is damaged: disk trouble"; e.Error() != want {
		t.Fatalf("%s", e)
	}
	e.Canister, e.Snapshot, e.Section, e.Page, e.Node = "c", "s", "stable-memory", 5, true
	if want := "canister c: snapshot s: stable-memory page 5: node ab00000000000000000000000000000000000000000000000000000000000000 in segment 3 at offset 64: stored data is damaged: disk trouble"; e.Error() != want {
		t.Fatalf("%s", e)
	}
	if !errors.Is(e, ErrCorrupt) || !errors.Is(e, errDisk) || !errors.Is(&CorruptionError{}, ErrCorrupt) {
		t.Fatal("unwraps wrongly")
	}
}
