package trackmem

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// filled is a memory that is mapped all over, and armed.
func filled(b *testing.B, o Options, size int64) (*Memory, []byte) {
	m := memory(b, tracker(b, o), size, size)
	mem := borrow(b, m).Bytes()
	for i := int64(0); i < size; i += PageSize {
		mem[i] = 1
	}
	var d DirtySet
	for range 2 {
		if err := m.Collect(&d); err != nil {
			b.Fatal(err)
		}
	}
	return m, mem
}

const benchSize = 1 << 30

// The first write to a page after a collect, over the plainest fault there is,
// that of a page nobody touched, at random pages and at ascending ones; and the
// writes after it, over those to memory
// that nobody tracks.
func BenchmarkFirstWrite(b *testing.B) {
	for _, huge := range []bool{false, true} {
		b.Run(fmt.Sprintf("huge=%t", huge), func(b *testing.B) {
			m, mem := filled(b, Options{Mode: ModeKernel, HugePages: huge}, benchSize)
			plain := make([]byte, benchSize)
			for i := 0; i < len(plain); i += PageSize {
				plain[i] = 1
			}
			order := rand.New(rand.NewPCG(1, 2)).Perm(benchSize / PageSize)[:26_214]
			inOrder := slices.Sorted(slices.Values(order))
			passIn := func(mem []byte, order []int) time.Duration {
				began := time.Now()
				for _, p := range order {
					mem[p*PageSize+128]++
				}
				return time.Since(began) / time.Duration(len(order))
			}
			pass := func(mem []byte) time.Duration { return passIn(mem, order) }
			var first, ascending, later, untracked, fault []time.Duration
			bare := memory(b, tracker(b, Options{Mode: ModeHash}), benchSize, benchSize)
			var d DirtySet
			for b.Loop() {
				if err := m.Collect(&d); err != nil {
					b.Fatal(err)
				}
				if err := errors.Join(bare.Truncate(0), bare.Grow(benchSize)); err != nil {
					b.Fatal(err)
				}
				fault = append(fault, pass(bare.res.bytes))
				pass(plain)
				untracked = append(untracked, pass(plain))
				first = append(first, pass(mem))
				pass(mem) // the faults took the caches
				later = append(later, pass(mem))
				if err := m.Collect(&d); err != nil {
					b.Fatal(err)
				}
				ascending = append(ascending, passIn(mem, inOrder))
			}
			u, f, l := median(untracked), median(first), median(later)
			b.ReportMetric(float64(f), "ns/first-write")
			b.ReportMetric(float64(median(ascending)), "ns/first-write-ascending")
			b.ReportMetric(float64(f)/float64(median(fault)), "first/fault")
			b.ReportMetric(float64(l)/float64(u), "later/untracked")
			b.ReportMetric(float64(u), "ns/untracked")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// A collect of 1 GiB of which a share was written at random.
func BenchmarkCollect(b *testing.B) {
	for _, huge := range []bool{false, true} {
		for _, share := range []float64{0, 0.001, 0.01, 0.1} {
			b.Run(fmt.Sprintf("huge=%t/dirty=%g%%", huge, share*100), func(b *testing.B) {
				m, mem := filled(b, Options{Mode: ModeKernel, HugePages: huge}, benchSize)
				order := rand.New(rand.NewPCG(1, 2)).Perm(benchSize / PageSize)
				order = order[:int(share*float64(len(order)))]
				var times []time.Duration
				var d DirtySet
				for b.Loop() {
					for _, p := range order {
						mem[p*PageSize]++
					}
					d.Clear()
					began := time.Now()
					if err := m.Collect(&d); err != nil {
						b.Fatal(err)
					}
					times = append(times, time.Since(began))
					if d.Len() != len(order) {
						b.Fatalf("%d pages of %d", d.Len(), len(order))
					}
				}
				b.ReportMetric(float64(median(times)), "ns/collect")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// A collect of 6 GiB of which 1 GiB is mapped and 10 pages were written.
func BenchmarkCollectSparse(b *testing.B) {
	sparse := memory(b, tracker(b, Options{Mode: ModeKernel}), 6<<30, 6<<30)
	mem := borrow(b, sparse).Bytes()
	for i := 0; i < benchSize; i += PageSize {
		mem[i] = 1
	}
	var d DirtySet
	var times []time.Duration
	for b.Loop() {
		for i := range 10 {
			mem[i*77*PageSize]++
		}
		d.Clear()
		began := time.Now()
		if err := sparse.Collect(&d); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(began))
	}
	b.ReportMetric(float64(median(times)), "ns/collect")
	b.ReportMetric(0, "ns/op")
}

// untracked is WriteAt without the bitmap.
//
//go:noinline
func (m *Memory) untracked(p []byte, off int64) (int, error) {
	size := m.size.Load()
	if off < 0 || off > size || int64(len(p)) > size-off {
		return 0, outside(len(p), off, size)
	}
	if len(p) == 0 {
		return 0, nil
	}
	return copy(m.res.bytes[off:], p), nil
}

// WriteAt of 8 bytes, one after another, in bitmap mode, over the same without
// the bitmap, through one loop: two loops of the same instructions differed by
// more than what is looked for. Passes are short, so that few of them are
// interrupted.
func BenchmarkWriteAt(b *testing.B) {
	m := memory(b, tracker(b, Options{Mode: ModeBitmap}), 64<<20, 64<<20)
	for i := int64(0); i < m.Size(); i += PageSize {
		m.res.bytes[i] = 1
	}
	p := make([]byte, 8)
	const n = 1 << 14
	pass := func(write func([]byte, int64) (int, error), at int64) time.Duration {
		began := time.Now()
		for i := range int64(n) {
			if _, err := write(p, at+i*8); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(began)
	}
	var tracked, again, plain []time.Duration
	var d DirtySet
	for at := int64(0); b.Loop(); at = (at + 8*n) % m.Size() {
		if err := m.Collect(&d); err != nil {
			b.Fatal(err)
		}
		pass(m.untracked, at) // brings it into the caches
		plain = append(plain, pass(m.untracked, at))
		tracked = append(tracked, pass(m.WriteAt, at))
		again = append(again, pass(m.WriteAt, at))
	}
	u := float64(median(plain)) / n
	b.ReportMetric(u, "ns/untracked")
	b.ReportMetric(float64(median(tracked))/n-u, "ns-more")
	b.ReportMetric(float64(median(again))/n-u, "ns-more-noted")
	b.ReportMetric(0, "ns/op")
}

// A collect in hash mode, which looks at everything.
func BenchmarkCollectHash(b *testing.B) {
	m, _ := filled(b, Options{Mode: ModeHash}, 256<<20)
	b.SetBytes(256 << 20)
	var d DirtySet
	for b.Loop() {
		if err := m.Collect(&d); err != nil {
			b.Fatal(err)
		}
	}
}

// What is done in a pause without pre-copy: collect and copy 1 % of 1 GiB.
func BenchmarkCollectAndCopy(b *testing.B) {
	m, mem := filled(b, Options{Mode: ModeKernel}, benchSize)
	order := rand.New(rand.NewPCG(1, 2)).Perm(benchSize / PageSize)[:benchSize/PageSize/100]
	var collect, copying []time.Duration
	var d DirtySet
	var buf PageBuf
	buf.Reserve(len(order))
	for b.Loop() {
		for _, p := range order {
			mem[p*PageSize]++
		}
		d.Clear()
		buf.Reset()
		began := time.Now()
		if err := m.Collect(&d); err != nil {
			b.Fatal(err)
		}
		collected := time.Now()
		m.CopyDirty(&d, &buf)
		collect, copying = append(collect, collected.Sub(began)), append(copying, time.Since(collected))
	}
	b.ReportMetric(float64(median(collect)), "ns/collect")
	b.ReportMetric(float64(median(copying)), "ns/copy")
	b.ReportMetric(0, "ns/op")
}
