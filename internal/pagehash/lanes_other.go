//go:build !amd64

package pagehash

// supported says whether this machine has what a kind needs.
func supported(k Kind) bool { return k == Portable }

// hash is never called: only Portable is supported.
func (Kind) hash(*batch) {}
