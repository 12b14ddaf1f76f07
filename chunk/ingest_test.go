package chunk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"testing"

	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

// check reads every page of m back.
func (k *kit) check(m image) {
	k.t.Helper()
	ids := make([]ID, len(m))
	for i := range m {
		ids[i] = m.id(i)
	}
	refs, check := k.refs(ids)
	for i := range refs {
		if m[i] == 0 { // what was there before must be overwritten
			refs[i].Dst[0] = 1
		}
	}
	if err := k.s.Pages(context.Background(), refs); err != nil {
		k.t.Fatal(err)
	}
	check()
}

// A history of takes, each on top of the one before, against what is counted by
// hand; everything reads back.
func TestIngest(t *testing.T) {
	r := newRand(t)
	for _, n := range []int{0, 1, 15, 16, 17, windowPages, windowPages + 1, 3*windowPages + 100} {
		for _, codec := range codecs {
			k := newKit(t, nil)
			stored := map[ID]bool{}
			base := image{}
			for range 3 {
				m := make(image, n)
				copy(m, base)
				var want IngestStats
				mine := map[ID]bool{}
				for i := range m {
					if r.IntN(3) == 0 {
						m[i] = uint64(r.IntN(2 * n)) // 0: zeros; many twice
					}
					id := m.id(i)
					switch {
					case id.IsZero():
						want.Zero++
					case id == base.at(i):
						want.Unchanged++
					case stored[id] || mine[id]:
						want.Shared++
					default:
						mine[id] = true
						want.New++
					}
				}
				want.Pages, want.RawBytes = uint64(n), want.New*PageSize
				pins := k.s.NewPins()
				w := k.s.NewWriter(WriterOptions{Codec: codec, Pins: pins})
				got := k.ingest(w, m, base)
				want.StoredBytes = got.StoredBytes
				if got != want {
					t.Fatalf("%d pages: got %+v, want %+v", n, got, want)
				}
				places := k.store(w)
				sum := uint64(0)
				seen := map[seglog.Loc]bool{}
				for _, p := range places {
					if loc := frameLoc(p.Loc); !seen[loc] {
						seen[loc] = true
						sum += uint64(loc.Length) - 64
					}
					if !mine[ID(p.Key)] {
						t.Fatalf("%v was placed and is not new", p.Key)
					}
				}
				if len(places) != len(mine) || sum != got.StoredBytes {
					t.Fatalf("%d placed of %d new, %d bytes of %d", len(places), len(mine), sum, got.StoredBytes)
				}
				if len(seen) != (len(mine)+GroupPages-1)/GroupPages {
					t.Fatalf("%d pages in %d groups", len(mine), len(seen))
				}
				for id := range mine {
					stored[id] = true
				}
				pins.Release()
				k.check(m)
				base = m
			}
			k.idle()
		}
	}
}

// A base that is longer or shorter, none at all, and no dedup.
func TestIngestBases(t *testing.T) {
	k := newKit(t, nil)
	m := make(image, 50)
	for i := range m {
		m[i] = uint64(i % 40)
	}
	w := k.s.NewWriter(WriterOptions{Codec: CodecS2, NoDedup: true})
	told := 0
	st, err := w.Ingest(context.Background(), m.all(), nil, func(uint64, ID) error { told++; return nil })
	if err != nil || st.Zero != 2 || st.New != 39 || st.Shared != 9 || told != 48 {
		t.Fatalf("%+v, %d told, %v", st, told, err)
	}
	k.store(w)
	// The same again: without dedup all is written again, within the take once.
	w = k.s.NewWriter(WriterOptions{Codec: CodecS2, NoDedup: true, Pins: k.s.NewPins()})
	if st := k.ingest(w, m, nil); st.New != 39 {
		t.Fatalf("%+v", st)
	}
	k.store(w)
	k.check(m)
	// And with it nothing; the IDs are pinned, once each.
	pins := k.s.NewPins()
	w = k.s.NewWriter(WriterOptions{Codec: CodecS2, Pins: pins})
	if st := k.ingest(w, m, nil); st.New != 0 || st.Shared != 48 || len(pins.ids) != 39 {
		t.Fatalf("%+v, %d pinned", st, len(pins.ids))
	}
	if places := k.store(w); len(places) != 0 {
		t.Fatalf("placed %v", places)
	}
	pins.Release()
	k.idle()
}

// What is written to the source while it is taken may tear a page, but what is
// stored under an ID is what was hashed.
func TestIngestOfMovingMemory(t *testing.T) {
	k := newKit(t, nil)
	mem := make([]byte, 200*PageSize)
	for i := range 200 {
		fill(mem[i*PageSize:(i+1)*PageSize], uint64(i))
	}
	w := k.s.NewWriter(WriterOptions{Codec: CodecS2})
	var ids []ID
	pages := func(yield func(uint64, []byte) bool) {
		for i := range 200 {
			p := mem[i*PageSize : (i+1)*PageSize]
			if !yield(uint64(i), p) {
				return
			}
			for b := range p { // at once behind the yield
				p[b] = 0x55
			}
		}
	}
	if _, err := w.Ingest(context.Background(), pages, nil, func(_ uint64, id ID) error { ids = append(ids, id); return nil }); err != nil {
		t.Fatal(err)
	}
	k.store(w)
	for i, id := range ids {
		if got, err := k.page(id); err != nil || !bytes.Equal(got, pageOf(uint64(i))) {
			t.Fatalf("page %d: %v", i, err)
		}
	}
}

// The frames, their order and what the sink is told do not depend on the number
// of workers or on chance; nodes that the sink adds stand among them.
func TestIngestOrder(t *testing.T) {
	r := newRand(t)
	m := make(image, 2*windowPages+333)
	for i := range m {
		m[i] = uint64(r.IntN(3000))
	}
	var want []byte
	for _, workers := range []int{1, 1, 2, 5, 16} {
		k := newKit(t, nil)
		w := k.s.NewWriter(WriterOptions{Codec: CodecS2, Workers: workers})
		var log []byte
		_, err := w.Ingest(context.Background(), m.all(), nil, func(i uint64, id ID) error {
			log = fmt.Appendf(log, "%d %v\n", i, id)
			if i%50 == 0 {
				return w.AddNode(testNode(int(i)))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		frames, ranges, err := w.Finish()
		if err != nil || ranges != nil {
			t.Fatal(err)
		}
		var groups, nodes []byte
		for _, f := range frames {
			if f.Kind == seglog.KindGroup {
				groups = append(groups, f.Payload...)
			} else {
				nodes = append(nodes, f.Payload...)
			}
		}
		log = append(append(log, groups...), nodes...)
		if want == nil {
			want = log
		} else if !bytes.Equal(log, want) {
			t.Fatalf("%d workers: other frames", workers)
		}
		w.Close()
		k.idle()
	}
}

// With one number of workers even the order of nodes among groups is the same.
func TestIngestIsDeterministic(t *testing.T) {
	m := make(image, 2*windowPages)
	for i := range m {
		m[i] = uint64(i)
	}
	var want [][]byte
	for range 5 {
		k := newKit(t, nil)
		spill := &fakeSpill{l: k.l, seg: 7}
		w := k.s.NewWriter(WriterOptions{Codec: CodecS2, SpillAfter: -1, Spill: func() (Spill, error) { return spill, nil }})
		if _, err := w.Ingest(context.Background(), m.all(), nil, func(i uint64, _ ID) error { return w.AddNode(testNode(int(i))) }); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		var locs []seglog.Loc
		for loc := range k.l.frames {
			locs = append(locs, loc)
		}
		slices.SortFunc(locs, func(a, b seglog.Loc) int { return int(a.Offset) - int(b.Offset) })
		var got [][]byte
		for _, loc := range locs {
			got = append(got, k.l.frames[loc].Payload)
		}
		if want == nil {
			want = got
		} else if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatal("another order")
		}
		w.Close()
	}
}

// Errors from every side end it, give all buffers back and leave nobody waiting.
func TestIngestErrors(t *testing.T) {
	boom := errors.New("boom")
	m := make(image, 3*windowPages)
	for i := range m {
		m[i] = uint64(i + 1)
	}
	for _, at := range []int{0, 1, windowPages, 2*windowPages + 5} {
		for name, run := range map[string]func(*kit) (*Writer, error){
			"sink": func(k *kit) (*Writer, error) {
				w := k.s.NewWriter(WriterOptions{Codec: CodecS2})
				_, err := w.Ingest(context.Background(), m.all(), nil, func(i uint64, _ ID) error {
					if int(i) == at {
						return boom
					}
					return nil
				})
				return w, err
			},
			"base": func(k *kit) (*Writer, error) {
				w := k.s.NewWriter(WriterOptions{Codec: CodecS2})
				_, err := w.Ingest(context.Background(), m.all(), func(idx []uint64, _ []ID) error {
					if int(idx[len(idx)-1]) >= at {
						return boom
					}
					return nil
				}, func(uint64, ID) error { return nil })
				return w, err
			},
			"source": func(k *kit) (*Writer, error) {
				w := k.s.NewWriter(WriterOptions{Codec: CodecS2})
				pages := func(yield func(uint64, []byte) bool) {
					n := 0
					for i, p := range m.all() {
						if n++; n == at+2 {
							i = 0 // not ascending
						}
						if !yield(i, p) {
							return
						}
					}
				}
				_, err := w.Ingest(context.Background(), pages, nil, func(uint64, ID) error { return nil })
				if err != nil {
					err = boom
				}
				return w, err
			},
			"page": func(k *kit) (*Writer, error) {
				w := k.s.NewWriter(WriterOptions{Codec: CodecS2})
				_, err := w.Ingest(context.Background(), func(yield func(uint64, []byte) bool) {
					for i, p := range m.all() {
						if int(i) == at {
							p = p[1:]
						}
						if !yield(i, p) {
							return
						}
					}
				}, nil, func(uint64, ID) error { return nil })
				if err != nil {
					err = boom
				}
				return w, err
			},
			"index": func(k *kit) (*Writer, error) {
				k.x.getErr = boom
				for i := range m {
					if i >= at {
						k.x.at[index.ID(m.id(i))] = index.Entry{}
						break
					}
				}
				w := k.s.NewWriter(WriterOptions{Codec: CodecS2, Pins: k.s.NewPins()})
				_, err := w.Ingest(context.Background(), m.all(), nil, func(uint64, ID) error { return nil })
				return w, err
			},
			"spill": func(k *kit) (*Writer, error) {
				w := k.s.NewWriter(WriterOptions{Codec: CodecS2, SpillAfter: 100 << 10, Spill: func() (Spill, error) {
					return &fakeSpill{l: k.l, seg: 7, left: 1 + at/GroupPages}, nil
				}})
				_, err := w.Ingest(context.Background(), m.all(), nil, func(uint64, ID) error { return nil })
				if errors.Is(err, errDisk) {
					err = boom
				}
				return w, err
			},
			"open spill": func(k *kit) (*Writer, error) {
				w := k.s.NewWriter(WriterOptions{Codec: CodecS2, SpillAfter: 100 << 10, Spill: func() (Spill, error) { return nil, boom }})
				_, err := w.Ingest(context.Background(), m.all(), nil, func(uint64, ID) error { return nil })
				return w, err
			},
			"cancel": func(k *kit) (*Writer, error) {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				w := k.s.NewWriter(WriterOptions{Codec: CodecS2})
				_, err := w.Ingest(ctx, func(yield func(uint64, []byte) bool) {
					for i, p := range m.all() {
						if int(i) == at {
							cancel()
						}
						if !yield(i, p) {
							return
						}
					}
				}, nil, func(uint64, ID) error { return nil })
				if errors.Is(err, context.Canceled) {
					err = boom
				}
				return w, err
			},
		} {
			k := newKit(t, nil)
			w, err := run(k)
			if !errors.Is(err, boom) {
				t.Fatalf("%s at %d: %v", name, at, err)
			}
			k.idle()
			if _, _, err := w.Finish(); err == nil {
				t.Fatalf("%s at %d: finishes after an error", name, at)
			}
			if w.AddNode(testNode(1)) == nil || w.AddGroup(Domain{}, CodecRaw, []ID{{1}}, pageOf(1)) == nil {
				t.Fatalf("%s at %d: goes on after an error", name, at)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			k.idle()
		}
	}
}

// discard is a spill that keeps nothing, so that what is left is the pipeline.
type discard struct{ n uint32 }

func (d *discard) Append(_ seglog.Kind, p []byte) (seglog.Loc, error) {
	d.n++
	return seglog.Loc{Segment: 1, Offset: d.n * 64, Length: uint32(64 + len(p))}, nil
}
func (d *discard) Flush() error           { return nil }
func (d *discard) Ranges() []seglog.Range { return nil }
func (d *discard) Close() error           { return nil }

// However much is ingested and however many workers there are, what is in hand
// stays small.
func TestIngestMemory(t *testing.T) {
	for _, workers := range []int{1, 4, 64} {
		k := newKit(t, nil)
		spill := new(discard)
		w := k.s.NewWriter(WriterOptions{Codec: CodecRaw, Workers: workers, Spill: func() (Spill, error) { return spill, nil }})
		_, err := w.Ingest(context.Background(), many(20*windowPages), nil, func(uint64, ID) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		buffers := k.s.raws.Peak()*int64(k.s.raws.Size) + k.s.frames.Peak()*int64(k.s.frames.Size)
		// Two windows, 32 groups twice, and what waits until there is a spill: 2 MiB.
		if most := int64(9 << 20); buffers > most {
			t.Errorf("%d workers: %d bytes of buffers", workers, buffers)
		}
		if w.buffered != 0 || spill.n == 0 {
			t.Errorf("not spilled: %d in memory, %d spilled", w.buffered, spill.n)
		}
		if _, _, err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		k.idle()
	}
}

// many yields n different pages that share all but their first bytes.
func many(n int) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		p := pageOf(1)
		for i := range n {
			p[0], p[1], p[2] = byte(i), byte(i>>8), byte(i>>16)
			if !yield(uint64(i), p) {
				return
			}
		}
	}
}

// Small takes stay in memory; from SpillAfter on everything is in the spill, in
// the same order, and placed there.
func TestSpill(t *testing.T) {
	m := make(image, 1000)
	for i := range m {
		m[i] = uint64(i + 1)
	}
	for _, after := range []int64{-1, 1, 500_000, 0, 16 << 20} {
		k := newKit(t, nil)
		spill := &fakeSpill{l: k.l, seg: 7}
		opened := 0
		w := k.s.NewWriter(WriterOptions{Codec: CodecRaw, SpillAfter: after, Spill: func() (Spill, error) { opened++; return spill, nil }})
		if err := w.AddNode(testNode(1)); err != nil {
			t.Fatal(err)
		}
		k.ingest(w, m, nil)
		frames, ranges, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		var locs []seglog.Loc
		if after == 16<<20 {
			if opened != 0 || len(frames) != 64 || ranges != nil {
				t.Fatalf("spilled %d times: %d frames, %v", opened, len(frames), ranges)
			}
			if w.Placements(nil) != nil && len(w.Placements(nil)) != 0 {
				t.Fatal("placed before the commit")
			}
			for _, f := range frames {
				locs = append(locs, k.l.write(1, f.Kind, f.Payload))
			}
		} else if opened != 1 || len(frames) != 0 || len(ranges) != 1 || !spill.flushed {
			t.Fatalf("spill after %d: opened %d, %d frames, %v, flushed %v", after, opened, len(frames), ranges, spill.flushed)
		}
		places := w.Placements(locs)
		for i, p := range places[:1000] {
			if p.Key != Key(m.id(i)) || i > 0 && !places[i-1].Loc.Before(p.Loc) {
				t.Fatalf("placement %d is out of order", i)
			}
		}
		k.x.apply(places)
		if err := w.Close(); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		if opened == 1 && spill.closed != 1 {
			t.Fatalf("spill closed %d times", spill.closed)
		}
		k.check(m)
		id, node := testNode(1)
		if got, err := k.s.Node(context.Background(), id); err != nil || !bytes.Equal(got, node) {
			t.Fatal(err)
		}
		k.idle()
	}
}

// Close in the middle lets go of everything.
func TestWriterClose(t *testing.T) {
	k := newKit(t, nil)
	spill := &fakeSpill{l: k.l, seg: 7}
	w := k.s.NewWriter(WriterOptions{Codec: CodecS2, SpillAfter: 1, Spill: func() (Spill, error) { return spill, nil }})
	for i := range maxJobs + 30 {
		ids, pages := fillPages(uint64(i), 1)
		if err := w.AddGroup(Domain{}, CodecZstd, ids, pages); err != nil {
			t.Fatal(err)
		}
		clear(pages) // copied
		clear(ids)
	}
	if err := w.Close(); err != nil || spill.closed != 1 {
		t.Fatalf("%v, closed %d", err, spill.closed)
	}
	k.idle()
	if err := w.AddNode(testNode(1)); !errors.Is(err, ErrReleased) {
		t.Fatal(err)
	}
	if _, _, err := w.Finish(); !errors.Is(err, ErrReleased) {
		t.Fatal(err)
	}
	if _, err := w.Ingest(context.Background(), many(1), nil, nil); !errors.Is(err, ErrReleased) {
		t.Fatal(err)
	}
	w = k.s.NewWriter(WriterOptions{})
	if _, _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := w.AddNode(testNode(1)); err == nil {
		t.Fatal("goes on after finish")
	}
	for _, bad := range []func() error{
		func() error { return k.s.NewWriter(WriterOptions{}).AddGroup(Domain{}, CodecRaw, nil, nil) },
		func() error {
			return k.s.NewWriter(WriterOptions{}).AddGroup(Domain{}, CodecRaw, make([]ID, 17), make([]byte, 17*PageSize))
		},
	} {
		if bad() == nil {
			t.Fatal("a bad group is taken")
		}
	}
	k.idle()
}

func TestNewStoreWants(t *testing.T) {
	if _, err := NewStore(StoreOptions{}); err == nil {
		t.Fatal("a store over nothing")
	}
	k := newKit(t, func(o *StoreOptions) { o.Workers = 0 })
	if k.s.workers != runtime.GOMAXPROCS(0) {
		t.Fatalf("%d workers", k.s.workers)
	}
}

// Held pages, each in memory of its own, come to the same frames as pages that
// are copied, and buffers and windows that are used again bring nothing along.
func TestHeldIsTheSame(t *testing.T) {
	k := newKit(t, nil)
	for round := range 4 {
		m := make(image, []int{3000, 17, 1025, 16}[round])
		for i := range m {
			m[i] = uint64(i * 7 % 900 * (round + 1)) // some zeros, some twice
		}
		var got [2][]seglog.NewFrame
		var stats [2]IngestStats
		var told [2][]ID
		for i := range got {
			w := k.s.NewWriter(WriterOptions{Codec: CodecS2})
			sink := func(_ uint64, id ID) error { told[i] = append(told[i], id); return nil }
			var err error
			if i == 0 {
				stats[i], err = w.Ingest(context.Background(), m.all(), nil, sink)
			} else {
				stats[i], err = w.IngestHeld(context.Background(), func(yield func(uint64, []byte) bool) {
					for i := range m {
						if !yield(uint64(i), m.page(make([]byte, PageSize), i)) {
							return
						}
					}
				}, nil, sink)
			}
			if err != nil {
				t.Fatal(err)
			}
			frames, _, err := w.Finish()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range frames {
				// The buffers are the writer's until it is closed.
				got[i] = append(got[i], seglog.NewFrame{Kind: f.Kind, Payload: bytes.Clone(f.Payload)})
			}
			w.Close()
		}
		if stats[0] != stats[1] || !slices.Equal(told[0], told[1]) || len(got[0]) != len(got[1]) {
			t.Fatalf("round %d: copied %+v, %d frames; held %+v, %d frames", round, stats[0], len(got[0]), stats[1], len(got[1]))
		}
		for i := range got[0] {
			if got[0][i].Kind != got[1][i].Kind || !bytes.Equal(got[0][i].Payload, got[1][i].Payload) {
				t.Fatalf("round %d: frame %d differs", round, i)
			}
		}
	}
	if n := k.s.raws.Out() + k.s.frames.Out(); n != 0 {
		t.Fatalf("%d buffers are still out", n)
	}
}
