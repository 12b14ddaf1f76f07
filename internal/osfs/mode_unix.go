//go:build unix

package osfs

import "os"

// openToOthers: group and everybody.
func openToOthers(info os.FileInfo) bool { return info.Mode().Perm()&0o022 != 0 }
