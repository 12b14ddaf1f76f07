package seglog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestForgedFrames stores payloads that consist of true frames of the same
// log, copied to every 64 bytes, and then breaks the headers in front of
// them, so that the search for the next header walks over the copies.
func TestForgedFrames(t *testing.T) {
	fs := vfs.NewMem()
	newStore(t, fs)
	o := testOptions(fs)
	o.SegmentSize = 1 << 20
	l := mustStart(t, o)
	victim := request("victim", 1, 40)
	mustCommit(t, l, victim)
	path := l.segmentPath(victim.Locs[0].Segment)
	data, err := fs.UnsafeGetFileDataBuffer(path)
	if err != nil {
		t.Fatal(err)
	}
	// All frames there are, headers and payloads, side by side: groups,
	// records, trailers.
	loot := bytes.Clone(data)
	var evil []byte
	for shift := 0; shift < len(loot); shift += frameAlign {
		evil = append(evil, loot[shift:]...)
	}
	r := &Request{
		Frames:  []NewFrame{{KindGroup, evil}, {KindNodes, evil[frameAlign:]}, {KindGroup, []byte("after")}},
		Records: []NewRecord{{Key: []byte("evil"), RecordSeq: 2, Payload: evil}},
	}
	mustCommit(t, l, r)
	mustCommit(t, l, request("victim", 3))
	want := make(map[Loc]bool)
	for f, err := range l.Scan(context.Background()) {
		if err != nil || f.Damaged != nil {
			t.Fatal(err, f.Damaged)
		}
		want[f.Loc] = true
	}
	if data, err = fs.UnsafeGetFileDataBuffer(path); err != nil {
		t.Fatal(err)
	}
	locs := append(append([]Loc(nil), r.Locs...), r.RecordLocs...)
	for mask := 1; mask < 1<<len(locs); mask++ {
		flip := func() {
			for i, loc := range locs {
				if mask&(1<<i) != 0 {
					data[int(loc.Offset)+mask%headerSize] ^= 0x10
				}
			}
		}
		flip()
		lost := 0
		for f, err := range l.Scan(context.Background()) {
			if err != nil {
				t.Fatal(err)
			}
			if f.Damaged != nil {
				lost++
			} else if !want[f.Loc] {
				t.Fatalf("mask %b: a forged frame at %s", mask, f.Loc)
			}
		}
		for i, loc := range locs {
			if _, _, err := l.ReadFrame(loc, nil); (err == nil) != (mask&(1<<i) == 0) {
				t.Fatalf("mask %b: frame %d: %v", mask, i, err)
			}
		}
		flip()
		if lost == 0 {
			t.Fatalf("mask %b: nothing lost", mask)
		}
	}
	// Every place in the payload that is no frame is none for ReadFrame either.
	for off := r.Locs[0].Offset + frameAlign; off < r.Locs[1].Offset; off += frameAlign {
		for _, n := range []uint32{headerSize + 40, headerSize, victim.RecordLocs[0].Length} {
			if _, _, err := l.ReadFrame(Loc{r.Locs[0].Segment, off, n}, nil); err == nil {
				t.Fatalf("a frame at %d", off)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMisplacedFrames: a true header verifies nowhere else.
func TestMisplacedFrames(t *testing.T) {
	s := newSealer([32]byte{1})
	h := header{kind: KindGroup, stream: StreamBulk, length: 10, offset: 640, segment: 7, epoch: 3, seq: 9, sum: 42}
	b := make([]byte, headerSize)
	s.put(b, &h)
	if got, err := s.parseAt(b, 7, 640, 3); err != nil || got != h {
		t.Fatal(got, err)
	}
	for name, err := range map[string]error{
		"segment":  second(s.parseAt(b, 8, 640, 3)),
		"offset":   second(s.parseAt(b, 7, 704, 3)),
		"future":   second(s.parseAt(b, 7, 640, 2)),
		"store":    second(newSealer([32]byte{2}).parseAt(b, 7, 640, 3)),
		"rewrites": second(s.parseAt(bytes.Replace(b, []byte{7}, []byte{8}, 1), 8, 640, 3)),
	} {
		if err == nil {
			t.Errorf("%s: verifies", name)
		}
	}
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := s.parse(b); err == nil {
				t.Fatalf("byte %d bit %d: verifies", i, bit)
			}
			b[i] ^= 1 << bit
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestOtherHistory: a segment from a copy of the store that went its own way
// has true frames with the right numbers, and is still not believed.
func TestOtherHistory(t *testing.T) {
	fs := vfs.NewMem()
	newStore(t, fs)
	l := mustStart(t, testOptions(fs))
	mustCommit(t, l, request("k", 1, 50))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := copyFS(fs)
	if err != nil {
		t.Fatal(err)
	}
	grow := func(fs *vfs.MemFS, payload string) (string, *Log) {
		l := mustStart(t, testOptions(fs))
		r := &Request{Records: []NewRecord{{Key: []byte("k"), RecordSeq: 2, Payload: []byte(payload)}}}
		mustCommit(t, l, r)
		r = &Request{Records: []NewRecord{{Key: []byte("k"), RecordSeq: 3, Payload: []byte(payload)}}}
		mustCommit(t, l, r)
		return l.segmentPath(r.RecordLocs[0].Segment), l
	}
	path, a := grow(fs, "here")
	otherPath, b := grow(other, "else")
	if path != otherPath {
		t.Fatal(path, otherPath)
	}
	defer a.Close()
	defer b.Close()
	mine, _ := fs.UnsafeGetFileDataBuffer(path)
	theirs, _ := other.UnsafeGetFileDataBuffer(path)
	// Only the last batch, of the same length and at the same place, is theirs.
	at := bytes.LastIndex(mine, []byte("here")) / frameAlign * frameAlign
	img, err := copyFS(fs)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := img.UnsafeGetFileDataBuffer(path)
	copy(data[at:], theirs[at:])
	l = mustOpen(t, testOptions(img))
	defer l.Close()
	got, err := contents(l)
	if err != nil || len(got) != 2 || got[3] != nil || len(l.Damage()) == 0 {
		t.Fatal(got, err, l.Damage())
	}
}

// TestProved: what looks like a torn tail is one only if nothing proves the
// contrary, and the frames of a batch without its trailer still count.
func TestProved(t *testing.T) {
	type proof struct {
		name  string
		prove func(l *Log)
		o     func(o *Options, seq Sequence)
		known bool
	}
	for _, p := range []proof{
		{name: "nothing"},
		{name: "the caller", o: func(o *Options, seq Sequence) { o.ProvedSequence = seq }, known: true},
		{name: "an idle log", prove: func(l *Log) {
			if err := l.inCommitter(func() error { l.proveLast(); return nil }); err != nil {
				panic(err)
			}
		}, known: true},
		{name: "a later batch", prove: func(l *Log) { l.Commit(context.Background(), request("z", 99)) }, known: true},
		{name: "closing", prove: func(l *Log) { l.Close() }, known: true},
	} {
		for _, what := range []string{"trailer", "frame", "record"} {
			t.Run(p.name+"/"+what, func(t *testing.T) {
				fs := vfs.NewMem()
				newStore(t, fs)
				l := mustStart(t, testOptions(fs))
				mustCommit(t, l, request("k", 1, 50))
				r := request("k", 2, 50, 60)
				seq := mustCommit(t, l, r)
				at := map[string]uint32{
					"frame": r.Locs[0].Offset, "record": r.RecordLocs[0].Offset,
					"trailer": uint32(r.RecordLocs[0].end()),
				}[what]
				if p.prove != nil {
					p.prove(l)
				}
				img := copyLive(t, l, fs)
				l.Close()
				data, _ := img.UnsafeGetFileDataBuffer(l.segmentPath(r.Locs[0].Segment))
				data[at+headerSize+3] ^= 1 // payload
				o := testOptions(img)
				if p.o != nil {
					p.o(&o, seq)
				}
				l = mustOpen(t, o)
				defer l.Close()
				if p.known && p.name != "closing" && len(l.Damage()) == 0 {
					t.Fatal("Open finds no damage")
				}
				var got *Batch
				for _, b := range replayAll(t, l) {
					if b.Seq == seq {
						got = b
					}
				}
				if !p.known {
					if got != nil || len(l.Damage()) != 0 {
						t.Fatalf("a torn tail: %v %v", got, l.Damage())
					}
					if last, _ := l.Last(); last >= seq {
						t.Fatalf("last is %s", last)
					}
					if err := l.Start(context.Background()); err != nil {
						t.Fatal(err)
					}
					names, err := img.List(testDir + "/" + quarantineDir)
					if err != nil || len(names) != 1 || l.Stats().QuarantinedBytes == 0 {
						t.Fatal(names, err)
					}
					return
				}
				if got == nil || len(l.Damage()) == 0 {
					t.Fatalf("lost in silence: %v", l.Damage())
				}
				if d := l.Damage()[0]; d.Batch != seq || d.Offset != at && what != "trailer" {
					t.Fatalf("damage: %s, want offset %d", d, at)
				}
				if last, _ := l.Last(); last < seq {
					t.Fatalf("last is %s, want %s", last, seq)
				}
				whole := 0
				for _, f := range got.Frames {
					if f.Damaged == nil {
						whole++
					}
				}
				rec := got.Records[0]
				switch what {
				case "frame":
					if whole != 1 || rec.Damaged != nil || got.Damaged != nil {
						t.Fatalf("%+v", got)
					}
				case "record":
					if whole != 2 || rec.Damaged == nil || string(rec.Key) != "k" || rec.RecordSeq != 2 || got.Damaged != nil {
						t.Fatalf("%+v", got)
					}
					if names := l.Damage()[0].Records; len(names) != 1 || string(names[0].Key) != "k" || names[0].RecordSeq != 2 {
						t.Fatalf("damage names %v", names)
					}
				case "trailer":
					if whole != 2 || rec.Damaged != nil || string(rec.Payload) != "k@2" || got.Damaged == nil {
						t.Fatalf("%+v", got)
					}
				}
				// It stays so when the log goes on.
				if err := l.Start(context.Background()); err != nil {
					t.Fatal(err)
				}
				next := mustCommit(t, l, request("k", 3))
				if next <= seq {
					t.Fatalf("sequence %s again", next)
				}
				l.Close()
				l = mustOpen(t, testOptions(img))
				n := 0
				for _, b := range replayAll(t, l) {
					for _, r := range b.Records {
						if string(r.Key) == "k" && r.Damaged == nil {
							n++
						}
					}
				}
				if want := map[string]int{"frame": 3, "trailer": 3, "record": 2}[what]; n != want {
					t.Fatalf("%d records afterwards, want %d", n, want)
				}
			})
		}
	}
}

// TestUnreadableSector: a sector that can not be read costs the frames on it.
func TestUnreadableSector(t *testing.T) {
	mem := vfs.NewMem()
	newStore(t, mem)
	var bad int64 = -1
	fs := &faultFS{FS: mem, before: func(op fsOp) error {
		if op.name == "read" && op.segment() && bad >= op.off && bad < op.off+op.n {
			return fmt.Errorf("bad sector")
		}
		return nil
	}}
	o := testOptions(fs)
	o.SegmentSize = 1 << 20
	l := mustStart(t, o)
	rng := rand.New(rand.NewPCG(1, 8))
	var locs []Loc
	for i := range uint64(60) {
		size := rng.IntN(9000)
		if i == 59 {
			size = 20000
		}
		r := request("k", i+1, size)
		mustCommit(t, l, r)
		locs = append(locs, r.Locs[0])
	}
	bad = int64(locs[30].Offset) + int64(locs[30].Length)/2
	sector := span{bad / scanSector * scanSector, (bad/scanSector + 1) * scanSector}
	lost := 0
	for f, err := range l.ScanSegment(context.Background(), locs[0].Segment) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Damaged != nil {
			lost++
			if !sector.overlaps(span{int64(f.Loc.Offset), f.Loc.end()}) {
				t.Errorf("%s is lost", f.Loc)
			}
		}
	}
	if lost == 0 || lost > 8 {
		t.Fatalf("%d frames lost", lost)
	}
	// A tail that can not be read may have been committed: Open must not decide.
	l2, err := Open(o)
	if err == nil {
		l2.Close() // proved by the batches behind it
	}
	for _, bad = range []int64{locs[59].end() - 1, int64(locs[59].Offset) + 9000} {
		if _, err := Open(o); err == nil {
			t.Fatal("opened over an unreadable tail")
		}
	}
	bad = -1
	l.Close()
}

// TestLostSegment: the whole content of a segment that ROOT lists as open is
// lost, and only what the next segment says gives it away.
func TestLostSegment(t *testing.T) {
	mem := vfs.NewMem()
	newStore(t, mem)
	l := mustStart(t, testOptions(mem))
	l.sealMu.Lock() // nothing is sealed: both segments stay open
	var locs []Loc
	for i := uint64(1); len(locs) == 0 || locs[len(locs)-1].Segment == locs[0].Segment; i++ {
		r := request("k", i, 500)
		mustCommit(t, l, r)
		locs = append(locs, r.Locs[0])
	}
	l.rootMu.Lock()
	img, err := copyFS(mem)
	l.rootMu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	l.sealMu.Unlock()
	for name, lose := range map[string]func(fs *vfs.MemFS, path string){
		"zeroed":  func(fs *vfs.MemFS, path string) { b, _ := fs.UnsafeGetFileDataBuffer(path); clear(b) },
		"removed": func(fs *vfs.MemFS, path string) { fs.Remove(path) },
		"junk": func(fs *vfs.MemFS, path string) {
			b, _ := fs.UnsafeGetFileDataBuffer(path)
			copy(b, filler(1, len(b)))
		},
	} {
		fs, err := copyFS(img)
		if err != nil {
			t.Fatal(err)
		}
		lose(fs, l.segmentPath(locs[0].Segment))
		o := mustOpen(t, testOptions(fs))
		found := false
		for _, d := range o.Damage() {
			found = found || d.Segment == locs[0].Segment
		}
		if !found {
			t.Errorf("%s: lost in silence: %v", name, o.Damage())
		}
		if got := replayAll(t, o); got[len(got)-1].Records[0].RecordSeq != uint64(len(locs)) {
			t.Errorf("%s: what followed is not there", name)
		}
		if err := o.Start(context.Background()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		mustCommit(t, o, request("k", 1000))
		o.Close()
		// The next process is told again, by Replay.
		o = mustOpen(t, testOptions(fs))
		told := false
		for _, b := range replayAll(t, o) {
			told = told || b.Damaged != nil
		}
		if !told || len(o.Damage()) == 0 {
			t.Errorf("%s: forgotten by the next open: %v", name, o.Damage())
		}
		o.Close()
	}
}

// TestOldRoot puts both copies of ROOT back to an earlier state.
func TestOldRoot(t *testing.T) {
	fs := vfs.NewCrashableMem()
	newStore(t, fs)
	old := make(map[string][]byte)
	for _, name := range []string{rootNameA, rootNameB} {
		data, err := readFile(fs, fs.PathJoin(testDir, name), maxRootFile)
		if err != nil {
			t.Fatal(err)
		}
		old[name] = data
	}
	l := mustStart(t, testOptions(fs))
	r := request("k", 1, 100)
	mustCommit(t, l, r)
	last, _ := l.Last()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := segmentName(r.Locs[0].Segment)
	for name, data := range old {
		if err := writeFile(fs, testDir, name, data); err != nil {
			t.Fatal(err)
		}
	}
	o := testOptions(fs)
	o.MinSequence = last
	if _, err := Open(o); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("a store that was rolled back opens: %v", err)
	}
	l = mustOpen(t, testOptions(fs))
	if d := l.Damage(); len(d) != 1 || d[0].Segment != r.Locs[0].Segment {
		t.Fatalf("damage: %v", d)
	}
	if err := l.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s := l.Segments(); len(s) != 1 || s[0].ID <= r.Locs[0].Segment {
		t.Fatalf("segments: %v", s)
	}
	if names, err := fs.List(testDir + "/" + quarantineDir); err != nil || len(names) != 1 || names[0] != name {
		t.Fatalf("in quarantine: %v %v", names, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
