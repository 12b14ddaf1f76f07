//go:build !failpoint

package failpoint

// Enabled tells whether the points are compiled in.
const Enabled = false

// At does nothing.
func At(Point, string) {}

// OnPoint does nothing.
func OnPoint(func(Point, string)) {}
