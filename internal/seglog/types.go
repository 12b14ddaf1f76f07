package seglog

import (
	"encoding/hex"
	"fmt"
	"strconv"
)

// A SegmentID numbers a segment. Numbers grow and are never used twice; 0 is none.
type SegmentID uint64

// String returns the ten or more digits of the segment's file name.
func (id SegmentID) String() string { return fmt.Sprintf("%010d", uint64(id)) }

// ParseSegmentID parses what String prints, and nothing else.
func ParseSegmentID(s string) (SegmentID, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || SegmentID(n).String() != s {
		return 0, fmt.Errorf("seglog: segment number %q: want at least 10 digits", clip(s))
	}
	return SegmentID(n), nil
}

// A Sequence numbers a batch. Sequences grow, may skip, and are never used
// twice, not even for a batch that failed; 0 is none.
type Sequence uint64

// String returns the decimal number.
func (s Sequence) String() string { return strconv.FormatUint(uint64(s), 10) }

// An Epoch counts how often the log was started. Every segment is written in
// one epoch only; 0 is none.
type Epoch uint64

// String returns the decimal number.
func (e Epoch) String() string { return strconv.FormatUint(uint64(e), 10) }

// A Stream says what a segment is for.
type Stream uint8

// The streams. A spare segment has none until it is taken.
const (
	StreamCommit Stream = 1 // batches: records, trailers, and the data of small takes
	StreamBulk   Stream = 2 // data of large takes
	StreamMoved  Stream = 3 // what cleaning copied
)

var streamNames = [...]string{"spare", "commit", "bulk", "moved"}

// String returns the stream's name.
func (s Stream) String() string {
	if int(s) < len(streamNames) {
		return streamNames[s]
	}
	return "stream-" + strconv.Itoa(int(s))
}

// ParseStream parses the name of one of the three streams.
func ParseStream(s string) (Stream, error) {
	for i, name := range streamNames {
		if i > 0 && name == s {
			return Stream(i), nil
		}
	}
	return 0, fmt.Errorf("seglog: no stream %q", clip(s))
}

// Features are bits of ROOT. They are chosen at Create and never change; who does
// not know one of them refuses the store.
type Features uint64

// FeatureCanisterDomains: groups and nodes name the dedup domain of a canister.
const FeatureCanisterDomains Features = 1 << 0

// A Kind says what a frame holds.
type Kind uint8

// The kinds of frames. 7 (patched nodes) and 8 (delta groups) are reserved.
const (
	KindGroup     Kind = 1 // pages side by side
	KindNodes     Kind = 2 // tree nodes side by side
	KindRecord    Kind = 3 // a record, with its key and record sequence
	KindMove      Kind = 4 // entries repointed by cleaning
	KindTrailer   Kind = 5 // ends a batch
	KindDirectory Kind = 6 // ends a sealed segment
)

var kindNames = [...]string{"none", "group", "nodes", "record", "move", "trailer", "directory"}

// String returns the kind's name.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "kind-" + strconv.Itoa(int(k))
}

// ParseKind parses the name of a kind.
func ParseKind(s string) (Kind, error) {
	for i, name := range kindNames {
		if i > 0 && name == s {
			return Kind(i), nil
		}
	}
	return 0, fmt.Errorf("seglog: no kind %q", clip(s))
}

// valid reports whether this version knows the kind.
func (k Kind) valid() bool { return k >= KindGroup && k <= KindDirectory }

// data reports whether callers may write frames of this kind themselves.
func (k Kind) data() bool { return k == KindGroup || k == KindNodes || k == KindMove }

// A Loc is where a frame stands. Length counts header and payload, without
// the padding to the next multiple of 64.
type Loc struct {
	Segment SegmentID
	Offset  uint32
	Length  uint32
}

// String returns segment:offset+length.
func (l Loc) String() string { return fmt.Sprintf("%s:%d+%d", l.Segment, l.Offset, l.Length) }

// IsZero reports whether l is no place at all.
func (l Loc) IsZero() bool { return l == Loc{} }

// end is the offset behind the frame's padding.
func (l Loc) end() int64 { return int64(l.Offset) + alignUp(int64(l.Length)) }

// A Range is a run of frames in one segment, [Start, End).
type Range struct {
	Segment    SegmentID
	Start, End uint32
}

// String returns segment:start-end.
func (r Range) String() string { return fmt.Sprintf("%s:%d-%d", r.Segment, r.Start, r.End) }

// A StoreID is random, given at Create, and never changes.
type StoreID [16]byte

// String returns 32 hexadecimal digits.
func (id StoreID) String() string { return hex.EncodeToString(id[:]) }

// A Hash is a BLAKE3-256 of a trailer or of a directory.
type Hash [32]byte

// String returns 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// clip keeps foreign input out of error messages beyond a glance.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
