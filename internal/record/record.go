// Package record is the canister record: the small thing that makes a
// canister's states true. Whatever a record names exists; whatever no newest
// record names is garbage. The newest record is the one with the highest
// sequence, wherever it lies in the log.
//
// Encoding is canonical: Decode accepts only what Encode would write.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/snapstore/snapstore/chunk"
)

const (
	// Version of the encoding, its first byte.
	Version = 1
	// MaxSnapshots bounds a record; far above any limit a host sets.
	MaxSnapshots = 4096
	// MaxHost is the most bytes a host may keep in a record.
	MaxHost = 64 << 10
)

// ErrMalformed is wrapped by every error of Decode.
var ErrMalformed = errors.New("malformed canister record")

// Source says how a snapshot came to be.
type Source uint8

// The two sources (interface, read_canister_snapshot_metadata).
const (
	Taken    Source = 1
	Uploaded Source = 2
)

func (s Source) String() string {
	switch s {
	case Taken:
		return "taken"
	case Uploaded:
		return "uploaded"
	}
	return fmt.Sprintf("source(%d)", uint8(s))
}

// Snapshot is one entry of a record.
type Snapshot struct {
	Local   uint64   // counter part of its id, ascending in a record
	Root    chunk.ID // its manifest
	Logical uint64   // total_size of the interface, in bytes
	TakenAt uint64   // nanoseconds since 1970
	Source  Source
	Mutable bool // an upload that was never loaded
}

// Record is a canister at one moment.
type Record struct {
	Seq         uint64 // grows by one with every record of the canister, over deletion too
	Deleted     bool   // a tombstone: nothing but Incarnation and NextLocal
	Incarnation uint64 // how often the canister was created
	NextLocal   uint64 // the next snapshot's counter; never falls
	Head        chunk.ID
	HeadLogical uint64
	Snapshots   []Snapshot
	Host        []byte
}

// Find returns the entry with that counter.
func (r *Record) Find(local uint64) (Snapshot, bool) {
	for _, s := range r.Snapshots {
		if s.Local == local {
			return s, true
		}
	}
	return Snapshot{}, false
}

// Clone copies r, so that a next record can be made of it.
func (r *Record) Clone() *Record {
	c := *r
	c.Snapshots = append([]Snapshot(nil), r.Snapshots...)
	return &c
}

func (r *Record) validate() error {
	switch {
	case r.Seq == 0 || r.Incarnation == 0:
		return fmt.Errorf("%w: zero sequence or incarnation", ErrMalformed)
	case len(r.Snapshots) > MaxSnapshots:
		return fmt.Errorf("%w: %d snapshots", ErrMalformed, len(r.Snapshots))
	case len(r.Host) > MaxHost:
		return fmt.Errorf("%w: host blob of %d bytes", ErrMalformed, len(r.Host))
	case r.Deleted && (len(r.Snapshots) != 0 || len(r.Host) != 0 || !r.Head.IsZero() || r.HeadLogical != 0):
		return fmt.Errorf("%w: tombstone with content", ErrMalformed)
	}
	for i, s := range r.Snapshots {
		switch {
		case i > 0 && s.Local <= r.Snapshots[i-1].Local:
			return fmt.Errorf("%w: snapshots out of order", ErrMalformed)
		case s.Local >= r.NextLocal:
			return fmt.Errorf("%w: snapshot %d above the counter %d", ErrMalformed, s.Local, r.NextLocal)
		case s.Root.IsZero():
			return fmt.Errorf("%w: snapshot %d without a root", ErrMalformed, s.Local)
		case s.Source != Taken && s.Source != Uploaded, s.Mutable && s.Source != Uploaded:
			return fmt.Errorf("%w: snapshot %d has source %d", ErrMalformed, s.Local, s.Source)
		}
	}
	return nil
}

// Where the fields are, in bytes; the tables of docs/format.md are held to
// what Encode writes.
const (
	atDeleted     = 1
	atCount       = 2
	atSeq         = 4
	atIncarnation = 12
	atNext        = 20
	atHead        = 28
	atHeadLogical = atHead + chunk.IDSize
	atHost        = atHeadLogical + 8
	headSize      = atHost + 4

	atRoot    = 8
	atLogical = atRoot + chunk.IDSize
	atTaken   = atLogical + 8
	atSource  = atTaken + 8
	atMutable = atSource + 1
	snapSize  = atMutable + 1
)

// Encode gives the canonical bytes, or an error when r breaks a limit.
func (r *Record) Encode() ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	b := make([]byte, 0, headSize+len(r.Snapshots)*snapSize+len(r.Host))
	b = append(b, Version, flag(r.Deleted))
	b = le.AppendUint16(b, uint16(len(r.Snapshots)))
	b = le.AppendUint64(b, r.Seq)
	b = le.AppendUint64(b, r.Incarnation)
	b = le.AppendUint64(b, r.NextLocal)
	b = append(b, r.Head[:]...)
	b = le.AppendUint64(b, r.HeadLogical)
	b = le.AppendUint32(b, uint32(len(r.Host)))
	for _, s := range r.Snapshots {
		b = le.AppendUint64(b, s.Local)
		b = append(b, s.Root[:]...)
		b = le.AppendUint64(b, s.Logical)
		b = le.AppendUint64(b, s.TakenAt)
		b = append(b, byte(s.Source), flag(s.Mutable))
	}
	return append(b, r.Host...), nil
}

// Decode reads canonical bytes. It keeps no part of b.
func Decode(b []byte) (*Record, error) {
	if len(b) < headSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	if b[0] != Version {
		return nil, fmt.Errorf("%w: version %d", ErrMalformed, b[0])
	}
	le := binary.LittleEndian
	n := int(le.Uint16(b[atCount:]))
	host := le.Uint32(b[atHost:])
	if b[atDeleted] > 1 || n > MaxSnapshots || host > MaxHost || len(b) != headSize+n*snapSize+int(host) {
		return nil, fmt.Errorf("%w: %d bytes for %d snapshots and %d host bytes", ErrMalformed, len(b), n, host)
	}
	r := &Record{
		Deleted: b[atDeleted] == 1, Seq: le.Uint64(b[atSeq:]), Incarnation: le.Uint64(b[atIncarnation:]),
		NextLocal: le.Uint64(b[atNext:]), HeadLogical: le.Uint64(b[atHeadLogical:]),
	}
	copy(r.Head[:], b[atHead:])
	b = b[headSize:]
	if n > 0 {
		r.Snapshots = make([]Snapshot, n)
	}
	for i := range r.Snapshots {
		if b[atMutable] > 1 {
			return nil, fmt.Errorf("%w: flag %d", ErrMalformed, b[atMutable])
		}
		r.Snapshots[i] = Snapshot{
			Local: le.Uint64(b), Root: chunk.ID(b[atRoot:atLogical]), Logical: le.Uint64(b[atLogical:]),
			TakenAt: le.Uint64(b[atTaken:]), Source: Source(b[atSource]), Mutable: b[atMutable] == 1,
		}
		b = b[snapSize:]
	}
	if len(b) > 0 {
		r.Host = append([]byte(nil), b...)
	}
	return r, r.validate()
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// Logical is what the canister's snapshots are charged for together; it
// saturates, since a sum of declared sizes comes from outside.
func (r *Record) Logical() uint64 {
	var sum uint64
	for _, s := range r.Snapshots {
		if sum+s.Logical < sum {
			return math.MaxUint64
		}
		sum += s.Logical
	}
	return sum
}
