package realrows

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

// device is a real file system of its own, mounted in a folder.
type device struct {
	kind  string // tmpfs, ext4 or xfs
	file  string // of its blocks; tmpfs has none
	mount string
	loop  string // the block device, as /dev/loop0
}

// needsDevices says why file systems can not be made here.
func needsDevices() error {
	if os.Getuid() != 0 {
		return errors.New("this row mounts file systems: it wants to be root")
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is not here", tool)
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return fmt.Errorf("there are no loop devices: %w", err)
	}
	return nil
}

// newDevice makes a file system of so many bytes below dir and mounts it.
func newDevice(ctx context.Context, dir, kind string, size int64) (*device, error) {
	d := &device{kind: kind, file: filepath.Join(dir, "blocks"), mount: filepath.Join(dir, "mount")}
	if err := os.MkdirAll(d.mount, 0o700); err != nil {
		return nil, err
	}
	if kind == "tmpfs" {
		return d, syscall.Mount("tmpfs", d.mount, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, fmt.Sprintf("size=%d", size))
	}
	if err := makeDisk(ctx, d.file, kind, size); err != nil {
		return nil, err
	}
	return d, d.attach()
}

// attach mounts it, which recovers what its own journal has.
func (d *device) attach() error {
	options := "loop"
	if d.kind == "ext4" {
		options += ",errors=remount-ro"
	}
	if err := run("mount", "-t", d.kind, "-o", options, d.file, d.mount); err != nil {
		return err
	}
	out, err := exec.Command("losetup", "-n", "-O", "NAME", "-j", d.file).Output()
	d.loop = strings.TrimSpace(string(out))
	return err
}

// detach unmounts it, whatever is open.
func (d *device) detach() error {
	if d.kind == "tmpfs" {
		return syscall.Unmount(d.mount, syscall.MNT_DETACH)
	}
	return run("umount", "-d", d.mount)
}

// The ways of FS_IOC_SHUTDOWN.
const (
	shutdownIoctl      = 0x8004587d
	shutdownNoLogFlush = 2
)

// shutdown makes the file system forget all that it was not told to keep, and
// fail everything from now on.
func (d *device) shutdown() error {
	f, err := os.Open(d.mount)
	if err != nil {
		return err
	}
	defer f.Close()
	how := uint32(shutdownNoLogFlush)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), shutdownIoctl, uintptr(unsafe.Pointer(&how))); errno != 0 {
		return fmt.Errorf("shut %s down: %w", d.kind, errno)
	}
	return nil
}

// goReadOnly makes ext4 meet an error of its own, after which it is read-only.
func (d *device) goReadOnly() error {
	return os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(d.loop), "trigger_fs_error"), []byte("1"), 0)
}

// free is how many bytes an ordinary writer has left.
func (d *device) free() (int64, error) {
	var st syscall.Statfs_t
	err := syscall.Statfs(d.mount, &st)
	return int64(st.Bavail) * st.Bsize, err
}
