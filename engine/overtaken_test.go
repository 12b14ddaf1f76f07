//go:build failpoint

package engine_test

import (
	"encoding/binary"
	"testing"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/failpoint"
)

// A step of a drop whose nodes were read ahead, without the lock, goes on from what is
// known when it has it: takes and deletes of the same canister, and of another, are
// applied in between. It runs alone, since the points are the process's.
func TestDropIsOvertaken(t *testing.T) {
	e, _ := memStore(t, engine.Options{NoBackground: true, NoCompression: true, NodeCache: 1, SnapshotLimit: 100})
	e.SetStep(64)
	const pages = 1000
	type canister struct {
		c    *engine.Canister
		mem  *engine.Memory
		ids  []engine.SnapshotID
		salt int
	}
	all := make([]*canister, 2)
	for n := range all {
		k := &canister{c: must(e.CreateCanister(bg, canisterID(t, byte(n+1))))}
		k.mem = must(k.c.Memory(engine.StableMemory))
		if err := k.mem.Resize(pages * engine.PageSize); err != nil {
			t.Fatal(err)
		}
		all[n] = k
	}
	round := func(k *canister, remove bool) {
		page := make([]byte, engine.PageSize)
		for i := k.salt % 7; i < pages; i += 7 + k.salt%5 {
			binary.LittleEndian.PutUint64(page, uint64(k.salt*pages+i)<<1|1)
			must(k.mem.WriteAt(page, int64(i)*engine.PageSize))
		}
		k.salt++
		k.ids = append(k.ids, must(k.c.Take(bg, engine.TakeOptions{})).ID)
		if !remove {
			return
		}
		// From the middle, so that the neighbours of what is being dropped change too.
		at := k.salt % len(k.ids)
		if err := e.Delete(bg, k.ids[at]); err != nil {
			t.Fatal(err)
		}
		k.ids = append(k.ids[:at], k.ids[at+1:]...)
		must(k.c.Checkpoint(bg)) // waits until the delete is applied
	}
	for i := range 12 {
		for _, k := range all {
			round(k, i >= 8)
		}
	}
	walked, inside := 0, false
	failpoint.OnPoint(func(p failpoint.Point, _ string) {
		if p != failpoint.Walked || inside {
			return
		}
		if inside = true; walked < 20 {
			for _, k := range all {
				round(k, true)
			}
		}
		walked++
		inside = false
	})
	defer failpoint.OnPoint(nil)
	for range 3 {
		must(e.GC(bg, engine.GCOptions{}))
	}
	if walked < 20 {
		t.Fatalf("%d steps were walked ahead", walked)
	}
	for p, err := range e.Verify(bg, engine.VerifyOptions{}) {
		t.Errorf("%+v, %v", p, err)
	}
}
