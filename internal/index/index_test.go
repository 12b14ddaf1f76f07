package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testOptions is for an index in dir "store/index" of a file system.
func testOptions(t testing.TB, fs vfs.FS) Options {
	t.Helper()
	if err := fs.MkdirAll("store", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"store", "."} {
		if err := syncDir(fs, dir); err != nil && dir == "store" {
			t.Fatal(err)
		}
	}
	return Options{FS: fs, Dir: "store/index", StoreID: [16]byte{1, 2, 3}, CacheSize: 1 << 20, MemTableSize: 1 << 20}
}

// create makes an empty index.
func create(t testing.TB, o Options) *Index {
	t.Helper()
	b, err := NewRebuilder(o, RebuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Abort()
	if err := b.FinishLocations(); err != nil {
		t.Fatal(err)
	}
	x, err := b.Finish(0, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func mustOpen(t testing.TB, o Options) *Index {
	t.Helper()
	x, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func mustClose(t testing.TB, x *Index) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

func page(segment uint64, offset uint32, slot uint8) Location {
	return Location{Segment: segment, Offset: offset, Length: 1000, Slot: slot, Slots: 16}
}

func dump(t testing.TB, x *Index) string {
	t.Helper()
	var b bytes.Buffer
	if err := x.Dump(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWhatABatchSetsIsRead(t *testing.T) {
	x := create(t, testOptions(t, vfs.NewMem()))
	defer mustClose(t, x)
	ids := testIDs(1, 100)
	slices.SortFunc(ids, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	b := x.NewBatch()
	for i, id := range ids {
		if i%2 == 0 {
			b.SetEntry(id, Entry{Location: page(1, uint32(i)*64, uint8(i%16)), Count: uint64(i), Node: i%4 == 0})
		}
	}
	b.PutRecord([]byte("canister"), Record{RecordSeq: 7, Segment: 3, Offset: 64, Length: 99, Payload: []byte("payload")})
	b.PutState([]byte("cursor/1"), []byte("at"))
	b.PutState([]byte("other"), nil)
	b.PutLimbo(ids[0])
	b.PutLimbo(ids[2])
	b.AddLive(1, 500)
	b.AddLive(2, 10)
	b.SetWatermark(5, [32]byte{5})
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if seq, hash := x.Watermark(); seq != 5 || hash != [32]byte{5} {
		t.Errorf("watermark %d %x", seq, hash)
	}
	check := func(i int, e Entry, ok bool) error {
		if want := i%2 == 0; ok != want {
			return fmt.Errorf("entry %d: found %t", i, ok)
		}
		if ok && (e.Count != uint64(i) || e.Offset != uint32(i)*64 || e.Node != (i%4 == 0)) {
			return fmt.Errorf("entry %d is %+v", i, e)
		}
		return nil
	}
	for i, id := range ids {
		e, ok, err := x.Get(id)
		if err := errors.Join(err, check(i, e, ok)); err != nil {
			t.Error(err)
		}
	}
	if err := x.GetSorted(ids, check); err != nil {
		t.Error(err)
	}
	n := 0
	for e, err := range x.Entries(context.Background()) {
		if err != nil || e.ID != ids[2*n] {
			t.Fatal(err, n)
		}
		n++
	}
	if n != 50 {
		t.Errorf("%d entries", n)
	}
	r, ok, err := x.Record([]byte("canister"))
	if err != nil || !ok || r.RecordSeq != 7 || string(r.Payload) != "payload" {
		t.Errorf("record %+v %t %v", r, ok, err)
	}
	for r, err := range x.Records() {
		if err != nil || string(r.Key) != "canister" {
			t.Error(r, err)
		}
	}
	var keys []string
	for s, err := range x.State([]byte("cursor/")) {
		if err != nil {
			t.Error(err)
		}
		keys = append(keys, string(s.Key)+"="+string(s.Value))
	}
	if fmt.Sprint(keys) != "[cursor/1=at]" {
		t.Error(keys)
	}
	limbo, err := x.Limbo(ID{}, 10)
	if err != nil || len(limbo) != 2 || limbo[0] != ids[0] {
		t.Error(limbo, err)
	}
	limbo, err = x.Limbo(ids[0], 10)
	if err != nil || len(limbo) != 1 || limbo[0] != ids[2] {
		t.Error(limbo, err)
	}
	if l := x.Live(); l[1] != 500 || l[2] != 10 || len(l) != 2 {
		t.Error(l)
	}

	b = x.NewBatch()
	b.DeleteEntry(ids[0])
	b.DeleteLimbo(ids[0])
	b.DeleteState([]byte("other"))
	b.AddLive(2, -10)
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := x.Get(ids[0]); ok || err != nil {
		t.Error("deleted entry is there", err)
	}
	if l := x.Live(); l[1] != 500 || len(l) != 1 {
		t.Error(l)
	}
	if seq, _ := x.Watermark(); seq != 5 {
		t.Errorf("watermark moved to %d", seq)
	}
}

func TestFlushedStateIsFoundAgain(t *testing.T) {
	o := testOptions(t, vfs.NewMem())
	x := create(t, o)
	b := x.NewBatch()
	id := testIDs(1, 1)[0]
	b.SetEntry(id, Entry{Location: page(1, 0, 0), Count: 1})
	b.AddLive(1, 63)
	b.SetWatermark(1, [32]byte{1})
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := x.DurableWatermark(); got != 0 {
		t.Errorf("durable watermark %d before the flush", got)
	}
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := x.DurableWatermark(); got != 1 {
		t.Errorf("durable watermark %d after the flush", got)
	}
	want := dump(t, x)
	b = x.NewBatch()
	b.SetWatermark(2, [32]byte{2})
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, x)
	x = mustOpen(t, o)
	defer mustClose(t, x)
	if got := dump(t, x); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
