package peer

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// BenchmarkPeers: an image of SNAPSTORE_PEER_MIB (64) put, then five times
// with 1 % of its pages changed, then given back. It says whether an adapter is
// sane; comparisons are the harness's, which measures the machine's limits too.
func BenchmarkPeers(b *testing.B) {
	mib := 64
	if s := os.Getenv("SNAPSTORE_PEER_MIB"); s != "" {
		var err error
		if mib, err = strconv.Atoi(s); err != nil || mib < 1 {
			b.Fatalf("SNAPSTORE_PEER_MIB=%q: want a number", s)
		}
	}
	for _, p := range All() {
		b.Run(p.Name(), func(b *testing.B) {
			if _, err := p.Probe(b.Context()); errors.Is(err, ErrAbsent) {
				b.Skipf("%v", err)
			}
			var full, small, get, grown []float64
			for range b.N {
				f, s, g, n := measure(b, p, mib)
				full, small, get, grown = append(full, f), append(small, s), append(get, g), append(grown, n)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(mib)/median(full), "put-MiB/s")
			b.ReportMetric(1000*median(small), "put1%-ms")
			b.ReportMetric(median(grown)/1024, "put1%-KiB")
			b.ReportMetric(float64(mib)/median(get), "get-MiB/s")
		})
	}
}

func median(s []float64) float64 {
	s = slices.Sorted(slices.Values(s))
	return s[len(s)/2]
}

// measure gives the seconds of a full put, of the median small one and of a
// get, and the bytes on disk of a small one.
func measure(b *testing.B, p Peer, mib int) (full, small, get, grown float64) {
	const puts = 5
	dir := b.TempDir()
	store, image := filepath.Join(dir, "store"), filepath.Join(dir, "image")
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	must(os.Mkdir(store, 0o700))
	s, err := p.Create(b.Context(), store)
	must(err)
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	rng := rand.New(rand.NewPCG(9, 10))
	mem := sample(rng, mib<<20/pageSize)
	put := func(name string, dirty []uint64) float64 {
		must(os.WriteFile(image, mem, 0o600))
		must(syncPath(image)) // or its pages are written while the peer works
		start := time.Now()
		must(s.Put(b.Context(), Version{Name: name, Path: image, Mem: mem, Dirty: dirty}))
		return time.Since(start).Seconds()
	}
	full = put("full", nil)
	before, err := s.Size(b.Context())
	must(err)
	var each []float64
	for i := range puts {
		dirty := change(rng, mem, mib<<20/pageSize/100)
		each = append(each, put("small-"+strconv.Itoa(i), dirty))
	}
	after, err := s.Size(b.Context())
	must(err)
	start := time.Now()
	must(s.Get(b.Context(), "small-"+strconv.Itoa(puts-1), filepath.Join(dir, "out")))
	get = time.Since(start).Seconds()
	return full, median(each), get, float64(after-before) / puts
}
