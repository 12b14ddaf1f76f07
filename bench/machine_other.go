//go:build !linux

package bench

import (
	"io/fs"
	"path/filepath"
	"time"
)

// cpuTime is not counted here.
func cpuTime() time.Duration { return 0 }

// fileSystem is not known here.
func fileSystem(string) string { return "" }

// free is not known here.
func free(string) (uint64, bool) { return 0, false }

// onDisk sums the lengths of the files below dir.
func onDisk(dir string) (int64, error) {
	total := int64(0)
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

// alloc gives memory for an image.
func alloc(size int) ([]byte, func(), error) { return make([]byte, size), func() {}, nil }
