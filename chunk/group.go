package chunk

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
	"slices"
)

// GroupPages is how many pages a group holds at most. Fewer make restores
// slower, more make reading one page slower; the space hardly changes.
const GroupPages = 16

const (
	idSize  = 32
	maxRaw  = GroupPages * PageSize
	version = 1 // of both payloads of this package, in the domain of the whole store
	// versionDomain is followed by the domain, behind the header.
	versionDomain = 2
	domainSize    = 32

	// The payload of a group frame starts with this header; see docs/format.md.
	groupVersionAt = 0
	groupCodecAt   = 1
	groupCountAt   = 2
	groupZeroAt    = 3
	groupRawAt     = 4
	groupStoredAt  = 8
	groupHeader    = 12

	// minSaving is the least part of the raw length that compressing must save.
	minSaving = 16
)

// pays says whether storing n bytes for raw ones is worth decompressing them.
func pays(n, raw int) bool { return n <= raw-raw/minSaving }

// AppendGroup appends the payload of a group of the whole store to dst; see
// AppendGroupIn.
func (c *Coder) AppendGroup(dst []byte, codec Codec, ids []ID, pages []byte) ([]byte, Codec, error) {
	return c.AppendGroupIn(dst, Domain{}, codec, ids, pages)
}

// AppendGroupIn appends the payload of a group of one domain to dst: up to
// GroupPages pages, side by side in pages, with their IDs, none of them zero. It
// returns the codec that was used: raw where compressing does not pay, or,
// counted in Faults, where what was compressed does not decompress to pages.
func (c *Coder) AppendGroupIn(dst []byte, d Domain, codec Codec, ids []ID, pages []byte) ([]byte, Codec, error) {
	if err := codec.check(); err != nil {
		return dst, 0, err
	}
	n := len(ids)
	if n < 1 || n > GroupPages || len(pages) != n*PageSize {
		return dst, 0, fmt.Errorf("chunk: group of %d ids and %d bytes", n, len(pages))
	}
	if codec == CodecS2Parts && n <= partPages {
		codec = CodecS2 // one part
	}
	start := len(dst)
	dst = slices.Grow(dst, groupHeader+domainSize+n*idSize+maxCompressed)
	dst = append(dst, versionOf(d), byte(codec), byte(n), 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(pages)))
	dst = binary.LittleEndian.AppendUint32(dst, 0) // stored length, below
	dst = appendDomain(dst, d)
	table := len(dst)
	for i := range ids {
		if ids[i].IsZero() {
			return dst[:start], 0, fmt.Errorf("chunk: group with a zero page")
		}
		dst = append(dst, ids[i][:]...)
	}
	if codec != CodecRaw {
		packed := c.compress(dst[len(dst):], codec, pages)
		switch {
		case len(packed) == 0 || !pays(len(packed), len(pages)):
			codec = CodecRaw
		case !c.proves(codec, packed, pages):
			c.faults.Add(1)
			codec = CodecRaw
		case &packed[0] == &dst[:len(dst)+1][len(dst)]: // in place already
			dst = dst[:len(dst)+len(packed)]
		default:
			dst = append(dst, packed...)
		}
	}
	if codec == CodecRaw {
		dst = append(dst, pages...)
	}
	dst[start+groupCodecAt] = byte(codec)
	stored := len(dst) - table - n*idSize
	binary.LittleEndian.PutUint32(dst[start+groupStoredAt:], uint32(stored))
	return dst, codec, nil
}

// group is a view of a payload that was checked in everything but its data.
type group struct {
	codec  Codec
	domain Domain
	n      int
	table  []byte // n IDs
	dataAt int    // in the payload
	data   []byte
}

// versionOf is the version of a payload in a domain: that of the whole store is
// as it was before there were others.
func versionOf(d Domain) byte {
	if d.IsZero() {
		return version
	}
	return versionDomain
}

func appendDomain(dst []byte, d Domain) []byte {
	if d.IsZero() {
		return dst
	}
	return append(dst, d[:]...)
}

// cutDomain takes the domain, if the version has one, from what follows a
// header.
func cutDomain(v byte, rest []byte) (d Domain, left []byte, err error) {
	switch {
	case v == version:
		return d, rest, nil
	case v != versionDomain:
		return d, nil, fmt.Errorf("version %d", v)
	case len(rest) < domainSize:
		return d, nil, fmt.Errorf("%d bytes for a domain", len(rest))
	}
	if d = Domain(rest); d.IsZero() {
		return d, nil, fmt.Errorf("a domain of zeros")
	}
	return d, rest[domainSize:], nil
}

// parseGroup checks all that can be checked without decompressing. Each group
// has one header and table; what the codec makes of the data is its own.
func parseGroup(payload []byte) (group, error) {
	g, err := readGroup(payload)
	if err != nil {
		return g, malformed{err}
	}
	return g, nil
}

func readGroup(payload []byte) (group, error) {
	g, err := readHead(payload, len(payload))
	if err != nil {
		return g, err
	}
	g.table, g.data = g.table[:g.n*idSize:g.n*idSize], payload[g.dataAt:]
	return g, nil
}

// headSize is how much of a payload is read to know which pages it has, and where
// its parts are.
const headSize = groupHeader + domainSize + GroupPages*idSize + 2*(maxParts-1)

// readHead reads what is in front of the data, of a payload of size bytes. There
// may be less of head than of the payload.
func readHead(head []byte, size int) (group, error) {
	var g group
	if len(head) < groupHeader {
		return g, fmt.Errorf("chunk: group of %d bytes", len(head))
	}
	var rest []byte
	var err error
	if g.domain, rest, err = cutDomain(head[groupVersionAt], head[groupHeader:]); err != nil {
		return g, fmt.Errorf("chunk: group of %w", err)
	}
	g.codec = Codec(head[groupCodecAt])
	if err := g.codec.check(); err != nil {
		return g, err
	}
	g.n = int(head[groupCountAt])
	if g.n < 1 || g.n > GroupPages || head[groupZeroAt] != 0 {
		return g, fmt.Errorf("chunk: group of %d pages", g.n)
	}
	if g.codec == CodecS2Parts && g.n <= partPages {
		return g, fmt.Errorf("chunk: group of %d pages in parts", g.n)
	}
	raw := binary.LittleEndian.Uint32(head[groupRawAt:])
	stored := binary.LittleEndian.Uint32(head[groupStoredAt:])
	if raw != uint32(g.n*PageSize) {
		return g, fmt.Errorf("chunk: group of %d pages and %d bytes", g.n, raw)
	}
	g.dataAt = len(head) - len(rest) + g.n*idSize
	if len(rest) < g.n*idSize || uint64(size) != uint64(g.dataAt)+uint64(stored) {
		return g, fmt.Errorf("chunk: group of %d bytes stores %d", size, stored)
	}
	if g.codec == CodecRaw && stored != raw || g.codec != CodecRaw && !pays(int(stored), int(raw)) {
		return g, fmt.Errorf("chunk: group stores %d bytes of %d as %v", stored, raw, g.codec)
	}
	g.table, g.data = rest[:g.n*idSize], rest[g.n*idSize:]
	for i := range g.n {
		if g.id(i).IsZero() {
			return g, fmt.Errorf("chunk: group with a zero page")
		}
	}
	return g, nil
}

// partAt is where the data of a part is in that of the group, which has size bytes.
// ok is false where the lengths are not there, or lie.
func (g group) partAt(p part, size int) (off, end int, ok bool) {
	switch g.codec {
	case CodecRaw:
		return p.first * PageSize, p.end * PageSize, p.end*PageSize <= size
	case CodecS2Parts, CodecDelta:
		return blockAt(g.data, size, blocksOf(g.raw()), p.first/partPages)
	}
	return 0, size, true // the only part
}

func (g group) id(i int) ID { return ID(g.table[i*idSize:]) }
func (g group) raw() int    { return g.n * PageSize }

func (g group) ids() []ID { return g.idsOf(part{0, g.n}) }

func (g group) idsOf(p part) []ID {
	ids := make([]ID, p.end-p.first)
	for i := range ids {
		ids[i] = g.id(p.first + i)
	}
	return ids
}

// part is a range of slots that are decoded together.
type part struct{ first, end int }

// parts yields the parts that hold pages in need, a bit for each slot.
func (g group) parts(need uint32) iter.Seq[part] {
	size := g.n
	if g.codec.inParts() || g.codec == CodecRaw {
		size = partPages
	}
	return func(yield func(part) bool) {
		for p := (part{0, min(size, g.n)}); p.first < g.n; p = (part{p.end, min(p.end+size, g.n)}) {
			if need&p.bits() != 0 && !yield(p) {
				return
			}
		}
	}
}

// sparse says whether the pages in need lie in so few parts that those are read
// alone.
func (g group) sparse(need uint32) bool {
	n := 0
	for range g.parts(need) {
		n++
	}
	return (g.codec.inParts() || g.codec == CodecRaw) && 2*n*partPages <= g.n
}

func (p part) bits() uint32 { return 1<<p.end - 1<<p.first }
func (p part) raw() int     { return (p.end - p.first) * PageSize }

// matchPart is match for one part, whose pages stand alone in pages.
func (g group) matchPart(p part, pages []byte, need uint32) (same uint32) {
	g.n, g.table = p.end-p.first, g.table[p.first*idSize:p.end*idSize]
	return g.match(pages, need&p.bits()>>p.first) << p.first
}

// match says which of the pages in need, a bit for each slot, are what their IDs
// name.
func (g group) match(pages []byte, need uint32) (same uint32) {
	var sums [GroupPages]ID
	for slot := 0; slot < g.n; {
		end := slot
		for end < g.n && need&(1<<end) != 0 {
			end++
		}
		if SumPages(sums[slot:end], pages[slot*PageSize:end*PageSize]) != nil {
			return 0 // lengths match
		}
		for ; slot < end; slot++ {
			if sums[slot] == g.id(slot) {
				same |= 1 << slot
			}
		}
		slot = end + 1
	}
	return same
}

// decode fills dst, of raw() bytes, and nothing beyond it.
func (g group) decode(c *Coder, dst []byte) error {
	if err := c.decompress(dst[:g.raw():g.raw()], g.codec, g.data); err != nil {
		return malformed{fmt.Errorf("chunk: group as %v: %w", g.codec, err)}
	}
	return nil
}

// stored is the data of a part, of a group that was read as a whole.
func (g group) stored(p part) ([]byte, error) {
	off, end, ok := g.partAt(p, len(g.data))
	if !ok {
		return nil, malformed{fmt.Errorf("chunk: group as %v: %w", g.codec, errLength)}
	}
	return g.data[off:end:end], nil
}

// decodePart fills pages, of the part's raw() bytes, from its data, and nothing
// beyond them.
func (g group) decodePart(c *Coder, pages, stored []byte) error {
	pages = pages[:len(pages):len(pages)]
	var err error
	if g.codec.inParts() {
		err = decompressPart(pages, g.codec, stored)
	} else {
		err = c.decompress(pages, g.codec, stored)
	}
	if err != nil {
		return malformed{fmt.Errorf("chunk: group as %v: %w", g.codec, err)}
	}
	return nil
}

// decodeFor decodes what it must of a part for the pages in need, a bit for each
// slot of the group, and says which of them are what their IDs name. stored is
// changed for the time of the call.
func (g group) decodeFor(c *Coder, p part, pages, stored []byte, need uint32) (verified uint32, err error) {
	need &= p.bits()
	wanted := bits.Len32(need>>p.first) * PageSize
	switch g.codec {
	case CodecDelta:
		// What is behind a page that can not be may do without it.
		err = decompressDelta(pages[:wanted:wanted], stored, false)
		if verified = g.matchPart(p, pages, need); verified == 0 && err != nil {
			return 0, malformed{fmt.Errorf("chunk: group as %v: %w", g.codec, err)}
		}
		return verified, nil
	case CodecS2, CodecS2Parts:
		if err := decompressPrefix(pages[:len(pages):len(pages)], wanted, stored); err == nil {
			if verified = g.matchPart(p, pages, need); verified == need {
				return verified, nil
			}
		}
		// Stopped too early, or damaged.
	}
	if err := g.decodePart(c, pages, stored); err != nil {
		return 0, err
	}
	return g.matchPart(p, pages, need), nil
}

// serve hands on the pages of a part that were verified, a bit for each slot of the
// group.
func (p part) serve(pages []byte, verified uint32, to func(slot int, page []byte)) {
	for slot := p.first; slot < p.end; slot++ {
		if verified&(1<<slot) != 0 {
			to(slot, p.of(pages, slot))
		}
	}
}

// of is the page of a slot among those of the part.
func (p part) of(pages []byte, slot int) []byte {
	at := (slot - p.first) * PageSize
	return pages[at : at+PageSize]
}

// DecodeGroup returns the pages of a group, side by side, and their IDs. The
// pages use the memory of dst from its start if it has room, and nothing of it
// beyond them. They are not compared with their IDs.
func (c *Coder) DecodeGroup(dst, payload []byte) (pages []byte, ids []ID, err error) {
	g, err := parseGroup(payload)
	if err != nil {
		return nil, nil, err
	}
	if n := g.raw(); cap(dst) >= n {
		pages = dst[:n:n]
	} else {
		pages = make([]byte, n)
	}
	if err := g.decode(c, pages); err != nil {
		return nil, nil, err
	}
	return pages, g.ids(), nil
}

// GroupIDs returns the domain of a group and the IDs of its pages, in order,
// without decompressing it.
func GroupIDs(payload []byte) (Domain, []ID, error) {
	g, err := parseGroup(payload)
	if err != nil {
		return Domain{}, nil, err
	}
	return g.domain, g.ids(), nil
}

// GroupCodec returns how the pages of a group are compressed.
func GroupCodec(payload []byte) (Codec, error) {
	g, err := parseGroup(payload)
	return g.codec, err
}

// AppendGroup is Coder.AppendGroup for single groups: it keeps no memory.
func AppendGroup(dst []byte, codec Codec, ids []ID, pages []byte) ([]byte, Codec, error) {
	return new(Coder).AppendGroup(dst, codec, ids, pages)
}

// DecodeGroup is Coder.DecodeGroup for single groups: it keeps no memory.
func DecodeGroup(dst, payload []byte) (pages []byte, ids []ID, err error) {
	return new(Coder).DecodeGroup(dst, payload)
}
