package engine_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/trackmem"
)

func medianOf(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// lentGuest is a canister with size bytes lent, all of them written and
// durable, and a limit of its own.
func lentGuest(b *testing.B, size, limit uint64, o *engine.Options) (*engine.Engine, *engine.Canister, []byte) {
	b.Helper()
	e, _ := benchStore(b, o)
	c := must(e.CreateCanister(bg, canisterID(b, 1)))
	m := must(c.Memory(engine.WasmMemory))
	if err := m.Resize(size); err != nil {
		b.Fatal(err)
	}
	lent := must(m.Bytes(bg, limit))
	b.Cleanup(func() { lent.Release() })
	mem := lent.Bytes()
	(&mix{seed: 1}).image(mem)
	must(c.Checkpoint(bg))
	return e, c, mem
}

// writePages changes n pages at random.
func writePages(mem []byte, rng *rand.Rand, n int) {
	for range n {
		binary.LittleEndian.PutUint64(mem[rng.IntN(len(mem)/engine.PageSize)*engine.PageSize+512:], rng.Uint64())
	}
}

// pauseFloor does, without the engine, what no pause can be without: ask the
// kernel what was written of memory that is tracked, and copy those pages.
// Nothing is armed, so the engine finds what it would have found.
type pauseFloor struct {
	pagemap *os.File
	ranges  [][3]uint64
	buf     []byte
	sum     byte
}

func newPauseFloor(b *testing.B, pages int) *pauseFloor {
	f := &pauseFloor{pagemap: must(os.Open("/proc/self/pagemap")), ranges: make([][3]uint64, pages), buf: make([]byte, pages*engine.PageSize)}
	b.Cleanup(func() { f.pagemap.Close() })
	for i := 0; i < len(f.buf); i += engine.PageSize {
		f.buf[i] = 1
	}
	for i := range f.ranges {
		f.ranges[i][0] = 1
	}
	return f
}

func (f *pauseFloor) run(b *testing.B, mem []byte) (look, all time.Duration) {
	began := time.Now()
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem))))
	arg := [12]uint64{ // struct pm_scan_arg: size, flags, start, end, -, vec, its length, -, -, mask, -, return mask
		96, 2, base, base + uint64(len(mem)), 0,
		uint64(uintptr(unsafe.Pointer(unsafe.SliceData(f.ranges)))), uint64(len(f.ranges)), 0, 0, 2, 0, 2,
	}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, f.pagemap.Fd(), 0xC0606610, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		b.Fatal(errno)
	}
	look = time.Since(began)
	at := 0
	for _, r := range f.ranges[:n] {
		at += copy(f.buf[at:], mem[r[0]-base:r[1]-base])
	}
	all = time.Since(began)
	for i := 0; i < 128<<20; i += 64 { // so that the caches do not help the take
		f.sum += mem[i]
	}
	return look, all
}

// BenchmarkPause is how long a take stops a guest with 1 GiB mapped, of which
// 1 % was written at random, or 10 pages of a reservation of 6 GiB. With
// pre-copy, the guest writes 52 more pages before it is stopped. The floor is
// the kernel's answer, and without pre-copy the copy of what it names.
func BenchmarkPause(b *testing.B) {
	const size = 1 << 30
	for _, huge := range []bool{false, true} {
		e, c, mem := lentGuest(b, size, 6<<30, &engine.Options{HugePages: huge})
		if e.Stats().Tracking != "kernel" {
			b.Skip(e.Stats().TrackingReason)
		}
		rng := rand.New(rand.NewPCG(1, 9))
		floor := newPauseFloor(b, size/engine.PageSize/50)
		for _, v := range []struct {
			name         string
			dirty, after int
		}{
			{"dirty=1%/pre-copy", size / engine.PageSize / 100, 52},
			{"dirty=1%", size / engine.PageSize / 100, -1},
			{"dirty=10pages", 10, -1},
			{"dirty=10pages/pre-copy", 10, 0},
		} {
			b.Run(fmt.Sprintf("huge=%t/%s", huge, v.name), func(b *testing.B) {
				c.SetGuest(nil)
				if v.after >= 0 {
					c.SetGuest(guestFunc(func(_ context.Context, pause func() error) error {
						writePages(mem, rng, v.after)
						return pause()
					}))
				}
				var pauses, takes, looks, floors []time.Duration
				var last engine.SnapshotID
				pages := 0
				for b.Loop() {
					writePages(mem, rng, v.dirty)
					look, all := floor.run(b, mem)
					looks, floors = append(looks, look), append(floors, all)
					res := must(c.Take(bg, engine.TakeOptions{Replace: last}))
					last = res.ID
					pauses, takes = append(pauses, res.Pause), append(takes, res.Duration)
					pages += res.ResiduePages
				}
				pause, limit := medianOf(pauses), medianOf(floors)
				if v.after >= 0 { // what is copied then is little
					limit = medianOf(looks)
				}
				b.ReportMetric(float64(pause), "ns/pause")
				b.ReportMetric(float64(limit), "ns/floor")
				b.ReportMetric(float64(pause)/float64(limit), "of-floor")
				b.ReportMetric(float64(medianOf(takes)), "ns/take")
				b.ReportMetric(float64(pages)/float64(len(pauses)), "residue")
				b.ReportMetric(0, "ns/op")
				if err := e.Delete(bg, last); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// armedCopy is what the system asks for writing n scattered pages of tracked
// memory: a fault and a copy for each. No load can be without it.
func armedCopy(b *testing.B, n int) func() time.Duration {
	tr := must(trackmem.New(trackmem.Options{Mode: trackmem.ModeKernel}))
	b.Cleanup(func() { tr.Close() })
	const size = 1 << 30
	m := must(tr.Reserve(size))
	b.Cleanup(func() { m.Close() })
	if err := m.Grow(size); err != nil {
		b.Fatal(err)
	}
	lent := must(m.Borrow())
	b.Cleanup(func() { lent.Release() })
	mem := lent.Bytes()
	for i := 0; i < size; i += engine.PageSize {
		mem[i] = 1
	}
	order := rand.New(rand.NewPCG(1, 10)).Perm(size / engine.PageSize)[:n]
	src := make([]byte, engine.PageSize)
	var d trackmem.DirtySet
	return func() time.Duration {
		d.Clear()
		if err := m.Collect(&d); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		for _, p := range order {
			copy(mem[p*engine.PageSize:], src)
		}
		return time.Since(began)
	}
}

// BenchmarkLoadLent loads a snapshot that differs in 1 % of 1 GiB, and the one
// before it, in turn: what the one brings lies together in the log, what the
// other brings is scattered. The faults of writing to tracked memory cost a
// tenth of it on one machine and half on another, so they are measured beside it.
func BenchmarkLoadLent(b *testing.B) {
	const size = 1 << 30
	e, c, mem := lentGuest(b, size, size, nil)
	rng := rand.New(rand.NewPCG(1, 9))
	var ids [2]engine.SnapshotID
	for i := range ids {
		ids[i] = must(c.Take(bg, engine.TakeOptions{})).ID
		writePages(mem, rng, size/engine.PageSize/100)
	}
	must(c.Load(bg, ids[1], engine.LoadOptions{}))
	if e.Stats().Tracking != "kernel" {
		b.Skip(e.Stats().TrackingReason)
	}
	bare := armedCopy(b, size/engine.PageSize/100)
	var faults []time.Duration
	var each [2][]time.Duration // what is scattered, what lies together
	for i := 0; b.Loop(); i++ {
		time.Sleep(20 * time.Millisecond) // the guest runs, and the memory is armed
		faults = append(faults, bare())
		for e.Stats().WaitingBatches > 0 { // not the load's own work
			time.Sleep(time.Millisecond)
		}
		began := time.Now()
		must(c.Load(bg, ids[i%2], engine.LoadOptions{}))
		each[i%2] = append(each[i%2], time.Since(began))
	}
	fault, scattered, together := medianOf(faults), medianOf(each[0]), medianOf(each[1])
	load := (scattered + together) / 2
	b.ReportMetric(float64(scattered), "ns/scattered")
	b.ReportMetric(float64(together), "ns/together")
	b.ReportMetric(float64(load), "ns/load")
	b.ReportMetric(float64(fault), "ns/faults")
	b.ReportMetric(float64(load-fault), "ns/rest")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkTakeStable takes 10 dirty pages of a stable memory of 500 GiB, over
// one fdatasync of as much; and opens that memory.
func BenchmarkTakeStable(b *testing.B) {
	e, dir := benchStore(b, nil)
	c := must(e.CreateCanister(bg, canisterID(b, 1)))
	m := must(c.Memory(engine.StableMemory))
	const size = 500 << 30
	if err := m.Resize(size); err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 9))
	page := make([]byte, engine.PageSize)
	change := func(n int) {
		for range n {
			for i := range page[:512] {
				page[i] = byte(rng.Uint32())
			}
			must(m.WriteAt(page, rng.Int64N(size/engine.PageSize)*engine.PageSize))
		}
	}
	change(20_000)
	must(c.Checkpoint(bg))
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
	e = must(engine.Open(dir, nil))
	began := time.Now()
	c = must(e.Canister(canisterID(b, 1)))
	m = must(c.Memory(engine.StableMemory))
	opened := time.Since(began)
	defer e.Close()

	f := must(os.Create(filepath.Join(b.TempDir(), "sync")))
	defer f.Close()
	junk := make([]byte, 64<<10)
	var takes, syncs []time.Duration
	var last engine.SnapshotID
	for i := 0; b.Loop(); i++ {
		change(10)
		began := time.Now()
		res := must(c.Take(bg, engine.TakeOptions{Replace: last}))
		takes = append(takes, time.Since(began))
		last = res.ID
		began = time.Now()
		must(f.WriteAt(junk, int64(i*len(junk))))
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		syncs = append(syncs, time.Since(began))
	}
	t, s := medianOf(takes), medianOf(syncs)
	b.ReportMetric(float64(t), "ns/take")
	b.ReportMetric(float64(opened), "ns/open")
	b.ReportMetric(float64(s), "ns/fdatasync")
	b.ReportMetric(float64(t)/float64(s), "of-fdatasync")
	b.ReportMetric(0, "ns/op")
}
