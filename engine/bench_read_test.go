package engine_test

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/snapstore/snapstore/bench/limit"
	"github.com/snapstore/snapstore/engine"
)

// BenchmarkRead reads a snapshot as it was taken, then one that forty takes of 1 %
// have scattered: all of it from a disk that the system has forgotten, all of it from
// memory, and single pages.
func BenchmarkRead(b *testing.B) {
	ctx := context.Background()
	o := &engine.Options{SnapshotLimit: 10}
	e, dir := benchStore(b, o)
	k := newBenchCanister(b, e, 1, benchSize(b), 10)
	disk := must(limit.NewDisk(filepath.Dir(dir), 1<<20))
	defer disk.Close()
	dst := make([]byte, k.size)
	clear(dst)
	section := func() (*engine.Snapshot, *engine.SectionReader) {
		snap := must(e.Snapshot(ctx, k.ids[len(k.ids)-1]))
		return snap, must(snap.Section(engine.WasmMemory))
	}
	all := func() time.Duration {
		began := time.Now()
		snap, sec := section()
		defer snap.Close()
		must(sec.ReadAt(dst, 0))
		return time.Since(began)
	}
	warm := func(b *testing.B) {
		b.SetBytes(int64(k.size))
		for b.Loop() {
			all()
		}
	}
	page := func(b *testing.B) {
		snap, sec := section()
		defer snap.Close()
		r := rand.New(rand.NewPCG(1, 1))
		var times []time.Duration
		for b.Loop() {
			began := time.Now()
			must(sec.ReadAt(dst[:engine.PageSize], r.Int64N(int64(k.size/engine.PageSize))*engine.PageSize))
			times = append(times, time.Since(began))
		}
		b.ReportMetric(float64(quantile(times, 0.5))/1e3, "us-p50")
	}
	quiet(b, e)
	all() // what was written past the system's memory gets there
	b.Run("whole/warm", warm)
	b.Run("whole/page", page)
	for range 40 {
		k.touch()
		k.take()
		quiet(b, e)
	}
	b.Run("scattered/cold", func(b *testing.B) {
		b.SetBytes(int64(k.size))
		for b.Loop() {
			b.StopTimer()
			if err := e.Close(); err != nil {
				b.Fatal(err)
			}
			forgotten, err := limit.ForgetTree(dir)
			e = must(engine.Open(dir, o))
			if err != nil || !forgotten {
				b.Skip("this system can not be asked to forget a file")
			}
			_, read, _, err := disk.Sequential(e.Stats().LiveBytes)
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			b.ReportMetric(read.Seconds()/all().Seconds(), "of-limit")
		}
	})
	b.Run("scattered/warm", warm)
	b.Run("scattered/page", page)
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
}
