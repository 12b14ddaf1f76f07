package bufpool

import (
	"runtime"
	"testing"
)

// What is given back stays, up to the bound, whatever the collector does, and comes
// out again the last first; each has one owner.
func TestPool(t *testing.T) {
	p := Pool{Size: 100, Keep: 3}
	lent := map[*byte]bool{}
	var all [][]byte
	for range 5 {
		b := p.Get()
		if len(b) != 100 || lent[&b[0]] {
			t.Fatalf("a buffer of %d bytes, lent already: %v", len(b), lent[&b[0]])
		}
		lent[&b[0]] = true
		all = append(all, b)
	}
	p.Put(append(all[4], make([]byte, 1000)...))
	for _, b := range all[:4] {
		p.Put(b[:7])
	}
	p.Put(nil)
	if p.Out() != 0 || p.Peak() != 5 || len(p.free) != 3 {
		t.Errorf("%d out, %d at most, %d kept", p.Out(), p.Peak(), len(p.free))
	}
	for range 3 {
		runtime.GC()
	}
	for i := 2; i >= 0; i-- {
		if b := p.Get(); len(b) != 100 || &b[0] != &all[i][0] {
			t.Errorf("not buffer %d, of %d bytes", i, len(b))
		}
	}
	if b := p.Get(); lent[&b[0]] {
		t.Error("a buffer beyond the bound was kept")
	}
}
