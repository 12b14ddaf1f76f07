//go:build !unix

package peer

import "os/exec"

// ownGroup: there are no process groups here; the program alone is killed.
func ownGroup(*exec.Cmd) {}

func groupGone(*exec.Cmd) {}
