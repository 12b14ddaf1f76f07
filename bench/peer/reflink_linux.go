package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskSize is what a file system may grow to. The file behind it has holes, so
// only what is written counts.
const diskSize = 32 << 30

// Probe tries what Create will need: the kernel's side, the right to mount,
// and mkfs.
func (r reflink) Probe(ctx context.Context) (string, error) {
	fd, err := unix.Fsopen(string(r.fs), unix.FSOPEN_CLOEXEC)
	switch {
	case errors.Is(err, unix.EPERM):
		return "", fmt.Errorf("%s: %w: only root may mount it", r.fs, ErrAbsent)
	case errors.Is(err, unix.ENODEV):
		return "", fmt.Errorf("%s: %w: this kernel does not have it", r.fs, ErrAbsent)
	case errors.Is(err, unix.ENOSYS):
		return "", fmt.Errorf("%s: %w: it needs Linux 5.8", r.fs, ErrAbsent)
	case err != nil:
		return "", fmt.Errorf("%s: %w", r.fs, os.NewSyscallError("fsopen", err))
	}
	if err := unix.Close(fd); err != nil {
		return "", err
	}
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("%s: %w: no loop devices: %w", r.fs, ErrAbsent, err)
	}
	if err := ctl.Close(); err != nil {
		return "", err
	}
	return probe(ctx, r.fs.debian(), "mkfs."+string(r.fs), "-V")
}

// Create makes the file system and mounts it where nobody else sees it.
func (r reflink) Create(ctx context.Context, dir string) (_ Store, err error) {
	run, err := newRunner(dir)
	if err != nil {
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// As the kernel names it, see mounted.close.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	disk := filepath.Join(dir, "disk.img")
	f, err := os.OpenFile(disk, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close()); err != nil {
		return nil, err
	}
	if _, err := run.run(ctx, "mkfs."+string(r.fs), "-q", disk); err != nil {
		return nil, err
	}
	m, err := mountLoop(r.fs, disk)
	if err != nil {
		return nil, err
	}
	s := &clones{mounted: m, versions: versions{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.live, err = os.OpenFile(m.path("live"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err = m.sync(); err != nil {
		return nil, err
	}
	if s.empty, err = m.used(); err != nil {
		return nil, err
	}
	return s, ctx.Err()
}

// clones is a live image and the files that share its blocks.
type clones struct {
	*mounted
	versions
	live   *os.File
	length int   // of the live image; 0 before the first
	empty  int64 // in use before the first version
}

func (s *clones) file(name string) string { return s.path("v-" + name) }

func (s *clones) Put(ctx context.Context, v Version) (err error) {
	if err := s.free(v.Name); err != nil {
		return err
	}
	if v.Dirty == nil || s.length != len(v.Mem) {
		err = s.writeAll(ctx, v.Mem)
	} else {
		err = s.writeDirty(ctx, v.Mem, v.Dirty)
	}
	if err != nil {
		return err
	}
	s.length = len(v.Mem)
	clone, err := os.OpenFile(s.file(v.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	// Cloning writes out what is dirty, so one sync at the end is enough.
	err = os.NewSyscallError("FICLONE", unix.IoctlFileClone(int(clone.Fd()), int(s.live.Fd())))
	if err = errors.Join(err, clone.Close(), ctx.Err()); err != nil {
		return err
	}
	if err := s.sync(); err != nil {
		return err
	}
	s.versions[v.Name] = v.Name
	return nil
}

// writeAll writes the live image anew, with holes for zeros.
func (s *clones) writeAll(ctx context.Context, mem []byte) error {
	if err := errors.Join(s.live.Truncate(0), s.live.Truncate(int64(len(mem)))); err != nil {
		return err
	}
	pages := make([]uint64, 0, pageCount(len(mem)))
	for i := range uint64(pageCount(len(mem))) {
		if !isZero(page(mem, i)) {
			pages = append(pages, i)
		}
	}
	return s.writeDirty(ctx, mem, pages)
}

// writeDirty writes pages into the live image, neighbours at once.
func (s *clones) writeDirty(ctx context.Context, mem []byte, pages []uint64) error {
	for len(pages) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := 1
		for n < len(pages) && n < copyStep/pageSize && pages[n] == pages[0]+uint64(n) {
			n++
		}
		from := pages[0] * pageSize
		to := min(from+uint64(n)*pageSize, uint64(len(mem)))
		if _, err := s.live.WriteAt(mem[from:to], int64(from)); err != nil {
			return err
		}
		pages = pages[n:]
	}
	return nil
}

func (s *clones) Get(ctx context.Context, name, dst string) error {
	if _, err := s.find(name); err != nil {
		return err
	}
	f, err := os.Open(s.file(name))
	if err != nil {
		return err
	}
	return errors.Join(copyTo(ctx, dst, f), f.Close())
}

func (s *clones) Delete(ctx context.Context, name string) error {
	if _, err := s.find(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.Remove(s.file(name)); err != nil {
		return err
	}
	delete(s.versions, name)
	return s.sync()
}

func (s *clones) Size(ctx context.Context) (int64, error) {
	used, err := s.used()
	return max(0, used-s.empty), errors.Join(err, ctx.Err())
}

func (s *clones) Close() error {
	var err error
	if s.live != nil {
		err = s.live.Close()
	}
	return errors.Join(err, s.close())
}
