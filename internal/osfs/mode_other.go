//go:build !unix

package osfs

import "os"

// openToOthers is not to be told from the mode bits here.
func openToOthers(os.FileInfo) bool { return false }

// reachableByOthers is not to be told either.
func reachableByOthers(os.FileInfo) bool { return false }

// ofAnother is not to be told either.
func ofAnother(os.FileInfo) (uid int, other bool) { return 0, false }
