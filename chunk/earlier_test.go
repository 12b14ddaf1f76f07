package chunk

import (
	"bytes"
	"context"
	"slices"
	"testing"
)

// Earlier gives the first page that was noted with an ID, however many there are, where
// that was read already, and says nothing about others.
func TestEarlier(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	const n = 5000
	mem := make([]byte, n*PageSize)
	ids := make([]ID, n)
	for i := range ids {
		page := pageOf(uint64(i))
		copy(mem[i*PageSize:], page)
		ids[i] = Sum(page)
	}
	e := k.s.NewEarlier(mem)
	e.at = prints{seed: k.s.seed} // as of a memory with more pages than tables are made for
	const from = n / 2
	found := 0
	for i := range ids {
		if e.Meet(&ids[i], i, from) != nil {
			found++
		}
	}
	// 5000 look-ups among as many of 2^32 prints.
	if found > 2 {
		t.Errorf("%d of what was never noted", found)
	}
	for i := range ids {
		switch got := e.Meet(&ids[i], n+i, from); {
		case i >= from && got != nil:
			t.Fatalf("page %d was given, which is still to be read", i)
		case i < from && (got == nil || !bytes.Equal(got[:], pageOf(uint64(i)))):
			t.Fatalf("page %d: %v", i, got != nil)
		}
	}
	if e.Meet(&ID{}, 0, 1) != nil || e.Meet(&ID{}, 1, 1) != nil {
		t.Error("a page of zeros was found")
	}

	// A table that is used again knows nothing of the memory before.
	k.s.Done(e)
	for range 2 {
		e = k.s.NewEarlier(mem[:100*PageSize])
		for i := range 100 {
			if e.Meet(&ids[n-1-i], i, 100) != nil {
				t.Fatal("a page of another memory was given")
			}
		}
		k.s.Done(e)
	}
}

// What the caller has is copied and not read; what it only seems to have is read.
func TestRestoreSame(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *StoreOptions) { o.PageCacheBytes = -1 })
	ids := k.put(0, 1000)
	have := make([]byte, len(ids)*PageSize)
	for i := range ids {
		copy(have[i*PageSize:], pageOf(uint64(i)))
	}
	same := func(i int) *[PageSize]byte { return (*[PageSize]byte)(have[i*PageSize:]) }
	refs, check := k.refs(slices.Concat(ids, ids))
	for i := range refs {
		refs[i].Same = same(i % len(ids))
	}
	before := k.s.Stats()
	if err := k.s.Pages(context.Background(), refs); err != nil {
		t.Fatal(err)
	}
	check()
	if st := k.s.Stats(); st.Frames != before.Frames || st.Lookups != before.Lookups {
		t.Errorf("%d frames read, %d look-ups", st.Frames-before.Frames, st.Lookups-before.Lookups)
	}

	// Two of three are something else by now, or are not given.
	refs, check = k.refs(ids)
	for i := range refs {
		switch refs[i].Same = same(i); i % 3 {
		case 1:
			have[i*PageSize] ^= 1
		case 2:
			refs[i].Same = nil
		}
	}
	if err := k.s.Pages(context.Background(), refs); err != nil {
		t.Fatal(err)
	}
	check()
	k.idle()

	// Who looks for damage is not shown what somebody has in memory.
	before = k.s.Stats()
	refs, check = k.refs(ids[:1])
	refs[0].Same = same(0)
	if err := k.s.Direct().Pages(context.Background(), refs); err != nil {
		t.Fatal(err)
	}
	check()
	if k.s.Stats().Frames == before.Frames {
		t.Error("nothing was read")
	}
}
