//go:build unix

package peer

import (
	"os/exec"
	"syscall"
	"time"
)

// ownGroup gives a program a process group of its own, so that it can be
// killed with all that it started.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// groupGone waits, a second at most, until all of a killed group has ended.
func groupGone(cmd *exec.Cmd) {
	if cmd.Process == nil {
		return
	}
	for range 1000 {
		if syscall.Kill(-cmd.Process.Pid, 0) != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
