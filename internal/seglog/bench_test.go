package seglog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// benchStore makes a store on the disk of the machine.
func benchStore(b *testing.B) Options {
	dir := filepath.Join(b.TempDir(), "store")
	if err := Create(CreateOptions{FS: vfs.Default, Dir: dir}); err != nil {
		b.Fatal(err)
	}
	return Options{FS: vfs.Default, Dir: dir}
}

// BenchmarkCommit commits 32 KB requests with 1 and 8 callers. "raw" is the
// limit: one thread that appends 32 KB and calls fdatasync, on the same disk in
// the same run; x-raw is the ratio to it.
func BenchmarkCommit(b *testing.B) {
	for _, callers := range []int{1, 8} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			l := mustStart(b, benchStore(b))
			raw, err := vfs.Default.OpenReadWrite(filepath.Join(b.TempDir(), "raw"), writeCategory)
			if err != nil {
				b.Fatal(err)
			}
			defer raw.Close()
			payload := filler(1, 31<<10)
			var rawTime, logTime time.Duration
			off := int64(0)
			// In turns, since the disk has its moods.
			const turn = 200
			for done := 0; done < b.N; done += turn {
				start := time.Now()
				for range turn {
					if _, err := raw.WriteAt(payload, off); err != nil {
						b.Fatal(err)
					}
					if err := raw.SyncData(); err != nil {
						b.Fatal(err)
					}
					off += 32 << 10
				}
				rawTime += time.Since(start)
				start = time.Now()
				var n atomic.Int64
				var wg sync.WaitGroup
				for c := range callers {
					wg.Go(func() {
						for n.Add(1) <= turn {
							r := &Request{
								Frames:  []NewFrame{{KindGroup, payload}},
								Records: []NewRecord{{Key: []byte{byte(c)}, RecordSeq: 1, Payload: payload[:200]}},
							}
							if _, err := l.Commit(context.Background(), r); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				logTime += time.Since(start)
			}
			turns := float64((b.N + turn - 1) / turn * turn)
			b.ReportMetric(turns/logTime.Seconds(), "commits/s")
			b.ReportMetric(turns/rawTime.Seconds(), "raw/s")
			b.ReportMetric(rawTime.Seconds()/logTime.Seconds(), "x-raw")
			s := l.Stats()
			b.ReportMetric(float64(s.Requests)/float64(s.Batches), "requests/batch")
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkReplay reads a log of 256 MiB from the page cache.
func BenchmarkReplay(b *testing.B) {
	o := benchStore(b)
	l := mustStart(b, o)
	payload := filler(1, 31<<10)
	var bytes int64
	for bytes < 128<<20 {
		r := &Request{Records: []NewRecord{{Key: []byte("k"), RecordSeq: 1, Payload: payload[:200]}}}
		for range 32 {
			r.Frames = append(r.Frames, NewFrame{KindGroup, payload})
		}
		s, err := l.Spill(StreamBulk)
		if err != nil {
			b.Fatal(err)
		}
		for range 32 {
			if _, err := s.Append(KindGroup, payload); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Flush(); err != nil {
			b.Fatal(err)
		}
		r.Ranges = s.Ranges()
		mustCommit(b, l, r)
		s.Close()
		bytes += int64(64 * len(payload))
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	l = mustOpen(b, o)
	defer l.Close()
	b.Run("replay", func(b *testing.B) {
		b.SetBytes(bytes)
		for b.Loop() {
			if err := l.Replay(context.Background(), 0, func(*Batch) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("scan", func(b *testing.B) {
		b.SetBytes(bytes)
		for b.Loop() {
			for f, err := range l.Scan(context.Background()) {
				if err != nil || f.Damaged != nil {
					b.Fatal(err, f.Damaged)
				}
			}
		}
	})
	b.Run("checksum", func(b *testing.B) { // the limit of one core
		b.SetBytes(int64(len(payload)))
		for b.Loop() {
			checksum(payload)
		}
	})
}

// BenchmarkSession is a short-lived process: open, start, one commit, close.
func BenchmarkSession(b *testing.B) {
	o := benchStore(b)
	syncs := 0
	o.FS = &faultFS{FS: vfs.Default, before: func(op fsOp) error {
		if op.name == "sync" || op.name == "syncdata" {
			syncs++
		}
		return nil
	}}
	n := 0
	for b.Loop() {
		l := mustStart(b, o)
		mustCommit(b, l, request("k", 1, 4000))
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(syncs)/float64(n), "syncs")
	if st, err := os.Stat(filepath.Join(o.Dir, logDirName)); err != nil || !st.IsDir() {
		b.Fatal(err)
	}
}
