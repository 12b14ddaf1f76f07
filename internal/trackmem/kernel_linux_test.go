//go:build linux && (amd64 || arm64)

package trackmem

import "testing"

// A machine whose kernel offers everything passes the probe, so that the tests
// that need it are not skipped because the code is wrong.
func TestProbe(t *testing.T) {
	t.Parallel()
	k, err := openKernel()
	if err != nil {
		t.Skipf("this machine: %v", err)
	}
	if err := k.probe(); err != nil {
		t.Error(err)
	}
	if err := k.close(); err != nil {
		t.Error(err)
	}
}
