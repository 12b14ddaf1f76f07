package peer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A mounted file system is attached nowhere: only mount, a descriptor, leads
// into it, and the loop device under it clears itself when it is not used any
// more. So nothing can stay mounted, however this process ends: the kernel
// closes its descriptors.
type mounted struct {
	mount  int      // keeps the mount, and is good for nothing else
	root   *os.File // its directory
	device string   // as /dev/loop0
	disk   string   // the file behind it
}

// mountLoop mounts the file system in a file.
func mountLoop(fs fileSystem, disk string) (*mounted, error) {
	loop, err := attach(disk)
	if err != nil {
		return nil, fmt.Errorf("a loop device for %s: %w", disk, err)
	}
	defer loop.Close() // the mount holds it from now on; without one it clears itself
	m := &mounted{device: loop.Name(), disk: disk}
	if m.mount, err = mount(fs, m.device); err != nil {
		return nil, fmt.Errorf("mounting %s as %s: %w", disk, fs, err)
	}
	if m.root, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", m.mount)); err != nil {
		return nil, errors.Join(err, unix.Close(m.mount))
	}
	return m, nil
}

// mount gives a descriptor of the root of a new mount that no path leads to.
func mount(fs fileSystem, device string) (int, error) {
	ctx, err := unix.Fsopen(string(fs), unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(ctx) //nolint:errcheck // only lets go
	if err := unix.FsconfigSetString(ctx, "source", device); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, fmt.Errorf("%w%s", os.NewSyscallError("fsconfig", err), complaints(ctx))
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOATIME)
	return fd, os.NewSyscallError("fsmount", err)
}

// complaints reads what the file system had to say, which is more than a number.
func complaints(ctx int) (s string) {
	var line [1024]byte
	for {
		n, err := unix.Read(ctx, line[:])
		if err != nil || n <= 0 {
			return s
		}
		s += "; " + string(line[:n])
	}
}

// attach puts a loop device over a file. It clears itself when nothing uses it
// any more, the returned file included.
func attach(disk string) (*os.File, error) {
	backing, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	// Another process may take the device between the two calls.
	for range 100 {
		var n int
		if n, err = unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			return nil, os.NewSyscallError("LOOP_CTL_GET_FREE", err)
		}
		var dev *os.File
		if dev, err = os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0); err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd())}
		// Past the page cache of the file below, or every page is there twice.
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
		copy(config.Info.File_name[:len(config.Info.File_name)-1], disk)
		err = os.NewSyscallError("LOOP_CONFIGURE", unix.IoctlLoopConfigure(int(dev.Fd()), &config))
		if err == nil {
			return dev, nil
		}
		if err := dev.Close(); err != nil {
			return nil, err
		}
		if !errors.Is(err, unix.EBUSY) {
			return nil, err
		}
		time.Sleep(time.Millisecond)
	}
	return nil, err
}

// path is a path to a file in it, for this process alone.
func (m *mounted) path(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", m.root.Fd(), name)
}

// used gives the bytes in use, all that the file system keeps for itself included.
func (m *mounted) used() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(m.root.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize, nil
}

// sync makes all of it durable.
func (m *mounted) sync() error {
	return os.NewSyscallError("syncfs", unix.Syncfs(int(m.root.Fd())))
}

var errStillMounted = errors.New("the file system is closed but the kernel has not let go of its loop device; is a file of it still open?")

// close unmounts and waits until the kernel has let go of the file below.
func (m *mounted) close() error {
	if err := errors.Join(m.root.Close(), os.NewSyscallError("close", unix.Close(m.mount))); err != nil {
		return err
	}
	backing := filepath.Join("/sys/block", filepath.Base(m.device), "loop/backing_file")
	for wait := time.Millisecond; wait < 8*time.Second; wait *= 2 {
		// The device may be somebody else's by now.
		if b, err := os.ReadFile(backing); err != nil || string(b) != m.disk+"\n" {
			return nil
		}
		time.Sleep(wait)
	}
	return fmt.Errorf("%w: %s", errStillMounted, m.device)
}
