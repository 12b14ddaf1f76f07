package index

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

var (
	// ErrUntrusted is wrapped by every error that says the index may no longer
	// be right. Take no decision to destroy anything by it.
	ErrUntrusted = errors.New("index is untrusted")

	// ErrClosed is returned by calls on a closed index.
	ErrClosed = errors.New("index is closed")

	// ErrLocked is returned by Open when another process has the index open.
	ErrLocked = errors.New("index is locked")
)

// StaleError says that there is no index to go on with: it must be rebuilt from
// the log. Nothing is lost by that.
type StaleError struct {
	// Reason is for people: "absent", "of another store", ...
	Reason string
	// Err is what was met, or nil.
	Err error
}

func (e *StaleError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("index is stale: %s: %v", e.Reason, e.Err)
	}
	return "index is stale: " + e.Reason
}

func (e *StaleError) Unwrap() error { return e.Err }

func stale(reason string, err error) error { return &StaleError{Reason: reason, Err: err} }

// The index directory holds Pebble's directory and these files. An index is
// trusted if trustedFile is there and untrustedFile is not, so that it takes
// either of two operations to take the trust away: a full disk still lets a
// file be removed.
const (
	pebbleDir     = "pebble"
	flushDir      = "flush"
	trustedFile   = "TRUSTED"
	untrustedFile = "UNTRUSTED"
	lockFile      = "LOCK"
	filterFile    = "FILTER"
)

// maxReason bounds what is read of untrustedFile.
const maxReason = 4 << 10

// syncDir makes the names in dir durable.
func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeFile writes a small file and syncs it, not its name.
func writeFile(fs vfs.FS, path string, content []byte) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// markUntrusted makes the index in dir stale for every later Open. It fails
// only if neither of the two ways works.
func markUntrusted(fs vfs.FS, dir, reason string) error {
	errWrite := writeFile(fs, fs.PathJoin(dir, untrustedFile), []byte(reason))
	errRemove := fs.Remove(fs.PathJoin(dir, trustedFile))
	if errWrite != nil && errRemove != nil {
		return errors.Join(errWrite, errRemove)
	}
	return syncDir(fs, dir)
}

// checkTrusted returns a StaleError unless dir is marked as trusted.
func checkTrusted(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return stale("absent", err)
	}
	trusted := false
	for _, name := range names {
		switch name {
		case untrustedFile:
			return stale("marked untrusted: "+readReason(fs, dir), nil)
		case trustedFile:
			trusted = true
		}
	}
	if !trusted {
		return stale("not marked as trusted", nil)
	}
	return nil
}

func readReason(fs vfs.FS, dir string) string {
	f, err := fs.Open(fs.PathJoin(dir, untrustedFile))
	if err != nil {
		return "reason unreadable"
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxReason))
	if err != nil {
		return "reason unreadable"
	}
	return strings.ToValidUTF8(string(b), "?")
}

// trust is the sticky answer to "may this index still be believed?". It is
// shared by the index, by the file system under Pebble, and by what Pebble
// calls back.
type trust struct {
	log *slog.Logger
	// persist makes the distrust outlive the process. It runs once, perhaps
	// under Pebble's locks, and must not call Pebble.
	persist func(reason string) error

	mu     sync.Mutex
	reason error
	// lost is closed when trust is.
	lost chan struct{}
	// halted: Pebble met what it calls fatal, where it would have ended the
	// process. From then on its files stay as a crash would have left them.
	halted atomic.Bool
	// broken: a panic came out of Pebble and may have left its locks taken. It
	// must not be called again.
	broken atomic.Bool
}

func newTrust(log *slog.Logger, persist func(string) error) *trust {
	return &trust{log: log, persist: persist, lost: make(chan struct{})}
}

// err returns why the index is untrusted, or nil.
func (t *trust) err() error {
	select {
	case <-t.lost:
	default:
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reason
}

// lose takes the trust away; the first reason stays.
func (t *trust) lose(reason error) {
	t.mu.Lock()
	first := t.reason == nil
	if first {
		t.reason = fmt.Errorf("%w: %w", ErrUntrusted, reason)
		close(t.lost)
	}
	t.mu.Unlock()
	if !first {
		return
	}
	t.log.Error("index is untrusted", "reason", reason)
	if err := t.persist(reason.Error()); err != nil {
		t.log.Error("index could not be marked untrusted on disk", "error", err)
	}
}

// halt is lose, and nothing under Pebble is written from now on.
func (t *trust) halt(reason error) {
	t.halted.Store(true)
	t.lose(reason)
}

// usable returns an error if Pebble must not be called.
func (t *trust) usable() error {
	if t.broken.Load() {
		return t.err()
	}
	return nil
}

// caught is deferred around every call into Pebble. A panic there comes from
// damaged data or from a state that Pebble thinks impossible.
func (t *trust) caught(op string, err *error) {
	if r := recover(); r != nil {
		t.broken.Store(true)
		t.halt(fmt.Errorf("%s: panic in Pebble: %v", op, r))
		*err = t.err()
	}
}

// judge looks at an error that Pebble returned: damage takes the trust away, and
// the error says so.
func (t *trust) judge(err error) error {
	if err == nil || !pebble.IsCorruptionError(err) {
		return err
	}
	t.lose(err)
	if errors.Is(err, ErrUntrusted) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUntrusted, err)
}

// Infof, Errorf and Fatalf make trust the pebble.Logger. Pebble takes for
// granted that Fatalf does not return. Halting makes that true for its files; the
// gate sees to it that Fatalf is not called from where Pebble could not go on.
func (t *trust) Infof(format string, args ...any) {
	t.log.Debug("pebble", "message", fmt.Sprintf(format, args...))
}

func (t *trust) Errorf(format string, args ...any) {
	t.log.Warn("pebble", "message", fmt.Sprintf(format, args...))
}

func (t *trust) Fatalf(format string, args ...any) {
	if strings.HasPrefix(format, "pebble: fatal commit error") {
		// Pebble takes the batch for committed and its commit pipeline is stuck.
		t.broken.Store(true)
	}
	t.halt(fmt.Errorf("pebble: "+strings.ReplaceAll(format, "%w", "%v"), args...))
}
