package index

import (
	"encoding/hex"
	"fmt"
)

// ID names content: the unkeyed BLAKE3 of a page, or the hash of a node.
type ID [32]byte

// String returns the ID in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Location is a slot of a frame in the log: where the bytes of one ID are.
// Segment 0 means nowhere.
type Location struct {
	Segment uint64
	Offset  uint32
	Length  uint32
	// The frame holds Slots pages or nodes side by side; Slot counts from 0.
	Slot  uint8
	Slots uint8
}

// String returns the location as segment:offset+length[slot/slots].
func (l Location) String() string {
	return fmt.Sprintf("%d:%d+%d[%d/%d]", l.Segment, l.Offset, l.Length, l.Slot, l.Slots)
}

// Before orders locations by segment, offset and slot.
func (l Location) Before(o Location) bool {
	if l.Segment != o.Segment {
		return l.Segment < o.Segment
	}
	if l.Offset != o.Offset {
		return l.Offset < o.Offset
	}
	return l.Slot < o.Slot
}

// check says whether the location is one that a log can have.
func (l Location) check() error {
	if l.Segment == 0 || l.Slot >= l.Slots {
		return fmt.Errorf("index: impossible location %v", l)
	}
	return nil
}

// Entry is what the index knows of an ID.
type Entry struct {
	Location
	// Count is the number of places, over all versions of all canisters, that
	// introduce the ID. An entry with count 0 is in limbo.
	Count uint64
	// Lost: the bytes could not be read. The entry counts as absent for a take,
	// but its count goes on. A lost entry may have no location at all.
	Lost bool
	// Node: the ID names a tree node or a manifest, not a page.
	Node bool
}

// Share returns how many bytes of its segment the entry keeps alive: its part
// of the frame, rounded up.
func (e Entry) Share() uint64 {
	if e.Slots == 0 {
		return 0
	}
	return (uint64(e.Length) + uint64(e.Slots) - 1) / uint64(e.Slots)
}

// check says whether the entry may be stored.
func (e Entry) check() error {
	if e.Location == (Location{}) {
		if !e.Lost {
			return fmt.Errorf("index: an entry without a location must be lost")
		}
		return nil
	}
	return e.Location.check()
}

// Record is the newest record of one canister, with its place in the log.
// Payload is the caller's bytes, kept here so that a record that rots in the
// log can be repaired.
type Record struct {
	RecordSeq uint64
	Segment   uint64
	Offset    uint32
	Length    uint32
	Payload   []byte
}

// KeyedRecord is a record with the canister key it is stored under.
type KeyedRecord struct {
	Key []byte
	Record
}

// KeyedState is a small value of the counting layer with its key.
type KeyedState struct {
	Key, Value []byte
}

// KeyedEntry is an entry with its ID.
type KeyedEntry struct {
	ID ID
	Entry
}
