//go:build !linux

package limit

import "os"

func datasync(f *os.File) error { return f.Sync() }

// Forget can not be asked of this system.
func Forget(*os.File) (bool, error) { return false, nil }
