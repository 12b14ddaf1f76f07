package seglog

import (
	"bytes"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Reading on gives what a frame has, and what stands behind it as far as there is room
// and as it can be read; it trusts the header, and nobody's payload.
func TestReadOn(t *testing.T) {
	mem := vfs.NewMem()
	newStore(t, mem)
	var bad atomic.Int64 // a sector that can not be read
	bad.Store(-1)
	fs := &faultFS{FS: mem, before: func(op fsOp) error {
		if at := bad.Load(); op.name == "read" && op.segment() && op.off <= at && at < op.off+op.n {
			return syscall.EIO
		}
		return nil
	}}
	l := mustStart(t, testOptions(fs))
	r := request("k", 1, 300, 200, 1) // a group, nodes, a group; then the record and the trailer
	mustCommit(t, l, r)
	data, err := mem.UnsafeGetFileDataBuffer(l.segmentPath(r.Locs[0].Segment))
	if err != nil {
		t.Fatal(err)
	}
	const peek = 40
	read := func(i, room int) (payload []byte, next Behind, err error) {
		t.Helper()
		kind, payload, next, err := l.ReadOn(r.Locs[i], make([]byte, 0, room), peek)
		if err == nil && kind != r.Frames[i].Kind {
			t.Errorf("frame %d is a %s", i, kind)
		}
		return payload, next, err
	}
	check := func(what string, i, room int, behind bool) {
		t.Helper()
		payload, next, err := read(i, room)
		if err != nil || !bytes.Equal(payload, r.Frames[i].Payload) {
			t.Errorf("%s: frame %d: %d bytes, %v", what, i, len(payload), err)
		}
		if !behind {
			if next.Head != nil || next.Loc != (Loc{}) {
				t.Errorf("%s: frame %d: %d bytes at %s behind it", what, i, len(next.Head), next.Loc)
			}
			return
		}
		head := r.Frames[i+1].Payload
		if next.Loc != r.Locs[i+1] || next.Kind != r.Frames[i+1].Kind || !bytes.Equal(next.Head, head[:min(peek, len(head))]) {
			t.Errorf("%s: frame %d: %+v behind it", what, i, next)
		}
	}
	const enough = 1 << 10
	// What is behind ends with what is written.
	if _, payload, next, err := l.ReadOn(r.Locs[2], make([]byte, 1<<14), 1<<13); err != nil || !bytes.Equal(payload, r.Frames[2].Payload) ||
		next.Loc != r.RecordLocs[0] || next.Kind != KindRecord || len(next.Head) != r.RecordLocs[0].PayloadSize() {
		t.Errorf("the last frame: %d bytes, %+v, %v", len(payload), next, err)
	}
	if _, _, next, err := l.ReadOn(r.RecordLocs[0], make([]byte, 1<<14), 1<<13); err != nil || next.Kind == 0 {
		t.Errorf("the record: %+v, %v", next, err)
	}
	check("as written", 0, enough, true)
	check("as written", 1, enough, true)
	check("no room behind", 0, int(r.Locs[0].Length), false)
	check("no room at all", 0, 0, false)
	check("room for no more than a header", 0, int(alignUp(int64(r.Locs[0].Length)))+headerSize, false)

	bad.Store(int64(r.Locs[1].Offset))
	check("unreadable behind", 0, enough, false)
	bad.Store(int64(r.Locs[0].Offset) + headerSize)
	if _, _, err := read(0, enough); !errors.Is(err, ErrDamaged) || !errors.Is(err, syscall.EIO) {
		t.Errorf("unreadable: %v", err)
	}
	bad.Store(-1)

	flip := func(i, at int) { data[int(r.Locs[i].Offset)+at] ^= 1 }
	flip(1, hdrSequence)
	check("damaged behind", 0, enough, false)
	if _, _, err := read(1, enough); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged header: %v", err)
	}
	flip(1, hdrSequence)
	flip(0, headerSize+7)
	payload, next, err := read(0, enough)
	if err != nil || len(payload) != 300 || next.Loc != r.Locs[1] {
		t.Errorf("a damaged payload: %d bytes, %v", len(payload), err)
	}
	if _, _, err := l.ReadFrame(r.Locs[0], nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged payload that is verified: %v", err)
	}
	for _, loc := range []Loc{{r.Locs[0].Segment, r.Locs[0].Offset, r.Locs[0].Length - 1}, {r.Locs[0].Segment, 1 << 30, headerSize}} {
		if _, _, _, err := l.ReadOn(loc, make([]byte, enough), peek); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", loc, err)
		}
	}
}
