package chunk

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

// refs asks for ids side by side in one image, in the middle of a guard, and
// check compares the finished image, not only the hashes of its pages.
func (k *kit) refs(ids []ID) ([]PageRef, func()) {
	guard := bytes.Repeat([]byte{0xee}, PageSize)
	image := bytes.Repeat(guard, len(ids)+2)
	refs := make([]PageRef, len(ids))
	for i, id := range ids {
		// The capacity reaches to the end: nothing but care keeps writers out.
		refs[i] = PageRef{ID: id, Dst: image[(i+1)*PageSize:][:PageSize]}
	}
	return refs, func() {
		k.t.Helper()
		if !bytes.Equal(image[:PageSize], guard) || !bytes.Equal(image[len(image)-PageSize:], guard) {
			k.t.Fatal("wrote beyond the image")
		}
		for i, id := range ids {
			if Sum(image[(i+1)*PageSize:][:PageSize]) != id {
				k.t.Fatalf("page %d of the image is wrong", i)
			}
		}
	}
}

// An image of random pages, stored in several orders under several codecs, with
// zero pages and repetitions, comes back whole.
func TestRestore(t *testing.T) {
	r := newRand(t)
	for _, n := range []int{1, 3, 16, cachedRead, cachedRead + 1, 5000} {
		for _, cache := range []int64{-1, 1 << 20} {
			k := newKit(t, func(o *StoreOptions) { o.PageCacheBytes = cache })
			stored := make([]ID, 0, n)
			order := r.Perm(n)
			for len(order) > 0 {
				m := min(1+r.IntN(GroupPages), len(order))
				var ids []ID
				var pages []byte
				for _, p := range order[:m] {
					page := pageOf(uint64(p))
					ids, pages = append(ids, Sum(page)), append(pages, page...)
				}
				order = order[m:]
				w := k.s.NewWriter(WriterOptions{})
				if err := w.AddGroup(Domain{}, codecs[r.IntN(3)], ids, pages); err != nil {
					t.Fatal(err)
				}
				k.store(w)
				stored = append(stored, ids...)
			}
			ids := make([]ID, 2*n)
			for i := range ids {
				if r.IntN(5) > 0 {
					ids[i] = stored[r.IntN(n)]
				}
			}
			back := slices.Clone(stored)
			slices.Reverse(back)
			// Side by side as they are stored, too.
			for _, ids := range [][]ID{ids, stored, back, slices.Concat(stored[n/3:], ids, stored)} {
				for _, read := range []func(context.Context, []PageRef) error{k.s.Pages, k.s.PagesOwn, k.s.PagesOnce} {
					refs, check := k.refs(ids)
					if err := read(context.Background(), refs); err != nil {
						t.Fatal(err)
					}
					check()
				}
			}
			k.idle()
		}
	}
}

// Each group of a window is read once, and the index is asked about once for
// each.
func TestRestorePlan(t *testing.T) {
	k := newKit(t, func(o *StoreOptions) { o.PageCacheBytes = -1 })
	ids := k.put(0, 4000)
	// In order, and then all of it again at the far end of the window.
	want := append(slices.Clone(ids), ids...)
	refs, check := k.refs(want)
	if err := k.s.Pages(context.Background(), refs); err != nil {
		t.Fatal(err)
	}
	check()
	st := k.s.Stats()
	if st.Groups != 250 {
		t.Fatalf("%d groups decoded, there are 250", st.Groups)
	}
	for loc, n := range k.l.reads {
		if n != 1 {
			t.Fatalf("%v was read %d times", loc, n)
		}
	}
	if k.x.gets > 250+3*GroupPages*k.s.workers {
		t.Fatalf("the index was asked %d times", k.x.gets)
	}
	k.idle()
}

// A window is bounded; what lies beyond comes all the same.
func TestRestoreWindows(t *testing.T) {
	k := newKit(t, nil)
	ids := k.put(0, 64)
	want := make([]ID, 2*restoreWindow+100)
	for i := range want {
		want[i] = ids[i%64]
	}
	dst := make([]byte, PageSize*len(ids))
	refs := make([]PageRef, len(want))
	for i := range refs {
		refs[i] = PageRef{ID: want[i], Dst: dst[i%64*PageSize:][:PageSize]}
	}
	if err := k.s.Pages(context.Background(), refs); err != nil {
		t.Fatal(err)
	}
	if st := k.s.Stats(); st.Groups != 3*4 {
		t.Fatalf("%d groups decoded", st.Groups)
	}
	for i, id := range ids {
		if Sum(dst[i*PageSize:][:PageSize]) != id {
			t.Fatalf("page %d", i)
		}
	}
}

// Damage does not end a restore: all of it is reported, the first error is of the
// first page that is concerned, and the rest of the image is there.
func TestRestoreDamage(t *testing.T) {
	t.Run("to shared memory", func(t *testing.T) { testRestoreDamage(t, (*Store).Pages, true) })
	t.Run("to own memory", func(t *testing.T) { testRestoreDamage(t, (*Store).PagesOwn, false) })
}

func testRestoreDamage(t *testing.T, read func(*Store, context.Context, []PageRef) error, untouched bool) {
	k := newKit(t, nil)
	ids := k.put(0, 1000)
	bad := map[ID]bool{}
	for _, i := range []int{333, 334, 900} {
		// One page of each of these groups, by its ID in the table.
		loc := k.where(ids[i])
		slot := i % GroupPages
		k.l.change(loc, func(b []byte) { b[groupHeader+slot*idSize] ^= 1 })
		bad[ids[i]] = true
	}
	missing := ID{1, 2, 3}
	want := slices.Concat(ids[:700], []ID{missing}, ids[700:], []ID{ids[333]})
	dst := bytes.Repeat([]byte{0xee}, len(want)*PageSize)
	refs := make([]PageRef, len(want))
	for i := range refs {
		refs[i] = PageRef{ID: want[i], Dst: dst[i*PageSize:][:PageSize]}
	}
	err := read(k.s, context.Background(), refs)
	var ce *CorruptionError
	if !errors.As(err, &ce) || ce.ID != ids[333] {
		t.Fatalf("first error: %v", err)
	}
	for i, id := range want {
		page := dst[i*PageSize:][:PageSize]
		if bad[id] || id == missing {
			if untouched && !bytes.Equal(page, bytes.Repeat([]byte{0xee}, PageSize)) {
				t.Fatalf("page %d is damaged and was written", i)
			}
		} else if Sum(page) != id {
			t.Fatalf("page %d", i)
		}
	}
	lost := k.lost()
	if len(lost) != len(bad) {
		t.Fatalf("%d lost, want %d", len(lost), len(bad))
	}
	for _, id := range lost {
		if !bad[id] {
			t.Fatalf("%v is not damaged", id)
		}
	}
	if err := read(k.s, context.Background(), []PageRef{{ID: missing, Dst: dst[:PageSize]}}); !errors.Is(err, ErrNotStored) {
		t.Fatal(err)
	}
	if err := read(k.s, context.Background(), []PageRef{{ID: ids[0], Dst: dst[:5]}}); err == nil {
		t.Fatal("a short dst")
	}
	k.idle()
}

// Data that decodes and is not what its ID names never reaches the image, unless that is
// the read's own, which it is decoded to and refused in.
func TestRestoreWrongBytes(t *testing.T) {
	for _, cache := range []int64{-1, 0} {
		k := newKit(t, func(o *StoreOptions) { o.PageCacheBytes = cache })
		ids, pages := fillPages(0, GroupPages)
		w := k.s.NewWriter(WriterOptions{})
		if err := w.AddGroup(Domain{}, CodecRaw, ids, pages); err != nil {
			t.Fatal(err)
		}
		k.store(w)
		k.l.change(k.where(ids[5]), func(b []byte) { b[groupHeader+GroupPages*idSize+5*PageSize+77] ^= 1 })
		refs, _ := k.refs(ids)
		err := k.s.Pages(context.Background(), refs)
		var ce *CorruptionError
		if !errors.As(err, &ce) || ce.ID != ids[5] || !slices.Equal(k.lost(), []ID{ids[5]}) {
			t.Fatalf("%v, lost %v", err, k.lost())
		}
		for i, r := range refs {
			if want := pages[i*PageSize:][:PageSize]; i != 5 && !bytes.Equal(r.Dst, want) {
				t.Fatalf("page %d", i)
			}
		}
		untouched := bytes.Repeat([]byte{0xee}, PageSize)
		if !bytes.Equal(refs[5].Dst, untouched) {
			t.Fatal("wrong bytes were written")
		}
		if cache < 0 { // nothing is decoded for the cache
			if err := k.s.PagesOwn(context.Background(), refs); !errors.As(err, &ce) || ce.ID != ids[5] {
				t.Fatalf("to own memory: %v", err)
			}
			if bytes.Equal(refs[5].Dst, untouched) {
				t.Error("own memory is not decoded to")
			}
		}
		if _, err := k.page(ids[5]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("served from the cache: %v", err)
		}
		k.idle()
	}
}

// Of groups of which little is wanted little is read; what can not be proved of
// them so is read as a whole, and damage is named as ever.
func TestRestoreReadsLittleOfSparseGroups(t *testing.T) {
	ctx := context.Background()
	k := newKit(t, func(o *StoreOptions) { o.PageCacheBytes = -1 })
	all := k.put(0, 300*GroupPages)
	var ids []ID
	for i := 0; i < len(all); i += GroupPages {
		ids = append(ids, all[i+i/GroupPages%GroupPages])
	}
	stored := 0
	for _, f := range k.l.frames {
		stored += len(f.Payload)
	}
	refs, check := k.refs(ids)
	if err := k.s.Pages(ctx, refs); err != nil {
		t.Fatal(err)
	}
	check()
	if len(k.l.reads) != 0 || k.l.partial > stored/2 {
		t.Errorf("%d groups were read as a whole, and %d of %d bytes of others", len(k.l.reads), k.l.partial, stored)
	}
	k.idle()

	// Whoever looks for damage reads everything.
	if err := k.s.Direct().Pages(ctx, refs); err != nil {
		t.Fatal(err)
	}
	if len(k.l.reads) != len(ids) {
		t.Errorf("%d of %d groups were read as a whole", len(k.l.reads), len(ids))
	}

	// Three that do not prove themselves: the data of one, the head of another,
	// and a third that is well when it is read again.
	at := func(i int) seglog.Loc { return frameLoc(k.x.at[k.s.domain.Key(ids[i])].Location) }
	k.l.change(at(10), func(b []byte) {
		for i := headSize; i < len(b); i++ {
			b[i] ^= 0x55
		}
	})
	k.l.change(at(20), func(b []byte) { b[groupHeader+20%GroupPages*idSize] ^= 1 })
	k.l.lie = map[seglog.Loc]bool{at(30): true}
	refs, check = k.refs(append(append(slices.Clone(ids[:10]), ids[11:20]...), ids[21:]...))
	if err := k.s.Pages(ctx, refs); err != nil {
		t.Fatal(err)
	}
	check()
	refs, _ = k.refs(ids)
	err := k.s.Pages(ctx, refs)
	var ce *CorruptionError
	if !errors.As(err, &ce) || ce.ID != ids[10] {
		t.Errorf("damage: %v", err)
	}
	if lost := k.lost(); !slices.Contains(lost, ids[10]) || !slices.Contains(lost, ids[20]) || len(lost) != 2 {
		t.Errorf("lost %v", lost)
	}
	k.idle()
}

// A few groups of which all is wanted do not make a worker read whole frames for
// single pages behind them.
func TestSparseBehindFullGroups(t *testing.T) {
	const groups, full = 200, fullRow + 1
	k := newKit(t, func(o *StoreOptions) { o.PageCacheBytes, o.Workers = -1, 1 })
	ids := k.put(0, groups*GroupPages)
	want := slices.Clone(ids[:full*GroupPages])
	for g := full; g < groups; g++ {
		want = append(want, ids[g*GroupPages+5])
	}
	refs, check := k.refs(want)
	if err := k.s.Pages(context.Background(), refs); err != nil {
		t.Fatal(err)
	}
	check()
	if n := len(k.l.reads); n > full+fullRow {
		t.Errorf("%d whole frames are read for %d groups of which all is wanted", n, full)
	}
}

// Groups that stand one behind the other are read without a question to the index for
// each, and what only seems to stand there is asked for.
func TestRows(t *testing.T) {
	const groups = 60
	for name, hurt := range map[string]func(k *kit, l seglog.Loc){
		"whole":   nil,
		"damaged": func(k *kit, l seglog.Loc) { k.l.change(l, func(b []byte) { b[len(b)-20] ^= 1 }) },
		"gone": func(k *kit, l seglog.Loc) {
			k.l.before = func(loc seglog.Loc) error {
				if loc == l {
					return seglog.ErrSegmentGone
				}
				return nil
			}
		},
	} {
		k := newKit(t, func(o *StoreOptions) { o.PageCacheBytes, o.Workers = -1, 1 })
		ids := k.put(0, groups*GroupPages)
		if hurt != nil {
			// The index knows another place of a group in the middle.
			in := ids[groups/2*GroupPages:][:GroupPages]
			old := k.where(in[0])
			moved := k.l.write(99, seglog.KindGroup, k.l.frames[old].Payload)
			for slot, id := range in {
				e := k.x.at[index.ID(id)]
				e.Location = slotLocation(moved, slot, GroupPages)
				k.x.at[index.ID(id)] = e
			}
			hurt(k, old)
		}
		asked := k.x.gets
		refs, check := k.refs(ids)
		if err := k.s.Pages(context.Background(), refs); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		check()
		// Once, and twice more for the group that is not where it stood and the next.
		bound := 1
		if hurt != nil {
			bound += 2
		}
		if n := k.x.gets - asked; n > bound {
			t.Errorf("%s: the index was asked %d times for %d groups", name, n, groups)
		}
		if lost := k.lost(); len(lost) != 0 {
			t.Errorf("%s: lost %v", name, lost)
		}
		k.idle()
	}
}
