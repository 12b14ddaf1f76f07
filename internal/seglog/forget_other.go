//go:build !linux

package seglog

// Forget asks the operating system to keep nothing of a segment in memory, where
// it can be asked.
func (l *Log) Forget(SegmentID) {}
