package seglog

import (
	"bytes"
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"
)

func FuzzHeader(f *testing.F) {
	s := newSealer([32]byte{1})
	b := make([]byte, headerSize)
	s.put(b, &header{kind: KindGroup, stream: StreamBulk, length: 10, offset: 640, segment: 7, epoch: 3, sum: 42})
	f.Add(b)
	s.put(b, &header{kind: KindTrailer, stream: StreamCommit, length: MaxPayload, segment: 1, epoch: 1, seq: 1})
	f.Add(b)
	f.Add([]byte(frameMagic))
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) >= headerSize { // whatever it says, let it be authentic
			src = bytes.Clone(src)
			mac := s.mac(src[:hdrMAC])
			copy(src[hdrMAC:], mac[:])
		}
		h, err := s.parse(src)
		if err != nil {
			return
		}
		out := make([]byte, headerSize)
		s.put(out, &h)
		if !bytes.Equal(out, src[:headerSize]) {
			t.Fatalf("%x decodes to %+v, which is %x", src, h, out)
		}
	})
}

func FuzzTrailer(f *testing.F) {
	full := trailer{
		seq: 9, epoch: 2, previous: 8, prevHash: Hash{1}, headerHash: Hash{2}, start: 64, end: 640, frames: 4,
		records: []trailerRecord{{1, 64, false, []byte("a")}, {2, 192, true, bytes.Repeat([]byte("k"), MaxKey)}},
		ranges:  []Range{{3, 0, 64}, {4, 128, 192}},
	}
	f.Add(full.append(nil))
	f.Add((&trailer{seq: 1, epoch: 1}).append(nil))
	f.Fuzz(func(t *testing.T, src []byte) {
		tr, err := decodeTrailer(src)
		if err == nil && !bytes.Equal(tr.append(nil), src) {
			t.Fatalf("%x decodes to %+v", src, tr)
		}
		if err == nil && tr.size() != len(src) {
			t.Fatalf("size %d of %d", tr.size(), len(src))
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add((&record{key: []byte("k"), recordSeq: 7, payload: []byte("hello")}).append(nil))
	f.Add((&record{key: bytes.Repeat([]byte("k"), MaxKey), moved: true}).append(nil))
	f.Fuzz(func(t *testing.T, src []byte) {
		r, err := decodeRecord(src)
		if err == nil && (!bytes.Equal(r.append(nil), src) || r.size() != len(src)) {
			t.Fatalf("%x decodes to %+v", src, r)
		}
	})
}

func FuzzDirectory(f *testing.F) {
	d := directory{first: 3, last: 9, entries: []dirEntry{{0, 10, 5, KindGroup}, {128, 0, 6, KindTrailer}}}
	f.Add(d.append(nil))
	f.Add((&directory{}).append(nil))
	f.Fuzz(func(t *testing.T, src []byte) {
		d, err := decodeDirectory(src)
		if err == nil && !bytes.Equal(d.append(nil), src) {
			t.Fatalf("%x decodes to %+v", src, d)
		}
	})
}

func FuzzRoot(f *testing.F) {
	r := root{
		generation: 5, store: StoreID{1}, key: [32]byte{2}, epoch: 3, nextSegment: 9, nextSeq: 40, floor: 4, last: 30,
		lastHash: Hash{7}, segmentSize: defaultSegmentSize,
		segments: []segEntry{
			{id: 2, stream: StreamCommit, state: stateSealed, length: 640, dirAt: 512, first: 1, last: 9, hash: Hash{8}},
			{id: 5, stream: StreamBulk, state: stateRecovered, length: 64, hash: Hash{9}},
			{id: 8, state: stateOpen, empty: true},
		},
	}
	whole := r.append(nil)
	f.Add(whole[:len(whole)-rootHashSize])
	f.Add((&root{generation: 1, nextSegment: 1, nextSeq: 1, segmentSize: minSegmentSize}).append(nil)[:rootFixed])
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := decodeRoot(body); err == nil && len(body) < rootHashSize {
			t.Fatal("no hash")
		}
		sum := blake3.Sum256(body)
		src := append(bytes.Clone(body), sum[:]...)
		r, err := decodeRoot(src)
		if err == nil && !bytes.Equal(r.append(nil), src) {
			t.Fatalf("%x decodes to %+v", src, r)
		}
	})
}

// FuzzSegment puts arbitrary bytes behind a log, and in the middle of one.
func FuzzSegment(f *testing.F) {
	f.Add([]byte(frameMagic), uint16(200))
	f.Add(bytes.Repeat([]byte(frameMagic), 100), uint16(64))
	f.Add(make([]byte, 300), uint16(1000))
	mem := vfs.NewMem()
	newStore(f, mem)
	l := mustStart(f, testOptions(mem))
	r := request("k", 1, 100, 50)
	mustCommit(f, l, r)
	mustCommit(f, l, request("k", 2, 100, 50))
	path := l.segmentPath(r.Locs[0].Segment)
	whole, _ := mem.UnsafeGetFileDataBuffer(path)
	f.Add(bytes.Clone(whole[:320]), uint16(len(whole)))
	img, err := copyFS(mem)
	if err != nil {
		f.Fatal(err)
	}
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, junk []byte, at uint16) {
		fs, err := copyFS(img)
		if err != nil {
			t.Fatal(err)
		}
		file, err := fs.OpenReadWrite(path, writeCategory)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(junk, int64(at)); err != nil {
			t.Fatal(err)
		}
		file.Close()
		l, err := Open(testOptions(fs))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for range 2 {
			err = l.Replay(context.Background(), 0, func(b *Batch) error {
				for _, r := range b.Records {
					if p := string(r.Payload); r.Damaged == nil && p != "k@1" && p != "k@2" {
						t.Fatalf("a record that nobody wrote: %q", p)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range l.Scan(context.Background()) {
				if err != nil {
					t.Fatal(err)
				}
			}
			if l.check() == nil {
				break
			}
			if err := l.Start(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := l.Commit(context.Background(), request("k", 1)); err != nil {
			t.Fatal(err)
		}
	})
}
