//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package ui

import (
	"os"

	"golang.org/x/sys/unix"
)

// IsTerminal tells whether a person is at the other end of f. The mode of the
// file does not tell: /dev/null is a character device too.
func IsTerminal(f *os.File) bool {
	_, err := windowSize(f)
	return err == nil
}

// terminalWidth is the number of columns, 0 when unknown.
func terminalWidth(f *os.File) int {
	size, err := windowSize(f)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

func windowSize(f *os.File) (*unix.Winsize, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var size *unix.Winsize
	var sizeErr error
	err = conn.Control(func(fd uintptr) {
		size, sizeErr = unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ)
	})
	if err != nil {
		return nil, err
	}
	return size, sizeErr
}
