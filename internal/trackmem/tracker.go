package trackmem

import (
	"errors"
	"fmt"
	"os"
)

// Options of New. The zero value lets the machine decide.
type Options struct {
	// Mode to use; ModeAuto probes.
	Mode Mode
	// HugePages asks the system for huge pages: filling and the first arming
	// are cheaper, and memory is given out in pieces of 2 MiB.
	HugePages bool
}

// Tracker makes Memories that track in one way. Its methods are safe for
// concurrent use.
type Tracker struct {
	o      Options
	mode   Mode
	reason string
	kernel *kernel
}

// New probes the machine and decides on a mode. It fails only when a mode was
// asked for that is not there.
func New(o Options) (*Tracker, error) {
	t := &Tracker{o: o, mode: o.Mode, reason: "asked for"}
	switch o.Mode {
	case ModeBitmap, ModeHash:
		return t, nil
	case ModeAuto, ModeKernel:
	default:
		return nil, fmt.Errorf("tracking %s: no such mode", o.Mode)
	}
	k, err := openKernel()
	if err == nil {
		if err = k.probe(); err != nil {
			err = errors.Join(err, k.close())
		}
	}
	switch {
	case err == nil:
		t.kernel, t.mode = k, ModeKernel
		if o.Mode == ModeAuto {
			t.reason = "the kernel tracks writes"
		}
	case o.Mode == ModeKernel:
		return nil, fmt.Errorf("tracking by the kernel: %w", err)
	default:
		t.mode, t.reason = ModeHash, "the kernel can not track writes: "+err.Error()
	}
	return t, nil
}

// Mode is what was decided.
func (t *Tracker) Mode() Mode { return t.mode }

// Reason says why, for people.
func (t *Tracker) Reason() string { return t.reason }

// Close lets go of what the system gave. Memories that are left stay readable
// and their next Collect fails.
func (t *Tracker) Close() error {
	if t.kernel == nil {
		return nil
	}
	return t.kernel.close()
}

// Reserve makes a Memory of no length that can grow to limit bytes.
func (t *Tracker) Reserve(limit int64) (*Memory, error) {
	if limit < 0 || limit > 1<<46 {
		return nil, fmt.Errorf("reserve %d bytes: not a size", limit)
	}
	m := &Memory{t: t, mode: t.mode}
	m.hot.Store(noPage)
	// A whole number of the system's pages, as mappings are.
	whole := uint64(max(os.Getpagesize()/PageSize, 1))
	n := (max(pages(limit), 1) + whole - 1) / whole * whole
	var err error
	if m.res, err = reserve(n*PageSize, t.o.HugePages); err != nil {
		return nil, fmt.Errorf("reserve %d bytes of address space: %w", limit, err)
	}
	if m.marked, err = newMarks(n); err == nil {
		switch t.mode {
		case ModeKernel:
			err = t.kernel.register(m.res.bytes)
		case ModeHash:
			m.hashes, err = newHashes(n)
		}
	}
	if err != nil {
		m.closed = true
		return nil, errors.Join(fmt.Errorf("reserve %d bytes: %w", limit, err), m.unmap())
	}
	return m, nil
}
