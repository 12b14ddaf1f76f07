package chunk

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/bits"

	"github.com/snapstore/snapstore/internal/seglog"
)

// Salvaged is what is left of a group that is damaged.
type Salvaged struct {
	Domain Domain
	IDs    []ID
	Whole  uint32 // a bit for each slot whose page is what its ID names
	Size   int    // of the group's payload
	pages  []byte
}

// Has tells whether the page of a slot is whole.
func (s Salvaged) Has(slot int) bool { return s.Whole&(1<<slot) != 0 }

// Page is the page of a slot that is whole.
func (s Salvaged) Page(slot int) []byte { return s.pages[slot*PageSize : (slot+1)*PageSize] }

// MaxGroup is the most that the payload of a group has.
const MaxGroup = groupHeader + domainSize + GroupPages*idSize + maxRaw

// Salvage finds what is whole in the payload of a group's frame that is not. There
// may be more of payload than that has. Nothing is where the head does not fit the
// data. The payload is not to be used afterwards.
func (c *Coder) Salvage(payload []byte) Salvaged {
	if n, ok := sizeOfGroup(payload); ok {
		payload = payload[:n]
	}
	g, err := parseGroup(payload)
	if err != nil {
		return Salvaged{}
	}
	s := Salvaged{Domain: g.domain, IDs: g.ids(), Size: len(payload), pages: make([]byte, g.raw())}
	for p := range g.parts(1<<g.n - 1) {
		stored, err := g.stored(p)
		if err != nil {
			continue
		}
		// From the last page on: what is in front of the damage is whole, and is
		// decoded without what follows.
		pages := make([]byte, p.raw())
		for left := p.bits(); left != 0; {
			slot := bits.Len32(left) - 1
			same, err := g.decodeFor(c, p, pages, stored, left)
			if err != nil || same == 0 {
				left &^= 1 << slot
				continue
			}
			for i := p.first; i < p.end; i++ {
				if same&(1<<i) != 0 {
					copy(s.pages[i*PageSize:], p.of(pages, i))
				}
			}
			s.Whole |= same
			break
		}
		// Behind a page that is wrong and decodes all the same there may be others,
		// which who wants one alone is given.
		for slot := p.first; slot < p.end; slot++ {
			if s.Has(slot) {
				continue
			}
			if same, err := g.decodeFor(c, p, pages, stored, 1<<slot); err == nil && same != 0 {
				copy(s.pages[slot*PageSize:], p.of(pages, slot))
				s.Whole |= 1 << slot
			}
		}
	}
	return s
}

// sizeOfGroup is how long a payload is by its own head, where it is no longer than
// what is there.
func sizeOfGroup(payload []byte) (int, bool) {
	if len(payload) < groupHeader {
		return 0, false
	}
	n := groupHeader + int(payload[groupCountAt])*idSize
	if payload[groupVersionAt] == versionDomain {
		n += domainSize
	}
	size := uint64(n) + uint64(binary.LittleEndian.Uint32(payload[groupStoredAt:]))
	return int(min(size, MaxGroup)), size <= uint64(len(payload))
}

// SalvageAt is Salvage of the first n bytes of a frame's payload, or of as much of them
// as can be read. There is nothing in more than a group has. An error says that
// something could not be read: it may be whole, and what was found is all the same.
func (c *Coder) SalvageAt(log PartReader, loc seglog.Loc, n int) (Salvaged, error) {
	if n <= 0 || n > MaxGroup {
		return Salvaged{}, nil
	}
	payload := make([]byte, n)
	err := log.ReadPart(loc, 0, payload)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		return Salvaged{}, nil
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, seglog.ErrDamaged):
		err = readPieces(log, loc, payload)
	default:
		return Salvaged{}, err
	}
	return c.Salvage(payload), err
}

// readPiece is a piece that is read, or not, as a whole: systems read pages of files.
const readPiece = 4 << 10

// readPieces fills buf with what can be read of the start of a payload, so that a bad
// sector, or the end of the file, costs no more than itself. The rest is zeros. The
// error is that of what is there.
func readPieces(log PartReader, loc seglog.Loc, buf []byte) (err error) {
	start := int(loc.Offset) + int(loc.Length) - loc.PayloadSize() // in the file
	for off, size := 0, readPiece; off < len(buf); {
		piece := buf[off:min(off+size-(start+off)%size, len(buf))]
		bad := log.ReadPart(loc, off, piece)
		if errors.Is(bad, io.ErrUnexpectedEOF) {
			if size /= 2; size > 0 {
				continue // the end is in it
			}
			clear(buf[off:])
			return err
		}
		if bad != nil {
			clear(piece)
			err = bad
		}
		off += len(piece)
	}
	return err
}

// PartReader reads of a frame's payload what is there, verified or not. *seglog.Log is
// one.
type PartReader interface {
	ReadPart(loc seglog.Loc, off int, buf []byte) error
}

// salvage reads a page from a frame that is damaged, and says whether it is whole.
func (s *Store) salvage(loc seglog.Loc, slot int, id ID, dst []byte) (whole bool, err error) {
	g, err := s.coder.SalvageAt(s.log, loc, loc.PayloadSize())
	if slot >= len(g.IDs) || !g.Has(slot) || g.IDs[slot] != id || g.Domain != s.domain {
		return false, err
	}
	copy(dst, g.Page(slot))
	return true, nil
}
