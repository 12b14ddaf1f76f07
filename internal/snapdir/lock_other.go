//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package snapdir

import "os"

// lockShared does nothing: the tools' lock is not known here.
func lockShared(*os.Root) (*os.File, error) { return nil, nil }
