package seglog

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Sentinels. Test with errors.Is.
var (
	// ErrNoStore: the directory holds neither ROOT-A nor ROOT-B.
	ErrNoStore = errors.New("no store here")
	// ErrExists: the directory holds a store already.
	ErrExists = errors.New("a store is here already")
	// ErrNewerFormat: ROOT was written by a newer version, or needs a feature this one lacks.
	ErrNewerFormat = errors.New("store has a newer format than this version understands")
	// ErrRolledBack: the last accepted batch is older than Options.MinSequence.
	ErrRolledBack = errors.New("store is older than the sequence it must have reached")
	// ErrClosed: the log, or the spill, is closed.
	ErrClosed = errors.New("log is closed")
	// ErrNotStarted: writing needs Start first.
	ErrNotStarted = errors.New("log is not started")
	// ErrNoSpace: the file system is full, down to the reserve.
	ErrNoSpace = errors.New("no space left on the file system")
	// ErrReadOnly: a write or sync failed and could not be undone.
	ErrReadOnly = errors.New("log is read-only after a failed write")
	// ErrSegmentGone: the segment is not in the table; look the content up again.
	ErrSegmentGone = errors.New("segment is gone")
	// ErrBusy: a spill that is not closed has written to the segment.
	ErrBusy = errors.New("segment is in use")
	// ErrDamaged: what was synced is not whole.
	ErrDamaged = errors.New("log is damaged")
	// ErrTooLarge: a payload, key or batch is beyond the limits of the format.
	ErrTooLarge = errors.New("beyond the limits of the format")
)

// A FrameError says where a frame is not what was written, and why. It is ErrDamaged.
type FrameError struct {
	Segment SegmentID
	File    string
	Offset  uint32
	Reason  string
	Err     error // the read error, if there was one
}

func (e *FrameError) Error() string {
	msg := fmt.Sprintf("%s at %d: %s", e.File, e.Offset, e.Reason)
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

// Is reports a FrameError to be ErrDamaged.
func (e *FrameError) Is(target error) bool { return target == ErrDamaged }

func (e *FrameError) Unwrap() error { return e.Err }

// A RecordKey names a record: whose it is, and its place in that key's history.
type RecordKey struct {
	Key       []byte
	RecordSeq uint64
}

// Damage is something that was proved synced and is not whole.
type Damage struct {
	File    string
	Segment SegmentID // 0 for ROOT
	Offset  uint32
	Length  uint32   // of the bytes concerned; 0 if unknown
	Batch   Sequence // 0 if unknown, or if no batch is concerned
	Kind    Kind     // 0 if the header itself is lost
	Records []RecordKey
	Reason  string
}

// String names file, offset, batch and records.
func (d Damage) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %d", d.File, d.Offset)
	if d.Length > 0 {
		fmt.Fprintf(&b, "+%d", d.Length)
	}
	if d.Batch > 0 {
		fmt.Fprintf(&b, ", batch %s", d.Batch)
	}
	if d.Kind > 0 {
		fmt.Fprintf(&b, ", %s", d.Kind)
	}
	for _, r := range d.Records {
		fmt.Fprintf(&b, ", record %x/%d", r.Key, r.RecordSeq)
	}
	return b.String() + ": " + d.Reason
}

// isNoSpace reports whether the disk, or the quota, is full, and trying again may
// help: not with a log that became read-only of it.
func isNoSpace(err error) bool {
	return (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) && !errors.Is(err, ErrReadOnly)
}

// spaceError makes a full disk recognisable by ErrNoSpace, and leaves other errors alone.
func spaceError(err error) error {
	if err != nil && isNoSpace(err) && !errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
