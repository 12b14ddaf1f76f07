//go:build !unix && !windows

package trackmem

// reservation is ordinary memory where nothing better is known.
type reservation struct{ bytes []byte }

func reserve(n uint64, _ bool) (reservation, error) {
	return reservation{bytes: make([]byte, n)}, nil
}

func (r *reservation) commit(_, _ uint64) error { return nil }

func (r *reservation) drop(from, to uint64) error {
	clear(r.bytes[from:min(to, uint64(len(r.bytes)))])
	return nil
}

func (r *reservation) release() error {
	r.bytes = nil
	return nil
}
