package index

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var errHalted = errors.New("index: halted, nothing is written any more")

// gate is the file system under Pebble. It closes four holes:
//
//   - Pebble v2.1.7 makes a marker file durable without first making durable the
//     name of the file that it points to; a crash between leaves a database that
//     does not open. The gate syncs the directory before it creates a marker.
//   - Pebble panics, on a goroutine of its own, when a directory does not sync.
//     When its MANIFEST can not be written it calls Fatalf, and if that returns
//     it goes on with half of an update in memory, to panic later. In both cases
//     the gate halts and reports success, which leaves Pebble whole in memory.
//   - Once halted, the gate changes nothing any more, so the files stay those of a
//     crash at that moment, whatever Pebble does.
//   - Pebble retries a failed compaction at once and for ever. The gate delays the
//     creation of the next table.
//
// Pebble also creates a write-ahead log at every Open, which stays empty, is not
// removed while the log is off, and takes syncs. The gate gives it a file that
// does not exist.
type gate struct {
	vfs.FS
	trust *trust
	// retry delays what follows a failed compaction.
	retry *retryDelay
	// makeRoom may free some space on a full disk, for what must not fail.
	makeRoom func() bool

	mu    sync.Mutex
	locks []io.Closer
}

func (g *gate) check() error {
	if !g.trust.halted.Load() {
		return nil
	}
	<-g.trust.lost // which comes at once: nothing is skipped while the trust is there
	if why := g.trust.err(); why != nil {
		return fmt.Errorf("%w: %w", errHalted, why)
	}
	return errHalted
}

// isWAL says whether name is one of Pebble's write-ahead logs.
func (g *gate) isWAL(name string) bool { return strings.HasSuffix(name, ".log") }

func (g *gate) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	base := g.PathBase(name)
	switch {
	case g.isWAL(name):
		return nowhere{}, nil
	case strings.HasPrefix(base, "MANIFEST-"), strings.HasPrefix(base, "marker."):
		return g.createUnfailing(name, category), nil
	case strings.HasSuffix(name, ".sst") && g.PathBase(g.PathDir(name)) == pebbleDir:
		g.retry.wait()
	}
	if err := g.check(); err != nil {
		return nil, err
	}
	f, err := g.FS.Create(name, category)
	return g.guard(f, err)
}

// createUnfailing creates a file that Pebble can not do without. What goes wrong
// with it halts the gate and is not reported.
func (g *gate) createUnfailing(name string, category vfs.DiskWriteCategory) vfs.File {
	u := unfailing{g, g.PathBase(name)}
	var f vfs.File
	if strings.HasPrefix(u.name, "marker.") {
		u.do(func() error { return syncDir(g.FS, g.PathDir(name)) })
	}
	u.grow(func() (err error) {
		f, err = g.FS.Create(name, category)
		return err
	})
	if f == nil {
		return nowhere{}
	}
	return &unfailingFile{File: f, unfailing: u}
}

func (g *gate) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	f, err := g.FS.OpenReadWrite(name, category, opts...)
	return g.guard(f, err)
}

// ReuseForWrite is for recycled write-ahead logs, of which there are none.
func (g *gate) ReuseForWrite(oldname, newname string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, &os.LinkError{Op: "reuse", Old: oldname, New: newname, Err: errors.ErrUnsupported}
}

func (g *gate) guard(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &gatedFile{File: f, gate: g}, nil
}

func (g *gate) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &unfailingFile{File: f, unfailing: unfailing{g, g.PathBase(name)}}, nil
}

func (g *gate) Link(oldname, newname string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.Link(oldname, newname)
}

func (g *gate) Rename(oldname, newname string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.Rename(oldname, newname)
}

func (g *gate) Remove(name string) error {
	if g.isWAL(name) {
		return nil
	}
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.Remove(name)
}

func (g *gate) RemoveAll(name string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.RemoveAll(name)
}

func (g *gate) MkdirAll(dir string, perm os.FileMode) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.MkdirAll(dir, perm)
}

// Lock gives Pebble a lock that unlock can take back when Pebble, broken, can
// not be closed.
func (g *gate) Lock(name string) (io.Closer, error) {
	l, err := g.FS.Lock(name)
	if err != nil {
		return nil, err
	}
	once := &onceCloser{Closer: l}
	g.mu.Lock()
	g.locks = append(g.locks, once)
	g.mu.Unlock()
	return once, nil
}

func (g *gate) unlock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.locks {
		_ = l.Close()
	}
}

func (g *gate) Unwrap() vfs.FS { return g.FS }

type onceCloser struct {
	io.Closer
	once sync.Once
	err  error
}

func (c *onceCloser) Close() error {
	c.once.Do(func() { c.err = c.Closer.Close() })
	return c.err
}

// gatedFile is a file that is not written once the gate is halted.
type gatedFile struct {
	vfs.File
	gate *gate
}

func (f *gatedFile) Write(p []byte) (int, error) {
	if err := f.gate.check(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *gatedFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.gate.check(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *gatedFile) Sync() error {
	if err := f.gate.check(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *gatedFile) SyncData() error {
	if err := f.gate.check(); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *gatedFile) SyncTo(length int64) (bool, error) {
	if err := f.gate.check(); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}

// unfailing does what must not fail in the eyes of Pebble.
type unfailing struct {
	gate *gate
	name string
}

// grow is do for what takes up space. Where there was none and some could be
// made, f is run once more and goes on where it stopped. Never for a sync, which
// may succeed the second time without having written anything.
func (u unfailing) grow(f func() error) {
	u.do(func() error {
		err := f()
		if isNoSpace(err) && u.gate.makeRoom != nil && u.gate.makeRoom() {
			err = f()
		}
		return err
	})
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// isEnvironment tells errors that say nothing of what is on the disk.
func isEnvironment(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EROFS, syscall.EACCES, syscall.EPERM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return isNoSpace(err)
}

// do runs f, unless the gate is halted. An error of f halts it.
func (u unfailing) do(f func() error) {
	if u.gate.check() != nil {
		return
	}
	if err := f(); err != nil {
		u.gate.trust.halt(fmt.Errorf("%s: %w", u.name, err))
	}
}

// unfailingFile is a file or directory whose writes and syncs halt the gate
// instead of failing.
type unfailingFile struct {
	vfs.File
	unfailing
}

func (f *unfailingFile) Write(p []byte) (int, error) {
	all := len(p)
	f.grow(func() error {
		n, err := f.File.Write(p)
		p = p[n:]
		return err
	})
	return all, nil
}

func (f *unfailingFile) Sync() error {
	f.do(f.File.Sync)
	return nil
}

func (f *unfailingFile) SyncData() error {
	f.do(f.File.SyncData)
	return nil
}

func (f *unfailingFile) SyncTo(length int64) (full bool, err error) {
	f.do(func() (err error) { full, err = f.File.SyncTo(length); return err })
	return full, nil
}

// Preallocate may fail: Pebble does without.
func (f *unfailingFile) Preallocate(offset, length int64) error {
	if err := f.gate.check(); err != nil {
		return err
	}
	return f.File.Preallocate(offset, length)
}

func (f *unfailingFile) Close() error {
	err := f.File.Close()
	f.do(func() error { return err })
	return nil
}

// nowhere is a file that keeps nothing.
type nowhere struct{}

func (nowhere) Close() error                           { return nil }
func (nowhere) Read([]byte) (int, error)               { return 0, io.EOF }
func (nowhere) ReadAt([]byte, int64) (int, error)      { return 0, io.EOF }
func (nowhere) Write(p []byte) (int, error)            { return len(p), nil }
func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhere) Preallocate(int64, int64) error         { return nil }
func (nowhere) Stat() (vfs.FileInfo, error)            { return nil, errors.ErrUnsupported }
func (nowhere) Sync() error                            { return nil }
func (nowhere) SyncTo(int64) (bool, error)             { return false, nil }
func (nowhere) SyncData() error                        { return nil }
func (nowhere) Prefetch(int64, int64) error            { return nil }
func (nowhere) Fd() uintptr                            { return vfs.InvalidFd }

// retryDelay makes background work that fails again and again wait longer and
// longer. A delay ends early when the index closes.
type retryDelay struct {
	closing <-chan struct{}

	mu    sync.Mutex
	delay time.Duration
	until time.Time
}

func (r *retryDelay) failed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = min(max(2*r.delay, firstRetryDelay), maxRetryDelay)
	r.until = time.Now().Add(r.delay)
}

func (r *retryDelay) succeeded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay, r.until = 0, time.Time{}
}

func (r *retryDelay) wait() {
	r.mu.Lock()
	d := time.Until(r.until)
	if r.delay == 0 {
		d = 0
	}
	r.mu.Unlock()
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.closing:
	}
}
