package trackmem

import "fmt"

// PageSize is the grain of tracking, in bytes. Where the system's pages are
// larger, all pages of a written one are reported.
const PageSize = 4096

// Mode is how writes are noticed.
type Mode uint8

// The modes. ModeAuto is kernel where the machine has it, and hash elsewhere.
const (
	ModeAuto Mode = iota
	ModeKernel
	ModeBitmap
	ModeHash
)

var modeNames = [...]string{"auto", "kernel", "bitmap", "hash"}

// String is the name that ParseMode reads.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// ParseMode reads a mode's name; the empty one is auto.
func ParseMode(s string) (Mode, error) {
	if s == "" {
		return ModeAuto, nil
	}
	for i, n := range modeNames {
		if s == n {
			return Mode(i), nil
		}
	}
	return 0, fmt.Errorf("tracking mode %q, want auto, kernel, bitmap or hash", s)
}

// Running tells whether CollectRunning works.
func (m Mode) Running() bool { return m == ModeKernel }
