package engine_test

import (
	"os"
	"syscall"
	"time"
)

// cpuTime is what the process has used so far, kernel included.
func cpuTime() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// dataSync makes the content of a file durable.
func dataSync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
