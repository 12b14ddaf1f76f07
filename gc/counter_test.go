package gc

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

// noFrames is a log without frames: what is read must be cached.
type noFrames struct{}

func (noFrames) ReadFrame(seglog.Loc, []byte) (seglog.Kind, []byte, error) {
	return 0, nil, errors.New("no frames here")
}

func (noFrames) ReadPart(seglog.Loc, int, []byte) error { return errors.New("no frames here") }

func (noFrames) ReadOn(seglog.Loc, []byte, int) (seglog.Kind, []byte, seglog.Behind, error) {
	return 0, nil, seglog.Behind{}, errors.New("no frames here")
}

// newTestCounter counts into an index that is empty.
func newTestCounter(t *testing.T) (*index.Index, *chunk.Store, *Counter) {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("store", 0o700); err != nil {
		t.Fatal(err)
	}
	rb, err := index.NewRebuilder(index.Options{FS: fs, Dir: "store/index", StoreID: [16]byte{1}}, index.RebuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer rb.Abort()
	if err := rb.FinishLocations(); err != nil {
		t.Fatal(err)
	}
	idx, err := rb.Finish(0, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = idx.Close() })
	store, err := chunk.NewStore(chunk.StoreOptions{Index: idx, Log: noFrames{}, NodeID: manifest.NodeID, NodeCacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCounter(idx, store, chunk.DedupStore, func(uint64) bool { return true }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return idx, store, c
}

// cachedManifest gives the store an empty manifest, in its cache alone.
func cachedManifest(t *testing.T, store *chunk.Store) chunk.ID {
	t.Helper()
	enc, err := (&manifest.Manifest{}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	id, err := manifest.NodeID(enc)
	if err != nil {
		t.Fatal(err)
	}
	w := store.NewWriter(chunk.WriterOptions{})
	defer w.Close()
	if err := w.KeepNode(id, enc); err != nil {
		t.Fatal(err)
	}
	return id
}

// A take that meets a chunk and the cleaning that moves it can share a batch:
// the move must not put the count back to what it was before the take.
func TestCountsAndMovesOfOneBatch(t *testing.T) {
	idx, store, c := newTestCounter(t)
	id := cachedManifest(t, store)
	at := func(segment uint64) chunk.Placement {
		return chunk.Placement{Key: chunk.Key(id), Node: true, Loc: index.Location{Segment: segment, Offset: 64, Length: 128, Slots: 1}}
	}
	checkpoint := func(key string, segment seglog.SegmentID) Record {
		payload, err := (&record.Record{Seq: 1, Incarnation: 1, Head: id}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		return Record{Key: []byte(key), Seq: 1, Loc: seglog.Loc{Segment: segment, Offset: 512, Length: 200}, Payload: payload}
	}
	placed := []*chunk.Places{store.Publish([]chunk.Placement{at(1)})}
	if err := c.Apply(t.Context(), &Batch{Seq: 1, Records: []Record{checkpoint("a", 1)}, Placed: placed}); err != nil {
		t.Fatal(err)
	}
	both := &Batch{Seq: 2, Records: []Record{checkpoint("b", 2)}, Moves: []Move{{Victim: 1, Places: []chunk.Placement{at(3)}}}}
	if err := c.Apply(t.Context(), both); err != nil {
		t.Fatal(err)
	}
	e, ok, err := idx.Get(index.ID(id))
	if err != nil || !ok || e.Count != 2 || e.Segment != 3 {
		t.Errorf("entry %+v (%t, %v), want count 2 in segment 3", e, ok, err)
	}
	if live := idx.Live(); live[1] != 200 || live[2] != 200 || live[3] != 128 {
		t.Errorf("live bytes %v", live)
	}
}

// Who waited for a batch finds what it held on to given back: cleaning takes a segment
// for its next copies then.
func TestWaitIsBehindDone(t *testing.T) {
	_, _, c := newTestCounter(t)
	a := NewApplier(c, 0, slog.New(slog.DiscardHandler))
	defer a.Close()
	early := make(chan bool, 1)
	a.Enqueue(&Batch{Seq: 1, Done: func() { early <- a.Applied() >= 1 }})
	if err := a.Wait(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if <-early {
		t.Error("the batch counted as applied before it was done")
	}
}

// What could not be read at a place says nothing of an entry that has another one by now.
func TestMarkIsOfAPlace(t *testing.T) {
	idx, _, c := newTestCounter(t)
	key := chunk.Key{1}
	out := idx.NewBatch()
	out.AddEntry(key, index.Entry{Count: 1, Location: index.Location{Segment: 2, Offset: 64, Length: 128, Slots: 1}})
	if err := out.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, at := range []Lost{{key, 1, 64}, {key, 2, 128}, {key, 2, 64}} {
		if err := c.MarkLost([]Lost{at}); err != nil {
			t.Fatal(err)
		}
		if e, _, err := idx.Get(key); err != nil || e.Lost != (at == Lost{key, 2, 64}) {
			t.Errorf("marked at %d:%d: lost %t at %v: %v", at.Segment, at.Offset, e.Lost, e.Location, err)
		}
	}
}

// Two takes that are unaware of each other can store the same content in one batch.
// It gets one entry, with the count of both; what neither counts is in limbo once.
func TestStoredTwiceInOneBatch(t *testing.T) {
	for _, counted := range []bool{true, false} {
		idx, store, c := newTestCounter(t)
		id := cachedManifest(t, store)
		b := &Batch{Seq: 1}
		for n := range uint32(3) {
			b.Placed = append(b.Placed, store.Publish([]chunk.Placement{{
				Key: chunk.Key(id), Node: true, Loc: index.Location{Segment: 1, Offset: 64 * (n + 1), Length: 64, Slots: 1},
			}}))
			if !counted {
				continue
			}
			payload, err := (&record.Record{Seq: 1, Incarnation: 1, Head: id}).Encode()
			if err != nil {
				t.Fatal(err)
			}
			b.Records = append(b.Records, Record{Key: []byte{byte(n)}, Seq: 1, Loc: seglog.Loc{Segment: 2, Offset: 64 * (n + 1), Length: 64}, Payload: payload})
		}
		if err := c.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		want := index.Entry{Location: b.Placed[0].List[0].Loc, Count: uint64(len(b.Records)), Node: true}
		if e, ok, err := idx.Get(index.ID(id)); err != nil || !ok || e != want {
			t.Errorf("counted %t: entry %+v (%t, %v), want %+v", counted, e, ok, err, want)
		}
		limbo, err := idx.Limbo(index.ID{}, 10)
		if err != nil || len(limbo) == 1 == counted {
			t.Errorf("counted %t: limbo %v, %v", counted, limbo, err)
		}
		if live := idx.Live(); live[1] != 64 {
			t.Errorf("counted %t: live bytes %v", counted, live)
		}
		if n := store.Stats().Published; n != 0 {
			t.Errorf("%d are still published", n)
		}
	}
}
