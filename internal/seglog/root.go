package seglog

import (
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

// The layout of ROOT; docs/format.md shows it as a table. Magic, version and
// the hash at the end are what every version must keep, so that an older
// program can tell a newer store from a damaged one.
const (
	rootMagic   = "SNAPROOT"
	rootVersion = 1
	// tornMagic stands in the place of the magic while a copy is overwritten where
	// it is: what a crash leaves then is not taken for damage.
	tornMagic = "SNAPTORN"

	rootMagicAt    = 0
	rootVersionAt  = 8
	rootReserved   = 12
	rootFeatures   = 16
	rootGeneration = 24
	rootStore      = 32
	rootKey        = 48
	rootEpoch      = 80
	rootNextSeg    = 88
	rootNextSeq    = 96
	rootFloor      = 104
	rootLastSeq    = 112
	rootLastHash   = 120
	rootSegSize    = 152
	rootSegments   = 160
	rootReserved2  = 164
	rootFixed      = 168
	rootHashSize   = 32

	// A segment in ROOT.
	entID       = 0
	entLength   = 8
	entDirAt    = 12
	entFirst    = 16
	entLast     = 24
	entHash     = 32
	entStream   = 64
	entState    = 65
	entFlags    = 66
	entReserved = 67
	entSize     = 72

	flagEmpty = 1 << 0 // of a segment: trailers only

	// rootFeaturesKnown are the feature bits this version understands.
	rootFeaturesKnown = FeatureCanisterDomains
	// maxSegments bounds ROOT to 72 MiB.
	maxSegments = 1 << 20
)

// A segState is how far a segment has come.
type segState uint8

const (
	stateOpen      segState = 1 // may hold more than ROOT knows
	stateSealed    segState = 2 // complete, ended on purpose
	stateRecovered segState = 3 // complete, ended by a crash or a failed write
)

var stateNames = [...]string{"none", "open", "sealed", "recovered"}

func (s segState) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state-%d", uint8(s))
}

// A segEntry is the line of one segment in ROOT.
type segEntry struct {
	id     SegmentID
	stream Stream // 0: a spare, nothing was in it yet
	state  segState
	// length is all there is of a closed segment, and what is known to be
	// synced of an open one. Bytes behind a closed one's length mean nothing.
	length      uint32
	dirAt       uint32 // offset of the directory frame; 0 = none was written
	first, last Sequence
	hash        Hash // of the directory entries; zero while open
	empty       bool
}

// A root is the content of ROOT-A and ROOT-B.
type root struct {
	generation  uint64
	features    Features
	store       StoreID
	key         [32]byte
	epoch       Epoch
	nextSegment SegmentID
	nextSeq     Sequence
	floor       Sequence
	last        Sequence // synced through
	lastHash    Hash
	segmentSize int64
	segments    []segEntry // ascending
}

func (r *root) append(dst []byte) []byte {
	at := len(dst)
	var f [rootFixed]byte
	copy(f[rootMagicAt:], rootMagic)
	le.PutUint32(f[rootVersionAt:], rootVersion)
	le.PutUint64(f[rootFeatures:], uint64(r.features))
	le.PutUint64(f[rootGeneration:], r.generation)
	copy(f[rootStore:], r.store[:])
	copy(f[rootKey:], r.key[:])
	le.PutUint64(f[rootEpoch:], uint64(r.epoch))
	le.PutUint64(f[rootNextSeg:], uint64(r.nextSegment))
	le.PutUint64(f[rootNextSeq:], uint64(r.nextSeq))
	le.PutUint64(f[rootFloor:], uint64(r.floor))
	le.PutUint64(f[rootLastSeq:], uint64(r.last))
	copy(f[rootLastHash:], r.lastHash[:])
	le.PutUint64(f[rootSegSize:], uint64(r.segmentSize))
	le.PutUint32(f[rootSegments:], uint32(len(r.segments)))
	dst = append(dst, f[:]...)
	for i := range r.segments {
		e := &r.segments[i]
		var b [entSize]byte
		le.PutUint64(b[entID:], uint64(e.id))
		le.PutUint32(b[entLength:], e.length)
		le.PutUint32(b[entDirAt:], e.dirAt)
		le.PutUint64(b[entFirst:], uint64(e.first))
		le.PutUint64(b[entLast:], uint64(e.last))
		copy(b[entHash:], e.hash[:])
		b[entStream] = byte(e.stream)
		b[entState] = byte(e.state)
		if e.empty {
			b[entFlags] = flagEmpty
		}
		dst = append(dst, b[:]...)
	}
	sum := blake3.Sum256(dst[at:])
	return append(dst, sum[:]...)
}

var errBadRoot = errors.New("ROOT is damaged")

// decodeRoot accepts exactly what append writes. A file that is whole but of a
// newer version, or with a feature this version lacks, is ErrNewerFormat.
func decodeRoot(src []byte) (*root, error) {
	if len(src) < rootVersionAt+4+rootHashSize || string(src[:len(rootMagic)]) != rootMagic {
		return nil, fmt.Errorf("%w: no ROOT", errBadRoot)
	}
	body := src[:len(src)-rootHashSize]
	if blake3.Sum256(body) != [32]byte(src[len(body):]) {
		return nil, fmt.Errorf("%w: hash does not match", errBadRoot)
	}
	if v := le.Uint32(src[rootVersionAt:]); v > rootVersion {
		return nil, fmt.Errorf("%w: version %d", ErrNewerFormat, v)
	} else if v != rootVersion || len(body) < rootFixed {
		return nil, fmt.Errorf("%w: version %d of %d bytes", errBadRoot, v, len(src))
	}
	if f := Features(le.Uint64(src[rootFeatures:])); f&^rootFeaturesKnown != 0 {
		return nil, fmt.Errorf("%w: features %#x", ErrNewerFormat, uint64(f))
	}
	r := &root{
		features:    Features(le.Uint64(src[rootFeatures:])),
		generation:  le.Uint64(src[rootGeneration:]),
		epoch:       Epoch(le.Uint64(src[rootEpoch:])),
		nextSegment: SegmentID(le.Uint64(src[rootNextSeg:])),
		nextSeq:     Sequence(le.Uint64(src[rootNextSeq:])),
		floor:       Sequence(le.Uint64(src[rootFloor:])),
		last:        Sequence(le.Uint64(src[rootLastSeq:])),
		segmentSize: int64(le.Uint64(src[rootSegSize:])),
	}
	copy(r.store[:], src[rootStore:])
	copy(r.key[:], src[rootKey:])
	copy(r.lastHash[:], src[rootLastHash:])
	n := int64(le.Uint32(src[rootSegments:]))
	rest := body[rootFixed:]
	if n > maxSegments || int64(len(rest)) != n*entSize {
		return nil, fmt.Errorf("%w: %d bytes for %d segments", errBadRoot, len(rest), n)
	}
	if le.Uint32(src[rootReserved:]) != 0 || le.Uint32(src[rootReserved2:]) != 0 ||
		!validSegmentSize(r.segmentSize) || r.nextSegment == 0 || r.nextSeq <= r.last || r.floor >= r.nextSeq {
		return nil, fmt.Errorf("%w: fields contradict each other", errBadRoot)
	}
	if n > 0 {
		r.segments = make([]segEntry, n)
	}
	var after SegmentID
	for i := range r.segments {
		e := segEntry{
			id:     SegmentID(le.Uint64(rest[entID:])),
			stream: Stream(rest[entStream]),
			state:  segState(rest[entState]),
			length: le.Uint32(rest[entLength:]),
			dirAt:  le.Uint32(rest[entDirAt:]),
			first:  Sequence(le.Uint64(rest[entFirst:])),
			last:   Sequence(le.Uint64(rest[entLast:])),
			empty:  rest[entFlags]&flagEmpty != 0,
		}
		copy(e.hash[:], rest[entHash:])
		if e.id <= after || e.id >= r.nextSegment || e.stream > StreamMoved ||
			e.state < stateOpen || e.state > stateRecovered || rest[entFlags]&^flagEmpty != 0 ||
			!isZero(rest[entReserved:entSize]) || e.dirAt > e.length || e.length%frameAlign != 0 ||
			e.dirAt%frameAlign != 0 || e.first > e.last {
			return nil, fmt.Errorf("%w: segment %d is malformed", errBadRoot, i)
		}
		after = e.id
		rest = rest[entSize:]
		r.segments[i] = e
	}
	return r, nil
}

func validSegmentSize(n int64) bool {
	return n >= minSegmentSize && n <= maxSegmentSize && n%frameAlign == 0
}
