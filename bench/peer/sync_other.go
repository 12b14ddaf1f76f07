//go:build !linux

package peer

import (
	"io/fs"
	"path/filepath"
)

// syncStore makes everything under dir durable, file by file.
func syncStore(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncPath(path)
	})
}
