//go:build unix

package peer

import (
	"os/exec"
	"syscall"
)

// ownGroup gives a program a process group of its own, so that it can be
// killed with all that it started.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
