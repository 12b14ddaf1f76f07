package engine

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/snapstore/snapstore/internal/principal"
)

// MaxCanisterID is the most bytes a canister id has (interface spec, principals).
const MaxCanisterID = 29

// CanisterID names a canister: the 1 to 29 bytes of its principal. Comparable.
type CanisterID struct{ raw string }

// CanisterIDFromBytes makes an id of a principal's bytes, which are copied.
func CanisterIDFromBytes(b []byte) (CanisterID, error) {
	if len(b) == 0 || len(b) > MaxCanisterID {
		return CanisterID{}, fmt.Errorf("canister id of %d bytes, want 1 to %d: %w", len(b), MaxCanisterID, ErrInvalid)
	}
	return CanisterID{string(b)}, nil
}

// ParseCanisterID reads the principal text form, checksum included.
func ParseCanisterID(text string) (CanisterID, error) {
	b, err := principal.Parse(text)
	if err != nil {
		return CanisterID{}, fmt.Errorf("canister id %.90q: %w: %w", text, ErrInvalid, err)
	}
	return CanisterIDFromBytes(b)
}

// Bytes returns a copy of the principal's bytes.
func (c CanisterID) Bytes() []byte { return []byte(c.raw) }

// IsZero tells whether c names nothing.
func (c CanisterID) IsZero() bool { return c.raw == "" }

// String is the principal text form.
func (c CanisterID) String() string { return principal.Encode([]byte(c.raw)) }

// Compare orders ids by their bytes.
func (c CanisterID) Compare(d CanisterID) int { return cmp.Compare(c.raw, d.raw) }

// SnapshotID names a snapshot for ever: a counter of its canister, never
// reused, and the canister's id. Comparable.
type SnapshotID struct {
	Canister CanisterID
	Local    uint64
}

// SnapshotIDFromBytes reads the wire form: 8 bytes big-endian counter, then
// the canister id (interface spec, type snapshot_id).
func SnapshotIDFromBytes(b []byte) (SnapshotID, error) {
	if len(b) < 9 {
		return SnapshotID{}, fmt.Errorf("snapshot id of %d bytes, want 9 to %d: %w", len(b), 8+MaxCanisterID, ErrInvalid)
	}
	c, err := CanisterIDFromBytes(b[8:])
	if err != nil {
		return SnapshotID{}, fmt.Errorf("snapshot id: %w", err)
	}
	return SnapshotID{Canister: c, Local: binary.BigEndian.Uint64(b)}, nil
}

// ParseSnapshotID reads lower-case hex of the wire form.
func ParseSnapshotID(text string) (SnapshotID, error) {
	b, err := hex.DecodeString(text)
	if err != nil || hex.EncodeToString(b) != text {
		return SnapshotID{}, fmt.Errorf("snapshot id %.90q is not lower-case hex: %w", text, ErrInvalid)
	}
	return SnapshotIDFromBytes(b)
}

// Bytes returns the wire form.
func (s SnapshotID) Bytes() []byte {
	return append(binary.BigEndian.AppendUint64(nil, s.Local), s.Canister.raw...)
}

// IsZero tells whether s names nothing.
func (s SnapshotID) IsZero() bool { return s.Canister.IsZero() }

// String is lower-case hex of the wire form.
func (s SnapshotID) String() string { return hex.EncodeToString(s.Bytes()) }
