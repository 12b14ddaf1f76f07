package chunk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/snapstore/snapstore/internal/seglog"
)

// Whatever byte of a group is wrong, and with what behind it: what is salvaged is
// right, and all that a reader of one page would be given is among it.
func TestSalvage(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 10))
	ids := make([]ID, GroupPages)
	pages := make([]byte, GroupPages*PageSize)
	for b := 0; b < len(pages); b += 8 {
		binary.LittleEndian.PutUint64(pages[b:], rng.Uint64N(1<<20))
	}
	if err := SumPages(ids, pages); err != nil {
		t.Fatal(err)
	}
	for _, codec := range []Codec{CodecRaw, CodecS2, CodecZstd, CodecS2Parts, CodecDelta} {
		var c Coder
		payload, _, err := c.AppendGroup(nil, codec, ids, pages)
		if err != nil {
			t.Fatal(err)
		}
		most, least := 0, GroupPages
		for range 400 {
			hurt := append(bytes.Clone(payload), make([]byte, rng.IntN(64))...)
			for range 1 + rng.IntN(2) {
				hurt[groupHeader+rng.IntN(len(payload)-groupHeader)] ^= 1 << rng.IntN(8)
			}
			s := c.Salvage(bytes.Clone(hurt))
			if s.Size != len(payload) || len(s.IDs) != GroupPages {
				t.Fatalf("%v: %d bytes of %d, %d pages", codec, s.Size, len(payload), len(s.IDs))
			}
			n := 0
			for slot := range GroupPages {
				if s.Has(slot) {
					n++
					if s.IDs[slot] != ids[slot] || !bytes.Equal(s.Page(slot), pages[slot*PageSize:(slot+1)*PageSize]) {
						t.Fatalf("%v: slot %d is another page", codec, slot)
					}
				}
				g, err := parseGroup(bytes.Clone(hurt[:len(payload)]))
				if err != nil {
					t.Fatal(err)
				}
				for p := range g.parts(1 << slot) {
					stored, err := g.stored(p)
					if err != nil {
						continue
					}
					if same, _ := g.decodeFor(&c, p, make([]byte, p.raw()), stored, 1<<slot); same != 0 && !s.Has(slot) {
						t.Fatalf("%v: slot %d is read and not salvaged", codec, slot)
					}
				}
			}
			most, least = max(most, n), min(least, n)
		}
		t.Logf("%v: %d to %d of %d pages are left", codec, least, most, GroupPages)
		if codec != CodecZstd && most < GroupPages-partPages {
			t.Errorf("%v: of no damaged group more than %d pages are left", codec, most)
		}
	}
	for n := range groupHeader + 1 {
		if s := new(Coder).Salvage(make([]byte, n)); s.Whole != 0 {
			t.Error("something was salvaged of nothing")
		}
	}
	var c Coder
	for range 2000 {
		junk := make([]byte, rng.IntN(2000))
		for i := range junk {
			junk[i] = byte(rng.Uint32())
		}
		if len(junk) > groupHeader {
			junk[groupVersionAt], junk[groupCodecAt], junk[groupCountAt], junk[groupZeroAt] = 1+junk[0]%2, junk[1]%byte(lastCodec+1), junk[2]%20, 0
		}
		if s := c.Salvage(junk); s.Whole != 0 {
			t.Error("something was salvaged of noise")
		}
	}
}

// hurtLog has a frame that is damaged, and of which parts can not be read.
type hurtLog struct {
	*fakeLog
	at   seglog.Loc
	part func(from, to int) error // of the payload
}

func (l *hurtLog) ReadFrame(loc seglog.Loc, buf []byte) (seglog.Kind, []byte, error) {
	if loc == l.at {
		return 0, nil, &seglog.FrameError{Segment: loc.Segment, Offset: loc.Offset, Reason: "the payload is damaged"}
	}
	return l.fakeLog.ReadFrame(loc, buf)
}

// ReadOn fails as it does where the header is damaged too.
func (l *hurtLog) ReadOn(loc seglog.Loc, buf []byte, peek int) (seglog.Kind, []byte, seglog.Behind, error) {
	if _, _, err := l.ReadFrame(loc, buf); err != nil {
		return 0, nil, seglog.Behind{}, err
	}
	return l.fakeLog.ReadOn(loc, buf, peek)
}

func (l *hurtLog) ReadPart(loc seglog.Loc, off int, buf []byte) error {
	if loc == l.at {
		if err := l.part(off, off+len(buf)); err != nil {
			return err
		}
	}
	return l.fakeLog.ReadPart(loc, off, buf)
}

// newHurt is a store with one group, whose frame is damaged.
func newHurt(t *testing.T, part func(l *hurtLog, from, to int) error) (*kit, []ID) {
	l := &hurtLog{}
	k := newKit(t, func(o *StoreOptions) { l.fakeLog, o.Log = o.Log.(*fakeLog), l })
	ids := k.put(1, GroupPages)
	for l.at = range l.frames {
	}
	l.part = func(from, to int) error { return part(l, from, to) }
	return k, ids
}

// Too many open files are no damage, also where they are met beside some.
func TestReadErrorBesideDamageIsNone(t *testing.T) {
	t.Parallel()
	busy := true
	k, ids := newHurt(t, func(*hurtLog, int, int) error {
		if busy {
			return fmt.Errorf("open: %w", syscall.EMFILE)
		}
		return nil
	})
	p := make([]byte, PageSize)
	for _, id := range ids {
		if err := k.s.Page(id, p); !errors.Is(err, syscall.EMFILE) || Unreadable(err) {
			t.Fatal(err)
		}
	}
	if n := len(k.lost()); n != 0 {
		t.Errorf("%d pages are lost", n)
	}
	busy = false
	for _, id := range ids {
		if err := k.s.Page(id, p); err != nil || Sum(p) != id {
			t.Fatal(err)
		}
	}
	k.idle()
}

// A sector that can not be read, and the end of a file, cost the pages that need what
// is there, whether one is asked for or all.
func TestBadSectorIsThatOfPages(t *testing.T) {
	t.Parallel()
	for _, cut := range []bool{false, true} {
		for eighth := 1; eighth <= 8; eighth++ {
			k, ids := newHurt(t, func(l *hurtLog, from, to int) error {
				end, start := l.at.PayloadSize()*eighth/8, int(l.at.Length)-l.at.PayloadSize()
				sector := (start + end - 1) / 4096
				switch {
				case cut && to > end:
					return &seglog.FrameError{Reason: "can not be read", Err: io.ErrUnexpectedEOF}
				case !cut && (start+from)/4096 <= sector && (start+to-1)/4096 >= sector:
					return &seglog.FrameError{Reason: "can not be read", Err: syscall.EIO}
				}
				return nil
			})
			served := map[ID]bool{}
			p := make([]byte, PageSize)
			for _, id := range ids {
				err := k.s.Page(id, p)
				if served[id] = err == nil; err != nil && !Unreadable(err) {
					t.Fatal(err)
				}
			}
			refs := make([]PageRef, len(ids))
			for i, id := range ids {
				refs[i] = PageRef{ID: id, Dst: make([]byte, PageSize)}
			}
			if err := k.s.PagesOnce(context.Background(), refs); err != nil && !Unreadable(err) {
				t.Fatal(err)
			}
			n := 0
			for _, r := range refs {
				if whole := Sum(r.Dst) == r.ID; whole != served[r.ID] {
					t.Errorf("cut %t at %d/8: a page is served among others: %t; alone: %t", cut, eighth, whole, !whole)
				} else if whole {
					n++
				}
			}
			t.Logf("cut %t at %d/8: %d of %d pages", cut, eighth, n, len(ids))
			k.idle()
		}
	}
}
