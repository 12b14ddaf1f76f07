//go:build !linux

package engine_test

import (
	"os"
	"time"
)

// cpuTime is not known here.
func cpuTime() time.Duration { return 0 }

func dataSync(f *os.File) error { return f.Sync() }
