//go:build !linux

package osfs

import "errors"

// Direct is a file that is written past the page cache: not on this system.
type Direct struct{}

// OpenDirect always fails with errors.ErrUnsupported.
func (s FS) OpenDirect(string) (*Direct, error) { return nil, errors.ErrUnsupported }

// Align is 1.
func (d *Direct) Align() int { return 1 }

// WriteAt always fails with errors.ErrUnsupported.
func (d *Direct) WriteAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }

// Close does nothing.
func (d *Direct) Close() error { return nil }
