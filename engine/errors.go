package engine

import (
	"errors"
	"fmt"
	"strings"

	"github.com/snapstore/snapstore/chunk"
)

// Sentinels. Every error of this package is one of them, or wraps one, or
// comes from the file system. Test with errors.Is.
var (
	// ErrNoStore: the directory holds no store; Create makes one.
	ErrNoStore = errors.New("no store here")
	// ErrExists: the store or the canister is there already.
	ErrExists = errors.New("already exists")
	// ErrLocked: another process, or another Engine of this one, has the store open.
	ErrLocked = errors.New("store is in use by another process")
	// ErrNewerFormat: the store was written by a newer version.
	ErrNewerFormat = errors.New("store has a newer format than this version understands")
	// ErrRolledBack: the store is older than Options.MinSequence allows.
	ErrRolledBack = errors.New("store is older than the sequence it must have reached")
	// ErrNotFound: no canister, snapshot or section of that name.
	ErrNotFound = errors.New("not found")
	// ErrSnapshotLimit: the canister has as many snapshots as it may have.
	ErrSnapshotLimit = errors.New("snapshot limit reached")
	// ErrQuota: the canister, or the store, has as many bytes as it may have; see
	// QuotaError.
	ErrQuota = errors.New("quota reached")
	// ErrCollision: two different pages have the same hash, which
	// Options.CompareOnHit has found; see CollisionError.
	ErrCollision = chunk.ErrCollision
	// ErrRunning: the canister runs and the take was asked to refuse that.
	ErrRunning = errors.New("canister is running")
	// ErrOpenCalls: the canister has open call contexts and the take was asked to refuse that.
	ErrOpenCalls = errors.New("canister has open call contexts")
	// ErrOtherCanister: the snapshot belongs to another canister, and that was not asked for.
	ErrOtherCanister = errors.New("snapshot belongs to another canister")
	// ErrImmutable: the snapshot was taken, not uploaded, or has been loaded.
	ErrImmutable = errors.New("snapshot can not be changed any more")
	// ErrNoSpace: the file system is full, down to the reserve kept for deletes.
	ErrNoSpace = errors.New("no space left")
	// ErrDebt: more waits to be reclaimed than Options.MaxDebt allows.
	ErrDebt = errors.New("too much deleted data waits to be reclaimed")
	// ErrCorrupt: stored data is damaged; see CorruptionError.
	ErrCorrupt = chunk.ErrCorrupt
	// ErrLost: batches that were synced are lost, without a trace of what they
	// changed; it is a kind of ErrCorrupt. Options.AcceptLoss opens what is left.
	ErrLost = fmt.Errorf("batches that were acknowledged are lost: %w", chunk.ErrCorrupt)
	// ErrDamaged: a canister's newest record can not be read.
	ErrDamaged = errors.New("canister record is damaged")
	// ErrIndex: the index is damaged, and does not say where something is. Nothing
	// is lost by that: the next Open builds it anew from the log.
	ErrIndex = errors.New("index is damaged")
	// ErrReadOnly: an earlier write or sync failed and could not be undone.
	ErrReadOnly = errors.New("store is read-only after a failed write")
	// ErrInvalid: an argument is out of its limits.
	ErrInvalid = errors.New("invalid argument")
	// ErrUnsafe: others than its owner may write to the store, or a part of it is
	// a symbolic link.
	ErrUnsafe = errors.New("store is not its owner's alone")
	// ErrClosed: the engine, the snapshot or the memory is closed.
	ErrClosed = errors.New("closed")
)

// CorruptionError names the damage: chunk, segment and offset always, canister,
// snapshot, section and page where they are known.
type CorruptionError = chunk.CorruptionError

// CollisionError names what could not be stored, because something else has its
// hash.
type CollisionError = chunk.CollisionError

// Error says which operation failed, on what, why, and what to do next where
// a person can do something.
type Error struct {
	Op       string
	Canister CanisterID
	Snapshot SnapshotID
	Err      error
	Hint     string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	switch {
	case !e.Snapshot.IsZero():
		fmt.Fprintf(&b, " %s", e.Snapshot)
	case !e.Canister.IsZero():
		fmt.Fprintf(&b, " %s", e.Canister)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Hint != "" {
		fmt.Fprintf(&b, ": %s", e.Hint)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// opError wraps err once: an *Error from deeper keeps its own names.
func opError(op string, c CanisterID, s SnapshotID, err error) error {
	if err = translate(err); err == nil {
		return nil
	}
	var have *Error
	if errors.As(err, &have) {
		return err
	}
	return &Error{Op: op, Canister: c, Snapshot: s, Err: err, Hint: hint(err)}
}

func hint(err error) string {
	switch {
	case errors.Is(err, ErrNoStore):
		return "create one with Create or \"snapstore init\""
	case errors.Is(err, ErrLocked):
		return "close the other process first"
	case errors.Is(err, ErrUnsafe):
		return "take the right to write from group and others (chmod -R go-w), and put files where links are"
	case errors.Is(err, ErrNewerFormat):
		return "open it with the version that wrote it, or a newer one"
	case errors.Is(err, ErrNoSpace):
		return "delete snapshots or make room on the file system, then try again"
	case errors.Is(err, ErrQuota):
		return "delete or replace snapshots, or allow more"
	case errors.Is(err, ErrCollision):
		return "keep the content of both: it is the first collision of BLAKE3 that is known"
	case errors.Is(err, ErrDebt):
		return "let gc catch up, or close readers that hold deleted snapshots"
	case errors.Is(err, ErrReadOnly):
		return "look after the disk, then open the store again"
	case errors.Is(err, ErrImmutable):
		return "upload a new snapshot instead"
	case errors.Is(err, ErrIndex):
		return "open the store again: the index is built anew from the log"
	case errors.Is(err, ErrLost):
		return "put the damaged files back from a copy; \"snapstore verify --repair\" opens what is left, which may be older than what was acknowledged"
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrDamaged):
		return "run verify to see what else is damaged"
	}
	return ""
}
