package management

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/management/candid"
)

// BenchmarkTake1GiB takes a canister of 1 GiB, of which 1 % was written since
// the last take, through Call and through the engine in turn, and reports how
// much longer Call takes: it should be at most 5 %.
func BenchmarkTake1GiB(b *testing.B) {
	const size = 1 << 30
	ctx := context.Background()
	dir := filepath.Join(b.TempDir(), "store")
	if err := engine.Create(dir, nil); err != nil {
		b.Fatal(err)
	}
	e, err := engine.Open(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	s, err := New(ctx, e, nil, &Config{Provisional: true, Limits: Limits{HeapDeltaRate: 1 << 50}})
	if err != nil {
		b.Fatal(err)
	}
	reply, err := s.ProvisionalCreateCanister(ctx, alice, ProvisionalCreateArgs{})
	if err != nil {
		b.Fatal(err)
	}
	p := reply.CanisterID
	err = s.InstallCode(ctx, alice, InstallCodeArgs{Mode: InstallMode{Install: &candid.Null{}}, CanisterID: p, WasmModule: simple().wasm("bench")})
	if err != nil {
		b.Fatal(err)
	}
	id, err := engine.CanisterIDFromBytes(p)
	if err != nil {
		b.Fatal(err)
	}
	c, err := e.Canister(id)
	if err != nil {
		b.Fatal(err)
	}
	mem, err := c.Memory(engine.WasmMemory)
	if err != nil {
		b.Fatal(err)
	}
	if err := mem.Resize(size); err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	page := make([]byte, engine.PageSize)
	write := func(n int, at func(i int) int64) {
		for i := range n {
			for j := range page {
				page[j] = byte(rng.Uint32() & 15)
			}
			if _, err := mem.WriteAt(page, at(i)*engine.PageSize); err != nil {
				b.Fatal(err)
			}
		}
	}
	const pages = size / engine.PageSize
	write(pages, func(i int) int64 { return int64(i) })
	res, err := c.Take(ctx, engine.TakeOptions{})
	if err != nil {
		b.Fatal(err)
	}
	last := res.ID
	dirty := func() { write(pages/100, func(int) int64 { return rng.Int64N(pages) }) }

	var through, direct []time.Duration
	for b.Loop() {
		b.StopTimer()
		dirty()
		replace := last.Bytes()
		arg, err := candid.Marshal(TakeCanisterSnapshotArgs{CanisterID: p, ReplaceSnapshot: &replace})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		began := time.Now()
		out, err := s.Call(ctx, alice, "take_canister_snapshot", arg)
		through = append(through, time.Since(began))
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		var snap SnapshotRecord
		if err := candid.Unmarshal(out, candid.Limits{}, &snap); err != nil {
			b.Fatal(err)
		}
		if last, err = engine.SnapshotIDFromBytes(snap.ID); err != nil {
			b.Fatal(err)
		}
		dirty()
		began = time.Now()
		res, err := c.Take(ctx, engine.TakeOptions{Replace: last})
		direct = append(direct, time.Since(began))
		if err != nil {
			b.Fatal(err)
		}
		last = res.ID
		b.StartTimer()
	}
	// Medians: a disk that is shared has takes that tell nothing.
	slices.Sort(through)
	slices.Sort(direct)
	b.ReportMetric(float64(direct[len(direct)/2].Nanoseconds()), "engine-ns")
	b.ReportMetric(float64(through[len(through)/2].Nanoseconds()), "call-ns")
	b.ReportMetric(float64(through[len(through)/2])/float64(direct[len(direct)/2]), "call/engine")
}

// BenchmarkCall is what a call costs that does nothing to the store.
func BenchmarkCall(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "store")
	if err := engine.Create(dir, nil); err != nil {
		b.Fatal(err)
	}
	e, err := engine.Open(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	ctx := context.Background()
	s, err := New(ctx, e, nil, &Config{Provisional: true})
	if err != nil {
		b.Fatal(err)
	}
	reply, err := s.ProvisionalCreateCanister(ctx, alice, ProvisionalCreateArgs{})
	if err != nil {
		b.Fatal(err)
	}
	arg, err := candid.Marshal(CanisterIDArgs(reply))
	if err != nil {
		b.Fatal(err)
	}
	for _, method := range []string{"list_canister_snapshots", "canister_status"} {
		b.Run(method, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Call(ctx, alice, method, arg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
