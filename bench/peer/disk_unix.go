//go:build unix

package peer

import (
	"io/fs"
	"syscall"
)

// onDisk is what a file or directory takes on the disk, holes left out.
func onDisk(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
