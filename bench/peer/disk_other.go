//go:build !unix

package peer

import "io/fs"

// onDisk is the length: what holes save can not be asked for here.
func onDisk(info fs.FileInfo) int64 { return info.Size() }
