package seglog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// An image is a store at rest, and what stands in it.
type image struct {
	fs      *vfs.MemFS
	files   map[string][]byte // the bytes themselves: changing them changes the file
	batches map[Sequence]digest
	frames  map[Loc][32]byte // of Scan
	last    Sequence
	// tail is where the last batch stands, if nothing proves that it was synced.
	tailFile string
	tail     span
	tailSeq  Sequence
}

// A digest is all that Replay tells of a batch.
type digest struct {
	hash Hash
	sum  [32]byte
}

func digestOf(b *Batch) digest {
	h := sha256.New()
	for _, f := range b.Frames {
		fmt.Fprint(h, f.Kind, f.Loc, f.Epoch, f.Stream, f.Damaged != nil)
	}
	for _, r := range b.Records {
		fmt.Fprintf(h, "%x %d %v %s %x %v", r.Key, r.RecordSeq, r.Moved, r.Loc, r.Payload, r.Damaged != nil)
	}
	return digest{hash: b.Hash, sum: [32]byte(h.Sum(nil))}
}

// observe reads all there is.
func observe(l *Log) (batches map[Sequence]digest, all map[Sequence]*Batch, frames map[Loc][32]byte, lost []FrameInfo, err error) {
	batches, all, frames = make(map[Sequence]digest), make(map[Sequence]*Batch), make(map[Loc][32]byte)
	err = l.Replay(context.Background(), 0, func(b *Batch) error {
		batches[b.Seq], all[b.Seq] = digestOf(b), b
		return nil
	})
	if err != nil {
		return
	}
	for f, err := range l.Scan(context.Background()) {
		if err != nil {
			return nil, nil, nil, nil, err
		}
		if f.Damaged != nil {
			lost = append(lost, f)
			continue
		}
		frames[f.Loc] = sha256.Sum256(f.Payload)
	}
	return
}

// makeImage runs a history and leaves it closed, or as a crash would.
func makeImage(t *testing.T, seed uint64, closed bool) *image {
	fs := vfs.NewMem()
	newStore(t, fs)
	h := &history{t: t, m: &model{}, rng: rand.New(rand.NewPCG(seed, 5))}
	h.l = mustStart(t, testOptions(fs))
	for range 8 {
		if err := h.step(); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.l.Close(); err != nil {
		t.Fatal(err)
	}
	h.l = mustStart(t, testOptions(fs))
	for range 4 {
		if err := h.commit([]int{200, 100}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.commit([]int{300}, []int{400}); err != nil {
		t.Fatal(err)
	}
	if closed {
		if err := h.l.Close(); err != nil {
			t.Fatal(err)
		}
	} else {
		fs = copyLive(t, h.l, fs)
		h.l.Close()
	}
	img := &image{fs: fs, files: make(map[string][]byte)}
	for _, dir := range []string{testDir, testDir + "/" + logDirName} {
		names, err := fs.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			path := fs.PathJoin(dir, name)
			if st, err := fs.Stat(path); err != nil || st.IsDir() {
				continue
			}
			data, err := fs.UnsafeGetFileDataBuffer(path)
			if err != nil {
				t.Fatal(err)
			}
			img.files[path] = data
		}
	}
	l := mustOpen(t, testOptions(fs))
	defer l.Close()
	if err := checkHolds(l, h.m.snapshot()); err != nil {
		t.Fatal(err)
	}
	var err error
	if img.batches, _, img.frames, _, err = observe(l); err != nil {
		t.Fatal(err)
	}
	img.last, _ = l.Last()
	r, _, err := readRootFiles(fs, testDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range l.found.accepted {
		if b.seq == img.last && b.seq > r.last {
			img.tailFile, img.tail, img.tailSeq = b.seg.path, span{b.start, b.end}, b.seq
		}
	}
	return img
}

// TestFlips flips bits in every file of a store. Each flip is harmless, or
// named; what it does not touch is as before; nothing is ever taken for true
// that was not written.
func TestFlips(t *testing.T) {
	seeds, places := uint64(3), 600 // places in each file
	if testing.Short() {
		seeds, places = 1, 150
	}
	for seed := range seeds {
		for _, closed := range []bool{true, false} {
			t.Run(fmt.Sprintf("seed%d/closed=%v", seed, closed), func(t *testing.T) {
				img := makeImage(t, seed, closed)
				rng := rand.New(rand.NewPCG(seed, 6))
				var harmless, named, torn int
				for path, data := range img.files {
					step := 1 + len(data)/places
					for at := rng.IntN(step); at < len(data); at += step {
						bit := byte(1) << rng.IntN(8)
						data[at] ^= bit
						kind, err := img.judge(path, int64(at))
						data[at] ^= bit
						if err != nil {
							t.Fatalf("%s: byte %d, bit %#x: %v", path, at, bit, err)
						}
						switch kind {
						case "harmless":
							harmless++
						case "torn":
							torn++
						default:
							named++
						}
					}
				}
				t.Logf("%d flips harmless, %d named, %d in the unproved tail", harmless, named, torn)
				if named == 0 || (img.tailFile == "") != (torn == 0) {
					t.Errorf("%d named, %d torn", named, torn)
				}
			})
		}
	}
}

// TestSectors does the same to whole sectors: zeroed, or from another place.
func TestSectors(t *testing.T) {
	for seed := range uint64(2) {
		for _, closed := range []bool{true, false} {
			img := makeImage(t, seed, closed)
			rng := rand.New(rand.NewPCG(seed, 7))
			for path, data := range img.files {
				for at := 0; at < len(data); at += 512 {
					sector := data[at:min(at+512, len(data))]
					saved := bytes.Clone(sector)
					if rng.IntN(2) == 0 {
						clear(sector)
					} else {
						from := rng.IntN(len(data))
						copy(sector, data[from-from%64:])
					}
					if !bytes.Equal(saved, sector) {
						if _, err := img.judgeSpan(path, span{int64(at), int64(at + len(sector))}); err != nil {
							t.Fatalf("seed %d: %s: sector at %d: %v", seed, path, at, err)
						}
					}
					copy(sector, saved)
				}
			}
		}
	}
}

func (img *image) judge(path string, at int64) (string, error) {
	return img.judgeSpan(path, span{at, at + 1})
}

// judgeSpan opens the store with bytes of one file changed.
func (img *image) judgeSpan(path string, changed span) (string, error) {
	l, err := Open(testOptions(img.fs))
	if err != nil {
		return "", fmt.Errorf("open: %w", err) // one copy of ROOT is always whole
	}
	defer l.Close()
	batches, all, frames, lost, err := observe(l)
	if err != nil {
		return "", err
	}
	damage := l.Damage()
	if path == img.tailFile && changed.overlaps(img.tail) {
		// The last batch may be gone; then it is gone as a whole.
		if _, there := batches[img.tailSeq]; !there && len(batches) == len(img.batches)-1 {
			if last, _ := l.Last(); last >= img.tailSeq {
				return "", fmt.Errorf("the last batch is gone, but last is %s", last)
			}
			for seq, d := range batches {
				if d.sum != img.batches[seq].sum || d.hash != img.batches[seq].hash {
					return "", fmt.Errorf("batch %s differs", seq)
				}
			}
			return "torn", nil
		}
	}
	same := len(batches) == len(img.batches)
	for seq, want := range img.batches {
		got, ok := batches[seq]
		if !ok || got.sum != want.sum || (got.hash != want.hash && got.hash != Hash{}) {
			same = false
		}
	}
	for loc := range frames {
		if frames[loc] != img.frames[loc] {
			return "", fmt.Errorf("a frame at %s that nobody wrote", loc)
		}
	}
	tail := path == img.tailFile && changed.overlaps(img.tail)
	missing := 0
	for loc := range img.frames {
		if _, ok := frames[loc]; ok {
			continue
		}
		if tail && loc.Segment == segmentOf(path) && int64(loc.Offset) >= img.tail.from {
			continue
		}
		missing++
		if !(loc.Segment == segmentOf(path) && changed.overlaps(span{int64(loc.Offset), loc.end()})) {
			return "", fmt.Errorf("the frame at %s is lost, but was not touched", loc)
		}
		if !covered(lost, loc) {
			return "", fmt.Errorf("the frame at %s is lost, and Scan does not say so", loc)
		}
	}
	if same && missing == 0 && len(damage) == 0 {
		return "harmless", nil
	}
	if len(damage) == 0 {
		return "", errors.New("something is lost in silence")
	}
	for _, d := range damage {
		if d.File != path {
			return "", fmt.Errorf("damage of another file: %s", d)
		}
	}
	if strings.HasSuffix(path, segmentSuffix) && !img.blames(damage, changed) {
		return "", fmt.Errorf("no damage names the place: %s", damage[0])
	}
	// Whatever a batch still shows as whole is what was written.
	for seq, b := range all {
		if err := img.trueTo(seq, b); err != nil {
			return "", err
		}
	}
	return "named", nil
}

func segmentOf(path string) SegmentID {
	id, _ := parseSegmentName(path[strings.LastIndexByte(path, '/')+1:])
	return id
}

func covered(lost []FrameInfo, loc Loc) bool {
	for _, f := range lost {
		if f.Loc.Segment == loc.Segment && int64(f.Loc.Offset) <= int64(loc.Offset) && f.Loc.end() >= loc.end() {
			return true
		}
	}
	return false
}

// blames reports whether a damage lies within a frame of where it was done.
func (img *image) blames(damage []Damage, changed span) bool {
	for _, d := range damage {
		length := max(int64(d.Length), frameAlign)
		if changed.overlaps(span{int64(d.Offset) - frameAlign, int64(d.Offset) + alignUp(length)}) {
			return true
		}
	}
	return false
}

// trueTo checks that what b shows as whole was written.
func (img *image) trueTo(seq Sequence, b *Batch) error {
	for _, f := range b.Frames {
		if f.Damaged == nil {
			if _, ok := img.frames[f.Loc]; !ok {
				return fmt.Errorf("batch %s has a frame at %s that nobody wrote", seq, f.Loc)
			}
		}
	}
	for _, r := range b.Records {
		if r.Damaged == nil && string(r.Payload) != fmt.Sprintf("%s@%d", r.Key, r.RecordSeq) {
			return fmt.Errorf("batch %s has a record that nobody wrote: %q", seq, r.Payload)
		}
	}
	return nil
}
