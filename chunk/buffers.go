package chunk

import (
	"sync"
	"sync/atomic"
)

// frameBuffer holds any group with the header of its frame, and most frames of
// nodes.
const frameBuffer = 64 + groupHeader + GroupPages*idSize + maxCompressed

// rowBuffer holds as well how the next group begins, with what lies between.
const rowBuffer = frameBuffer + 2*64 + headSize

// A bufferPool lends buffers of one size and counts them, so that a test can
// bound what is in use. A buffer has one owner at a time.
type bufferPool struct {
	size int
	pool sync.Pool // *[]byte
	out  atomic.Int64
	peak atomic.Int64
}

// get returns a buffer of size bytes with any content.
func (p *bufferPool) get() []byte {
	n := p.out.Add(1)
	for {
		peak := p.peak.Load()
		if n <= peak || p.peak.CompareAndSwap(peak, n) {
			break
		}
	}
	if b, _ := p.pool.Get().(*[]byte); b != nil {
		return *b
	}
	return make([]byte, p.size)
}

// put takes a buffer back. nil is no buffer.
func (p *bufferPool) put(b []byte) {
	if b == nil {
		return
	}
	p.out.Add(-1)
	b = b[:p.size]
	p.pool.Put(&b)
}
