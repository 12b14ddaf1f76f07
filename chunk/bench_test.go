package chunk

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
)

// benchImage is 256 MiB as heaps are: a quarter zeros, a tenth of the rest seen
// before, and of what is new a third that does not compress.
const benchPages = 64 << 10

var benchImage = sync.OnceValue(func() []byte {
	r := rand.New(rand.NewPCG(1, 1))
	mem := make([]byte, benchPages*PageSize)
	for i := range benchPages {
		p := mem[i*PageSize : (i+1)*PageSize]
		switch n := r.IntN(100); {
		case n < 25:
			continue
		case n < 35 && i > 100:
			copy(p, mem[r.IntN(i)*PageSize:][:PageSize])
		default:
			structured := r.IntN(100) < 69
			for b := 0; b < PageSize; b += 8 {
				v := r.Uint64()
				if structured {
					v &= 0xffff_ffff
					if r.IntN(3) > 0 {
						v &= 0xff
					}
				}
				binary.LittleEndian.PutUint64(p[b:], v)
			}
		}
	}
	return mem
})

func benchSource(mem []byte) func(func(uint64, []byte) bool) {
	return func(yield func(uint64, []byte) bool) {
		for i := range len(mem) / PageSize {
			if !yield(uint64(i), mem[i*PageSize:(i+1)*PageSize]) {
				return
			}
		}
	}
}

// limit hashes what is not zero and compresses what was not seen before, on all
// cores, side by side, and keeps nothing: what no store can beat. With prove it
// decompresses too.
func limit(mem []byte, fresh [][]byte, prove bool) time.Duration {
	var c Coder
	began := time.Now()
	parallel := func(n int, fn func(int)) {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
					fn(i)
				}
			})
		}
		wg.Wait()
	}
	parallel(len(mem)/maxRaw, func(i int) {
		var ids [GroupPages]ID
		_ = SumPages(ids[:], mem[i*maxRaw:(i+1)*maxRaw])
	})
	bufs := sync.Pool{New: func() any { return new([maxCompressed]byte) }}
	parallel(len(fresh), func(i int) {
		b := bufs.Get().(*[maxCompressed]byte)
		if !prove {
			s2.Encode(b[:], fresh[i])
		} else if !c.proves(CodecDelta, c.compress(b[:], CodecDelta, fresh[i]), fresh[i]) {
			panic("wrong")
		}
		bufs.Put(b)
	})
	return time.Since(began)
}

// freshGroups lays what is new side by side, before the clock runs.
func freshGroups(mem []byte) [][]byte {
	seen := map[ID]bool{{}: true}
	var all []byte
	for i := range len(mem) / PageSize {
		p := mem[i*PageSize : (i+1)*PageSize]
		if id := Sum(p); !seen[id] {
			seen[id] = true
			all = append(all, p...)
		}
	}
	var out [][]byte
	for len(all) > 0 {
		n := min(maxRaw, len(all))
		out, all = append(out, all[:n]), all[n:]
	}
	return out
}

// BenchmarkIngest compares a full take, without log and index, with its limits
// in the same run.
func BenchmarkIngest(b *testing.B) {
	mem := benchImage()
	fresh := freshGroups(mem)
	b.SetBytes(int64(len(mem)))
	var bare, proved, took time.Duration
	for b.Loop() {
		b.StopTimer()
		bare += limit(mem, fresh, false)
		proved += limit(mem, fresh, true)
		runtime.GC()
		b.StartTimer()
		began := time.Now()
		k := newKit(b, func(o *StoreOptions) { o.Workers = 0 })
		w := k.s.NewWriter(WriterOptions{Codec: CodecDelta, Pins: k.s.NewPins(), Spill: func() (Spill, error) { return new(discard), nil }})
		if _, err := w.Ingest(context.Background(), benchSource(mem), nil, func(uint64, ID) error { return nil }); err != nil {
			b.Fatal(err)
		}
		if _, _, err := w.Finish(); err != nil {
			b.Fatal(err)
		}
		w.Close()
		took += time.Since(began)
	}
	b.ReportMetric(float64(bare)/float64(took), "of-limit")
	b.ReportMetric(float64(proved)/float64(took), "of-limit-with-proof")
}

// stored is a kit that holds the image, and its IDs.
func stored(b *testing.B, cache int64, mem []byte) (*kit, []ID) {
	k := newKit(b, func(o *StoreOptions) { o.Workers, o.PageCacheBytes = 0, cache })
	ids := make([]ID, len(mem)/PageSize)
	w := k.s.NewWriter(WriterOptions{Codec: CodecDelta})
	if _, err := w.Ingest(context.Background(), benchSource(mem), nil, func(i uint64, id ID) error { ids[i] = id; return nil }); err != nil {
		b.Fatal(err)
	}
	k.store(w)
	return k, ids
}

func BenchmarkPage(b *testing.B) {
	mem := benchImage()
	for _, cache := range []int64{-1, 8 << 20, 1 << 30} {
		b.Run(fmt.Sprintf("cache=%dMiB", max(cache, 0)>>20), func(b *testing.B) {
			k, ids := stored(b, cache, mem)
			var real []ID
			for _, id := range ids {
				if !id.IsZero() {
					real = append(real, id)
				}
			}
			dst := make([]byte, PageSize)
			for _, id := range real {
				if err := k.s.Page(id, dst); err != nil {
					b.Fatal(err)
				}
			}
			r := rand.New(rand.NewPCG(1, 1))
			for b.Loop() {
				if err := k.s.Page(real[r.IntN(len(real))], dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRestore compares with decoding and hashing alone, in the same run.
func BenchmarkRestore(b *testing.B) {
	mem := benchImage()
	k, ids := stored(b, -1, mem)
	image := make([]byte, len(mem))
	refs := make([]PageRef, len(ids))
	for i := range refs {
		refs[i] = PageRef{ID: ids[i], Dst: image[i*PageSize : (i+1)*PageSize]}
	}
	var payloads [][]byte
	for _, f := range k.l.frames {
		payloads = append(payloads, f.Payload)
	}
	bare := func() time.Duration {
		began := time.Now()
		var next atomic.Int64
		var wg sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				var c Coder
				buf := make([]byte, maxRaw)
				var sums [GroupPages]ID
				for i := int(next.Add(1)) - 1; i < len(payloads); i = int(next.Add(1)) - 1 {
					g, _ := parseGroup(payloads[i])
					if g.decode(&c, buf[:g.raw()]) != nil || SumPages(sums[:g.n], buf[:g.raw()]) != nil {
						panic("wrong")
					}
				}
			})
		}
		wg.Wait()
		return time.Since(began)
	}
	b.SetBytes(int64(len(mem)))
	var limit, took time.Duration
	for b.Loop() {
		b.StopTimer()
		limit += bare()
		b.StartTimer()
		began := time.Now()
		if err := k.s.Pages(context.Background(), refs); err != nil {
			b.Fatal(err)
		}
		took += time.Since(began)
	}
	b.ReportMetric(float64(limit)/float64(took), "of-limit")
	b.ReportMetric(float64(k.s.Stats().Groups)/float64(b.N), "groups/op")
}

// BenchmarkScattered reads 1 % of an image, at random and in order, as a load
// does. The limit decodes the groups that have them and hashes them alone.
func BenchmarkScattered(b *testing.B) {
	mem := benchImage()
	k, ids := stored(b, -1, mem)
	r := rand.New(rand.NewPCG(1, 3))
	var refs []PageRef
	for i := range ids {
		if r.IntN(100) == 0 && !ids[i].IsZero() {
			refs = append(refs, PageRef{ID: ids[i], Dst: make([]byte, PageSize)})
		}
	}
	wanted := map[ID]bool{}
	for _, ref := range refs {
		wanted[ref.ID] = true
	}
	var payloads [][]byte
	for _, f := range k.l.frames {
		if g, err := parseGroup(f.Payload); err == nil {
			for i := range g.n {
				if wanted[g.id(i)] {
					payloads = append(payloads, f.Payload)
					break
				}
			}
		}
	}
	bare := func() time.Duration {
		began := time.Now()
		var next atomic.Int64
		var wg sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				var c Coder
				buf := make([]byte, maxRaw)
				var sums [GroupPages]ID
				for i := int(next.Add(1)) - 1; i < len(payloads); i = int(next.Add(1)) - 1 {
					g, _ := parseGroup(payloads[i])
					if g.decode(&c, buf[:g.raw()]) != nil {
						panic("wrong")
					}
					if i%GroupPages == 0 && SumPages(sums[:g.n], buf[:g.raw()]) != nil {
						panic("wrong")
					}
				}
			})
		}
		wg.Wait()
		return time.Since(began)
	}
	b.SetBytes(int64(len(refs) * PageSize))
	var limits, times []time.Duration
	for b.Loop() {
		b.StopTimer()
		limits = append(limits, bare())
		b.StartTimer()
		began := time.Now()
		if err := k.s.Pages(context.Background(), refs); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(limits)
	slices.Sort(times)
	b.ReportMetric(float64(limits[len(limits)/2])/float64(times[len(times)/2]), "of-limit")
	b.ReportMetric(float64(len(payloads)), "groups/op")
}
