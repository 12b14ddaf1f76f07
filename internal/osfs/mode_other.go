//go:build !unix

package osfs

import "os"

// openToOthers is not to be told from the mode bits here.
func openToOthers(os.FileInfo) bool { return false }
