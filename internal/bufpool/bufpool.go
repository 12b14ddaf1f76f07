// Package bufpool lends buffers of one size.
//
// Go's collector empties a sync.Pool, and gives its memory back to the system when it
// is not used for a while. Who takes a snapshot every few minutes would have some
// thousand pages faulted in anew each time, which is half as long again as the take. So
// a Pool keeps what was given back, up to a bound, as long as it lives.
package bufpool

import (
	"sync"
	"sync/atomic"
)

// A Pool lends buffers of Size bytes and counts them, so that a test can bound what is
// in use. It keeps up to Keep of those that are given back, and hands out the one that
// came last. A buffer has one owner at a time. Fill in Size and Keep before the first
// use; it is safe for concurrent use.
type Pool struct {
	Size, Keep int

	mu   sync.Mutex
	free [][]byte
	out  atomic.Int64
	peak atomic.Int64
}

// Get returns a buffer of Size bytes with any content.
func (p *Pool) Get() []byte {
	n := p.out.Add(1)
	for {
		peak := p.peak.Load()
		if n <= peak || p.peak.CompareAndSwap(peak, n) {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free[n-1] = nil
		p.free = p.free[:n-1]
		return b
	}
	return make([]byte, p.Size)
}

// Put takes a buffer back, cut shorter or not. What is not as large as those that were
// lent is not kept: one that has grown would never become smaller. nil is no buffer.
func (p *Pool) Put(b []byte) {
	if b == nil {
		return
	}
	p.out.Add(-1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < p.Keep && cap(b) == p.Size {
		p.free = append(p.free, b[:p.Size])
	}
}

// Out is how many are lent.
func (p *Pool) Out() int64 { return p.out.Load() }

// Peak is how many were lent at most at one time.
func (p *Pool) Peak() int64 { return p.peak.Load() }
