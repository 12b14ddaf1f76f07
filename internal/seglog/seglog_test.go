package seglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const testDir = "store"

// testOptions are for tests: small segments, no timers.
func testOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: testDir, SegmentSize: minSegmentSize, SpillBuffer: 512, IdleDelay: -1}
}

// newStore creates a store in fs. The key is fixed: a failing seed must fail again.
func newStore(t testing.TB, fs vfs.FS) {
	t.Helper()
	err := Create(CreateOptions{FS: fs, Dir: testDir, SegmentSize: minSegmentSize, Rand: bytes.NewReader(make([]byte, 48))})
	if err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustStart(t testing.TB, o Options) *Log {
	t.Helper()
	l := mustOpen(t, o)
	if err := l.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // where the test plays a crash
	return l
}

func mustCommit(t testing.TB, l *Log, r *Request) Sequence {
	t.Helper()
	seq, err := l.Commit(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

// filler is a payload that can be told from all others.
func filler(seed uint64, n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	rng.Read(b)
	return b
}

// request makes a request of one record and some data.
func request(key string, seq uint64, sizes ...int) *Request {
	r := &Request{Records: []NewRecord{{Key: []byte(key), RecordSeq: seq, Payload: []byte(fmt.Sprintf("%s@%d", key, seq))}}}
	for i, n := range sizes {
		kind := KindGroup
		if i%2 == 1 {
			kind = KindNodes
		}
		r.Frames = append(r.Frames, NewFrame{Kind: kind, Payload: filler(seq<<8|uint64(i), n)})
	}
	return r
}

// replayAll returns all batches that are not empty.
func replayAll(t testing.TB, l *Log) []*Batch {
	t.Helper()
	var all []*Batch
	var last Sequence
	err := l.Replay(context.Background(), 0, func(b *Batch) error {
		if b.Seq <= last {
			t.Fatalf("batch %s after %s", b.Seq, last)
		}
		last = b.Seq
		if len(b.Frames) > 0 || len(b.Records) > 0 || b.Damaged != nil {
			all = append(all, b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func noDamage(t testing.TB, l *Log) {
	t.Helper()
	for _, d := range l.Damage() {
		t.Errorf("damage: %s", d)
	}
}

func TestCommitAndReopen(t *testing.T) {
	for _, clean := range []bool{true, false} {
		fs := vfs.NewMem()
		newStore(t, fs)
		l := mustStart(t, testOptions(fs))
		var reqs []*Request
		var seqs []Sequence
		for i := range uint64(20) {
			r := request("k", i+1, 100, 700)
			r.Frames = append(r.Frames, NewFrame{Kind: KindMove, Payload: nil})
			seqs = append(seqs, mustCommit(t, l, r))
			reqs = append(reqs, r)
		}
		check := func(l *Log) {
			t.Helper()
			for i, r := range reqs {
				for j, loc := range r.Locs {
					kind, p, err := l.ReadFrame(loc, make([]byte, 0, 4096))
					if err != nil || kind != r.Frames[j].Kind || !bytes.Equal(p, r.Frames[j].Payload) {
						t.Fatalf("frame %d of %d: %s %v", j, i, kind, err)
					}
				}
				key, seq, p, err := l.ReadRecord(r.RecordLocs[0])
				if err != nil || string(key) != "k" || seq != uint64(i+1) || !bytes.Equal(p, r.Records[0].Payload) {
					t.Fatalf("record %d: %q %d %q %v", i, key, seq, p, err)
				}
			}
			batches := replayAll(t, l)
			if len(batches) != len(reqs) {
				t.Fatalf("%d batches, want %d", len(batches), len(reqs))
			}
			for i, b := range batches {
				if b.Seq != seqs[i] || len(b.Frames) != 3 || len(b.Records) != 1 || b.Damaged != nil {
					t.Fatalf("batch %d: %+v", i, b)
				}
				for j, f := range b.Frames {
					if f.Loc != reqs[i].Locs[j] || f.Kind != reqs[i].Frames[j].Kind || f.Damaged != nil || f.Batch != b.Seq {
						t.Fatalf("batch %d frame %d: %+v, want %s", i, j, f, reqs[i].Locs[j])
					}
				}
				if r := b.Records[0]; r.Loc != reqs[i].RecordLocs[0] || !bytes.Equal(r.Payload, reqs[i].Records[0].Payload) {
					t.Fatalf("batch %d record: %+v", i, r)
				}
				if h, ok, err := l.HashAt(b.Seq); !ok || err != nil || h != b.Hash {
					t.Fatalf("hash of %s: %s %v %v, want %s", b.Seq, h, ok, err, b.Hash)
				}
			}
			noDamage(t, l)
		}
		check(l)
		last, hash := l.Last()
		if clean {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if _, _, err := l.ReadFrame(reqs[0].Locs[0], nil); err == nil {
				t.Fatal("a closed log reads")
			}
		}
		for range 3 {
			l = mustOpen(t, testOptions(fs))
			got, gotHash := l.Last()
			if got < last || (got == last && hash != gotHash) {
				t.Fatalf("last is %s, was %s", got, last)
			}
			check(l)
			if err := l.Start(context.Background()); err != nil {
				t.Fatal(err)
			}
			check(l)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if n := l.Stats().QuarantinedBytes; n != 0 {
			t.Fatalf("%d bytes in quarantine", n)
		}
	}
}

func TestSpill(t *testing.T) {
	fs := vfs.NewMem()
	newStore(t, fs)
	l := mustStart(t, testOptions(fs))
	s, err := l.Spill(StreamBulk)
	if err != nil {
		t.Fatal(err)
	}
	var locs []Loc
	for i := range uint64(30) {
		loc, err := s.Append(KindGroup, filler(i, 900))
		if err != nil {
			t.Fatal(err)
		}
		locs = append(locs, loc)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	r := request("k", 1)
	r.Ranges = s.Ranges()
	seq := mustCommit(t, l, r)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for i, loc := range locs {
			if _, p, err := l.ReadFrame(loc, nil); err != nil || !bytes.Equal(p, filler(uint64(i), 900)) {
				t.Fatalf("frame %d: %v", i, err)
			}
		}
		b := replayAll(t, l)[0]
		var got []Loc
		for _, f := range b.Frames {
			if f.Damaged != nil {
				t.Fatal(f.Damaged)
			}
			got = append(got, f.Loc)
		}
		if b.Seq != seq || !slices.Equal(got, locs) {
			t.Fatalf("batch %s has %v, want %v", b.Seq, got, locs)
		}
		n := 0
		for f, err := range l.Scan(context.Background()) {
			if err != nil || f.Damaged != nil {
				t.Fatal(err, f.Damaged)
			}
			if f.Stream == StreamBulk {
				if f.Loc != locs[n] || !bytes.Equal(f.Payload, filler(uint64(n), 900)) {
					t.Fatalf("scan: %s, want %s", f.Loc, locs[n])
				}
				n++
			}
		}
		if n != len(locs) {
			t.Fatalf("scan met %d of %d", n, len(locs))
		}
		scansAlike(t, l)
		noDamage(t, l)
	}
	check()
	// The open segment goes on where it was left.
	s, _ = l.Spill(StreamBulk)
	loc, err := s.Append(KindGroup, []byte("more"))
	if err != nil {
		t.Fatal(err)
	}
	if last := locs[len(locs)-1]; loc.Segment != last.Segment || int64(loc.Offset) != last.end() {
		t.Fatalf("appended at %s, want behind %s", loc, last)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustStart(t, testOptions(fs))
	check()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// scansAlike fails unless ScanEach hands over what Scan yields, in order within a
// segment, and ends with the first error.
func scansAlike(t *testing.T, l *Log) {
	t.Helper()
	want := map[SegmentID][]string{}
	of := func(f FrameInfo) string { return fmt.Sprintf("%v %v %x %v", f.Kind, f.Loc, f.Payload, f.Damaged) }
	for f, err := range l.Scan(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		want[f.Loc.Segment] = append(want[f.Loc.Segment], of(f))
	}
	if len(want) < 2 {
		t.Fatalf("%d segments are not scanned side by side", len(want))
	}
	var mu sync.Mutex
	got := map[SegmentID][]string{}
	err := l.ScanEach(context.Background(), func(f FrameInfo) error {
		mu.Lock()
		defer mu.Unlock()
		got[f.Loc.Segment] = append(got[f.Loc.Segment], of(f))
		return nil
	})
	if err != nil || !maps.EqualFunc(got, want, slices.Equal) {
		t.Fatalf("scanned side by side: %v, %v\nwant %v", err, got, want)
	}
	ended := errors.New("ended")
	if err := l.ScanEach(context.Background(), func(FrameInfo) error { return ended }); !errors.Is(err, ended) {
		t.Fatalf("a scan that is ended says %v", err)
	}
}
