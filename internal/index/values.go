package index

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// formatVersion is in the meta value. An index of another version is rebuilt,
// never converted.
const formatVersion = 1

const (
	flagLost = 1 << iota
	flagNode
	knownFlags = flagLost | flagNode
)

// metaSize is version, store, sequence, hash, session, serial.
const metaSize = 1 + 16 + 8 + 32 + 8 + 8

var errNotCanonical = errors.New("index: value is not in canonical form")

// uvarint decodes a varint that is written in as few bytes as it can be.
func uvarint(b []byte, limit uint64) (v uint64, rest []byte, err error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || (n > 1 && b[n-1] == 0) || v > limit {
		return 0, nil, errNotCanonical
	}
	return v, b[n:], nil
}

const (
	max8  = 1<<8 - 1
	max32 = 1<<32 - 1
	max64 = 1<<64 - 1
)

// uvarints decodes one varint into each of dst, each at most its limit.
func uvarints(b []byte, limits []uint64, dst []uint64) (rest []byte, err error) {
	for i := range dst {
		if dst[i], b, err = uvarint(b, limits[i]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// appendEntry encodes e: flags, then segment, offset, length, slot, slots and
// count as varints. About 13 bytes for a page.
func appendEntry(dst []byte, e Entry) []byte {
	var flags byte
	if e.Lost {
		flags |= flagLost
	}
	if e.Node {
		flags |= flagNode
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, e.Segment)
	dst = binary.AppendUvarint(dst, uint64(e.Offset))
	dst = binary.AppendUvarint(dst, uint64(e.Length))
	dst = binary.AppendUvarint(dst, uint64(e.Slot))
	dst = binary.AppendUvarint(dst, uint64(e.Slots))
	return binary.AppendUvarint(dst, e.Count)
}

// decodeEntry accepts exactly what appendEntry writes for entries that pass
// their check.
func decodeEntry(b []byte) (Entry, error) {
	if len(b) == 0 || b[0]&^knownFlags != 0 {
		return Entry{}, errNotCanonical
	}
	e := Entry{Lost: b[0]&flagLost != 0, Node: b[0]&flagNode != 0}
	limits := [...]uint64{max64, max32, max32, max8, max8, max64}
	var v [len(limits)]uint64
	rest, err := uvarints(b[1:], limits[:], v[:])
	if err != nil {
		return Entry{}, err
	}
	if len(rest) != 0 {
		return Entry{}, errNotCanonical
	}
	e.Location = Location{v[0], uint32(v[1]), uint32(v[2]), uint8(v[3]), uint8(v[4])}
	e.Count = v[5]
	return e, e.check()
}

// appendRecord encodes record sequence, segment, offset and length as varints;
// the rest is the payload.
func appendRecord(dst []byte, r Record) []byte {
	dst = binary.AppendUvarint(dst, r.RecordSeq)
	dst = binary.AppendUvarint(dst, r.Segment)
	dst = binary.AppendUvarint(dst, uint64(r.Offset))
	dst = binary.AppendUvarint(dst, uint64(r.Length))
	return append(dst, r.Payload...)
}

// decodeRecord returns a record whose payload is a copy.
func decodeRecord(b []byte) (Record, error) {
	limits := [...]uint64{max64, max64, max32, max32}
	var v [len(limits)]uint64
	rest, err := uvarints(b, limits[:], v[:])
	if err != nil {
		return Record{}, err
	}
	return Record{
		RecordSeq: v[0],
		Segment:   v[1],
		Offset:    uint32(v[2]),
		Length:    uint32(v[3]),
		Payload:   append([]byte(nil), rest...),
	}, nil
}

// appendLive encodes the live bytes of a segment. Zero is not stored.
func appendLive(dst []byte, bytes int64) []byte {
	return binary.AppendUvarint(dst, uint64(bytes))
}

func decodeLive(b []byte) (int64, error) {
	v, rest, err := uvarint(b, 1<<63-1)
	if err != nil {
		return 0, err
	}
	if len(rest) != 0 || v == 0 {
		return 0, errNotCanonical
	}
	return int64(v), nil
}

// meta is what the index says of itself. It is written in every batch, so it
// is the state of the index that it describes.
type meta struct {
	store [16]byte
	seq   uint64
	hash  [32]byte
	state stateID
}

// stateID names one state of an index. Several states may have one watermark,
// and after a crash other states follow a watermark than did before it.
type stateID struct {
	// session is drawn at random when the index is opened. 0 is a rebuild.
	session uint64
	// serial counts batches since the index was built, over all sessions.
	serial uint64
}

func appendMeta(dst []byte, m meta) []byte {
	dst = append(dst, formatVersion)
	dst = append(dst, m.store[:]...)
	dst = binary.BigEndian.AppendUint64(dst, m.seq)
	dst = append(dst, m.hash[:]...)
	dst = binary.BigEndian.AppendUint64(dst, m.state.session)
	return binary.BigEndian.AppendUint64(dst, m.state.serial)
}

func decodeMeta(b []byte) (meta, error) {
	if len(b) > 0 && b[0] != formatVersion {
		return meta{}, fmt.Errorf("index: format version %d, want %d", b[0], formatVersion)
	}
	if len(b) != metaSize {
		return meta{}, errNotCanonical
	}
	return meta{
		store: [16]byte(b[1:17]),
		seq:   binary.BigEndian.Uint64(b[17:25]),
		hash:  [32]byte(b[25:57]),
		state: stateID{binary.BigEndian.Uint64(b[57:65]), binary.BigEndian.Uint64(b[65:73])},
	}, nil
}
