//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package ui

import "os"

// IsTerminal is not known here: output is treated as a pipe.
func IsTerminal(*os.File) bool { return false }

func terminalWidth(*os.File) int { return 0 }
