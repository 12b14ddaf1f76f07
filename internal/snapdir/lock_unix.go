//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package snapdir

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockShared takes the tools' advisory lock for reading, without waiting. Nil
// where there is no lock file, which is how dfx leaves a directory. A file
// system without locks is no reason to refuse.
func lockShared(root *os.Root) (*os.File, error) {
	f, _, err := openRegular(root, lockName)
	if errors.Is(err, ErrMissing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(fileError(lockName, err), f.Close())
	}
	var lockErr error
	err = conn.Control(func(fd uintptr) {
		lockErr = unix.Flock(int(fd), unix.LOCK_SH|unix.LOCK_NB)
	})
	if errors.Is(lockErr, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err != nil {
		return nil, errors.Join(fileError(lockName, err), f.Close())
	}
	return f, nil
}
