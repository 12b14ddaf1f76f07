//go:build !linux || (!amd64 && !arm64)

package trackmem

import (
	"errors"
	"runtime"
)

var errNoKernel = errors.New("not on " + runtime.GOOS + "/" + runtime.GOARCH)

// kernel is not there.
type kernel struct{}

func openKernel() (*kernel, error)                              { return nil, errNoKernel }
func (k *kernel) probe() error                                  { return errNoKernel }
func (k *kernel) close() error                                  { return nil }
func (k *kernel) register([]byte) error                         { return errNoKernel }
func (m *Memory) populated(*DirtySet, uint64, uint64) error     { return errNoKernel }
func (m *Memory) collectKernel(*DirtySet, uint64, arming) error { return errNoKernel }
