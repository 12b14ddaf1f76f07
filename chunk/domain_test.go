package chunk

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
)

func TestDedupDomain(t *testing.T) {
	for _, d := range []DedupDomain{DedupStore, DedupCanister} {
		if got, err := ParseDedupDomain(d.String()); err != nil || got != d || !d.Valid() {
			t.Errorf("%v parses as %v, %v", d, got, err)
		}
	}
	for _, bad := range []string{"", "Store", "tenant", "store "} {
		if _, err := ParseDedupDomain(bad); err == nil {
			t.Errorf("%q is a domain", bad)
		}
	}
	if DedupDomain(2).Valid() || DedupDomain(2).String() != "dedup-2" {
		t.Error("there is a third one")
	}
	if d := DedupStore.Of([]byte("a")); !d.IsZero() {
		t.Errorf("the whole store is %x", d)
	}
	a, b := DedupCanister.Of([]byte("a")), DedupCanister.Of([]byte("b"))
	if a.IsZero() || a == b || a != DedupCanister.Of([]byte("a")) {
		t.Errorf("domains %x and %x", a, b)
	}
}

// Within a domain keys and IDs are one to one, and no two domains share a key.
func TestDomainKeys(t *testing.T) {
	r := newRand(t)
	seen := map[Key]bool{}
	domains := []Domain{{}, DedupCanister.Of([]byte("a")), DedupCanister.Of([]byte("b"))}
	for range 1000 {
		var page [PageSize]byte
		page[0], page[1] = 1, byte(r.Uint32())
		for i := range 8 {
			page[i+2] = byte(r.Uint32())
		}
		id := Sum(page[:])
		for _, d := range domains {
			k := d.Key(id)
			if d.ID(k) != id {
				t.Fatalf("the key of %v leads to %v", id, d.ID(k))
			}
			if seen[k] {
				t.Fatalf("key %v twice", k)
			}
			seen[k] = true
		}
	}
	for _, d := range domains {
		if d.Key(ID{}) != (Key{}) || d.ID(Key{}) != (ID{}) {
			t.Error("zeros are not zeros")
		}
	}
}

// What one domain has, another neither meets nor reads, from no cache either.
func TestDomainsShareNothing(t *testing.T) {
	k := newKit(t, nil)
	ctx := context.Background()
	ids, pages := fillPages(1, 3)
	node := []byte("node: one")
	nid, err := testNodeID(node)
	if err != nil {
		t.Fatal(err)
	}
	a, b := k.s.In(DedupCanister.Of([]byte("a"))), k.s.In(DedupCanister.Of([]byte("b")))
	put := func(s *Store) IngestStats {
		t.Helper()
		pins := s.NewPins()
		defer pins.Release()
		w := s.NewWriter(WriterOptions{Pins: pins})
		defer w.Close()
		st, err := w.Ingest(ctx, func(yield func(uint64, []byte) bool) {
			for i := range ids {
				if !yield(uint64(i), pages[i*PageSize:(i+1)*PageSize]) {
					return
				}
			}
		}, nil, func(uint64, ID) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if err := w.AddNode(nid, node); err != nil {
			t.Fatal(err)
		}
		k.x.apply(k.sync(w))
		return st
	}
	first := put(a)
	if first.New != 3 {
		t.Fatalf("first: %+v", first)
	}
	for i, id := range ids { // into the caches
		got := make([]byte, PageSize)
		if err := a.Page(id, got); err != nil || !bytes.Equal(got, pages[i*PageSize:(i+1)*PageSize]) {
			t.Fatalf("own page: %v", err)
		}
	}
	if _, err := a.Node(ctx, nid); err != nil {
		t.Fatal(err)
	}
	a.keepNode(nid, node)
	for _, other := range []*Store{b, k.s} {
		met := make([]bool, 3)
		pins := other.NewPins()
		if err := other.Meet(pins, ids, met); err != nil || slices.Contains(met, true) {
			t.Errorf("another domain meets %v, %v", met, err)
		}
		pins.Release()
		for _, id := range ids {
			if err := other.Page(id, make([]byte, PageSize)); !errors.Is(err, ErrNotStored) {
				t.Errorf("another domain reads a page: %v", err)
			}
		}
		if err := other.Pages(ctx, []PageRef{{ID: ids[0], Dst: make([]byte, PageSize)}}); !errors.Is(err, ErrNotStored) {
			t.Errorf("another domain reads pages: %v", err)
		}
		if _, err := other.Node(ctx, nid); !errors.Is(err, ErrNotStored) {
			t.Errorf("another domain reads a node: %v", err)
		}
	}
	if again := put(b); again != first {
		t.Errorf("the same pages cost another domain %+v, and the first %+v", again, first)
	}
	if again := put(a); again.Shared != 3 || again.New != 0 {
		t.Errorf("the same pages cost their own domain %+v", again)
	}
	if len(k.x.at) != 8 {
		t.Errorf("%d entries, want 4 of each domain", len(k.x.at))
	}
}

// An entry that leads into a frame of another domain is damage, not content.
func TestForeignFrame(t *testing.T) {
	k := newKit(t, nil)
	ids, pages := fillPages(1, 1)
	a, b := k.s.In(DedupCanister.Of([]byte("a"))), k.s.In(DedupCanister.Of([]byte("b")))
	w := a.NewWriter(WriterOptions{})
	defer w.Close()
	if err := w.AddGroup(a.Domain(), CodecS2, ids, pages); err != nil {
		t.Fatal(err)
	}
	node := []byte("node: one")
	nid, err := testNodeID(node)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.AddNodes(a.Domain(), []ID{nid}, [][]byte{node}); err != nil {
		t.Fatal(err)
	}
	for _, p := range k.sync(w) {
		e := k.x.at[p.Key]
		e.Location, e.Count, e.Node = p.Loc, 1, p.Node
		k.x.at[b.Domain().Key(a.Domain().ID(p.Key))] = e
	}
	if err := b.Page(ids[0], make([]byte, PageSize)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a page from a frame of another domain: %v", err)
	}
	if _, err := b.Node(t.Context(), nid); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a node from a frame of another domain: %v", err)
	}
}
