package seglog

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A written record is one that was acknowledged, and the batch it is of.
type written struct {
	key string
	seq uint64
}

// records lists what Replay tells of records: those that are whole, and those
// that are named and can not be read.
func records(l *Log) (map[written]Sequence, error) {
	all := make(map[written]Sequence)
	err := l.Replay(context.Background(), 0, func(b *Batch) error {
		for _, r := range b.Records {
			all[written{string(r.Key), r.RecordSeq}] = b.Seq
		}
		return nil
	})
	return all, err
}

// harm does damage to one file, of the kinds that hit more than one frame, and
// more than one place.
func harm(rng *rand.Rand, data []byte) string {
	at := func(n int) []byte {
		n = min(n, len(data))
		from := rng.IntN(len(data)-n+1) / 64 * 64
		return data[from : from+n]
	}
	n := []int{64, 512, 2048, 4096}[rng.IntN(4)]
	switch rng.IntN(4) {
	case 0: // overlapping, as often as not
		a, b := at(n), at(n)
		old := bytes.Clone(a)
		copy(a, b)
		copy(b, old)
		return "swap"
	case 1:
		clear(at(n))
		return "zeros"
	case 2:
		p := at(n)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		return "noise"
	default:
		flips := 2 + rng.IntN(6)
		for range flips {
			data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
		}
		return "flips"
	}
}

// No record vanishes without a word: after any damage to a file of the log, each
// that was acknowledged is there, or is named as damaged, or LostThrough says that
// what its batch changed is not known. Where it was not so, a caller went on with
// an older record of the same key as if it were the newest.
func TestNoRecordVanishes(t *testing.T) {
	seeds, tries := uint64(4), 100
	if testing.Short() {
		seeds, tries = 2, 50
	}
	var gone, refused int
	for seed := range seeds {
		for _, closed := range []bool{true, false} {
			img := makeImage(t, seed, closed)
			l := mustOpen(t, testOptions(img.fs))
			want, err := records(l)
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
			rng := rand.New(rand.NewPCG(seed, 8))
			for path, data := range img.files {
				if segmentOf(path) == 0 || len(data) == 0 {
					continue
				}
				for range tries {
					saved := bytes.Clone(data)
					what := harm(rng, data)
					if !closed && path == img.tailFile && !bytes.Equal(saved[img.tail.from:], data[img.tail.from:]) {
						copy(data, saved) // may be a write that a crash cut off
						continue
					}
					g, r, err := img.vanished(want)
					if err != nil {
						t.Fatalf("seed %d, closed %t, %s: %s: %v", seed, closed, path, what, err)
					}
					gone, refused = gone+g, refused+r
					copy(data, saved)
				}
			}
		}
	}
	t.Logf("%d records gone, in %d stores that say so", gone, refused)
	if gone == 0 || refused == 0 {
		t.Error("nothing was lost, so nothing was tested")
	}
}

// vanished counts records of which nothing is left, where that is told.
func (img *image) vanished(want map[written]Sequence) (gone, refused int, err error) {
	l, err := Open(testOptions(img.fs))
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	have, err := records(l)
	if err != nil {
		return 0, 0, err
	}
	for r, batch := range want {
		if _, ok := have[r]; ok {
			continue
		}
		gone++
		if through := l.LostThrough(); through < batch {
			return 0, 0, fmt.Errorf("record %d of %s, of batch %s, is gone without a word; lost through %s, damage %v", r.seq, r.key, batch, through, l.Damage())
		}
	}
	if gone > 0 {
		refused = 1
	}
	return gone, refused, nil
}

// The trailer of one batch is damaged where it stands, and the batches behind it
// are gone: their bytes are no part of the batch before, which ended at its
// trailer, nor of the one behind, which says where it begins.
func TestLostBehindDamagedTrailer(t *testing.T) {
	fs, locs, seqs, data := batches(t, 5)
	trailer := locs[1].end()
	data[trailer+headerSize] ^= 1              // of the second batch
	clear(data[locs[2].Offset:locs[4].Offset]) // the third and the fourth
	losesThrough(t, fs, seqs[3])
}

// A batch without its trailer has a record that can not be read: nothing tells
// whose it is.
func TestDamagedRecordWithoutTrailer(t *testing.T) {
	fs, locs, seqs, data := batches(t, 3)
	data[locs[1].Offset+headerSize] ^= 1
	data[locs[1].end()+headerSize] ^= 1
	losesThrough(t, fs, seqs[1])
}

// batches makes a log of n batches with a record each, in one segment, and gives
// where the records are, the batches' sequences, and the bytes of the segment.
func batches(t *testing.T, n uint64) (fs *vfs.MemFS, locs []Loc, seqs []Sequence, data []byte) {
	t.Helper()
	fs = vfs.NewMem()
	newStore(t, fs)
	l := mustStart(t, testOptions(fs))
	for i := range n {
		r := &Request{Records: []NewRecord{{Key: []byte("k"), RecordSeq: i + 1, Payload: fmt.Appendf(nil, "k@%d", i+1)}}}
		seq, err := l.Commit(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		seqs, locs = append(seqs, seq), append(locs, r.RecordLocs[0])
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := fs.UnsafeGetFileDataBuffer(l.segmentPath(locs[0].Segment))
	if err != nil {
		t.Fatal(err)
	}
	return fs, locs, seqs, data
}

func losesThrough(t *testing.T, fs *vfs.MemFS, want Sequence) {
	t.Helper()
	l := mustOpen(t, testOptions(fs))
	defer l.Close()
	if _, err := records(l); err != nil {
		t.Fatal(err)
	}
	if got := l.LostThrough(); got != want {
		t.Errorf("lost through %s, want %s: %v", got, want, l.Damage())
	}
}
