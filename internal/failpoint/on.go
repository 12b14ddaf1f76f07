//go:build failpoint

package failpoint

import "sync/atomic"

// Enabled tells whether the points are compiled in.
const Enabled = true

// hook belongs to the whole process: who sets it runs one store in a process of
// its own.
var hook atomic.Pointer[func(Point, string)]

// At is called by who is about to do a step; whose says on whose behalf, where
// that matters. It returns when the step may be done.
func At(p Point, whose string) {
	if f := hook.Load(); f != nil {
		(*f)(p, whose)
	}
}

// OnPoint sets what is called at every point; nil is nothing.
func OnPoint(f func(Point, string)) {
	if f == nil {
		hook.Store(nil)
		return
	}
	hook.Store(&f)
}
