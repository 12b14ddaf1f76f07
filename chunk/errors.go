package chunk

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/snapstore/snapstore/internal/index"
	"github.com/snapstore/snapstore/internal/seglog"
)

var (
	// ErrCorrupt: stored data is damaged. Every CorruptionError is one.
	ErrCorrupt = errors.New("stored data is damaged")
	// ErrMalformed: bytes are not what a frame of this package holds.
	ErrMalformed = errors.New("malformed frame")
	// ErrNotStored: the ID is neither published nor indexed.
	ErrNotStored = errors.New("not stored")
	// ErrReleased: the pins have been released, or the writer closed.
	ErrReleased = errors.New("released")
)

// Unreadable tells whether content can not be had because of what is stored: it is
// damaged, or not there. Other errors say nothing about it.
func Unreadable(err error) bool { return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotStored) }

// A NotStoredError names content that is not there. It is ErrNotStored. To who
// was told by a record that it must be there it is damage.
type NotStoredError struct{ ID ID }

func (e *NotStoredError) Error() string { return fmt.Sprintf("chunk %s: %v", e.ID, ErrNotStored) }

// Unwrap makes the error ErrNotStored.
func (e *NotStoredError) Unwrap() error { return ErrNotStored }

// A CorruptionError names content that is stored and can not be read. This
// package fills in ID, Node, Segment, Offset and Err; who knows what the content
// belongs to fills in the rest.
type CorruptionError struct {
	ID   ID
	Node bool // ID names a tree node or a manifest, not a page
	// Segment and Offset place the frame in the log; Segment is 0 when the log
	// has none.
	Segment uint64
	Offset  uint32

	Canister string
	Snapshot string
	Section  string
	Page     uint64 // counts only with Section

	Err error
}

func (e *CorruptionError) Error() string {
	var b strings.Builder
	if e.Canister != "" {
		fmt.Fprintf(&b, "canister %s: ", e.Canister)
	}
	if e.Snapshot != "" {
		fmt.Fprintf(&b, "snapshot %s: ", e.Snapshot)
	}
	if e.Section != "" {
		fmt.Fprintf(&b, "%s page %d: ", e.Section, e.Page)
	}
	what := "chunk"
	if e.Node {
		what = "node"
	}
	fmt.Fprintf(&b, "%s %s", what, e.ID)
	if e.Segment != 0 {
		fmt.Fprintf(&b, " in segment %d at offset %d", e.Segment, e.Offset)
	}
	fmt.Fprintf(&b, ": %v", ErrCorrupt)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap makes the error both ErrCorrupt and its cause.
func (e *CorruptionError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrCorrupt}
	}
	return []error{ErrCorrupt, e.Err}
}

// malformed makes an error ErrMalformed as well.
type malformed struct{ err error }

func (m malformed) Error() string   { return m.err.Error() }
func (m malformed) Unwrap() []error { return []error{ErrMalformed, m.err} }

// damage marks an error that a second look may cure and that otherwise means
// that content is lost: the bytes are there and are not what they should be.
type damage struct{ err error }

func (d damage) Error() string { return d.err.Error() }
func (d damage) Unwrap() error { return d.err }

func damaged(format string, args ...any) error {
	return damage{fmt.Errorf(format, args...)}
}

// Transient tells whether err says that something could not be read just now,
// rather than that it is damaged or not there.
func Transient(err error) bool {
	var frame *seglog.FrameError
	if errors.As(err, &frame) {
		return frame.Err != nil
	}
	var path *fs.PathError
	var errno syscall.Errno
	return errors.As(err, &path) || errors.As(err, &errno) ||
		errors.Is(err, seglog.ErrClosed) || errors.Is(err, index.ErrClosed) || errors.Is(err, index.ErrUntrusted)
}
