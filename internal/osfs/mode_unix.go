//go:build unix

package osfs

import (
	"os"
	"syscall"
)

// openToOthers: group and everybody.
func openToOthers(info os.FileInfo) bool { return info.Mode().Perm()&0o022 != 0 }

// reachableByOthers tells whether others can open what is in a directory.
func reachableByOthers(info os.FileInfo) bool { return info.Mode().Perm()&0o011 != 0 }

// ofAnother tells whether another account than this one and root's owns it: that
// one may do anything with it.
func ofAnother(info os.FileInfo) (uid int, other bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), st.Uid != 0 && int(st.Uid) != os.Geteuid()
}
