package ui

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// fakeClock is moved by hand.
type fakeClock struct{ at time.Time }

func (c *fakeClock) now() time.Time          { return c.at }
func (c *fakeClock) advance(d time.Duration) { c.at = c.at.Add(d) }

func fakeProgress(width int) (*Progress, *strings.Builder, *fakeClock) {
	var b strings.Builder
	clock := &fakeClock{at: time.Unix(1000, 0)}
	return newProgress(&b, "export", func() int { return width }, clock.now), &b, clock
}

// lastLine is what stands on the screen after all that was written.
func lastLine(b *strings.Builder) string {
	all := strings.Split(b.String(), "\r")
	return strings.TrimSuffix(all[len(all)-1], "\x1b[K")
}

func TestProgressLine(t *testing.T) {
	p, b, clock := fakeProgress(200)
	p.Update(1, 100<<20)
	if b.Len() != 0 {
		t.Fatalf("drawn at once: %q", b)
	}
	for i := range int64(10) {
		clock.advance(time.Second)
		p.Update((i+1)<<20, 100<<20)
	}
	if got, want := lastLine(b), "export  10.0 MiB of 100 MiB  10.0 %  1.00 MiB/s  90.0 s left"; got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	p.Clear()
	if got := lastLine(b); got != "" {
		t.Errorf("after Clear: %q", got)
	}
}

// TestProgressRecentRate: a change of speed shows after the window, however
// long the work ran before.
func TestProgressRecentRate(t *testing.T) {
	p, b, clock := fakeProgress(200)
	done := int64(0)
	step := func(n int, bytes int64) {
		for range n {
			clock.advance(drawEvery)
			done += bytes
			p.Update(done, 0)
		}
	}
	step(100, 1<<20)
	step(samples, 1<<10)
	if got := lastLine(b); !strings.HasSuffix(got, " 5.00 KiB/s") {
		t.Errorf("got %q, want 5.00 KiB/s", got)
	}
	step(samples, 0)
	if got := lastLine(b); !strings.HasSuffix(got, " 0 B/s") {
		t.Errorf("a stall shows as %q", got)
	}
}

func TestProgressAtMostFiveTimesASecond(t *testing.T) {
	p, b, clock := fakeProgress(80)
	for i := range int64(1000) {
		clock.advance(10 * time.Millisecond)
		p.Update(i, 1000)
	}
	if n := strings.Count(b.String(), "\r"); n != 50 {
		t.Errorf("%d lines in 10 seconds, want 50", n)
	}
}

func TestProgressOddValues(t *testing.T) {
	for _, c := range []struct {
		done, total int64
		want        string
	}{
		{0, 0, "export  0 B  0 B/s"},
		{-5, 10, "export  0 B of 10 B  0 %  0 B/s  time left unknown"},
		{20, 10, "export  10 B of 10 B  100 %  20 B/s  0 s left"},
		{1, 1 << 62, "export  1 B of 4.00 EiB  0.1 %  1 B/s  time left unknown"},
		{0, 10, "export  0 B of 10 B  0 %  0 B/s  time left unknown"},
	} {
		p, b, clock := fakeProgress(200)
		clock.advance(time.Second)
		p.Update(c.done, c.total)
		if got := lastLine(b); got != c.want {
			t.Errorf("%d of %d: got %q, want %q", c.done, c.total, got, c.want)
		}
	}
}

// TestProgressFits: a line longer than the terminal would scroll it.
func TestProgressFits(t *testing.T) {
	for _, width := range []int{1, 2, 20, 40} {
		p, b, clock := fakeProgress(width)
		p.label = "µµµ"
		clock.advance(time.Second)
		p.Update(1<<20, 1<<30)
		if n := utf8.RuneCountInString(lastLine(b)); width > 1 && n > width-1 {
			t.Errorf("width %d: %d characters", width, n)
		}
	}
}

func TestProgressSilentOffTerminal(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, f := range []*os.File{f, null} {
		if IsTerminal(f) {
			t.Errorf("%s is not a terminal", f.Name())
		}
		p := NewProgress(f, "export")
		if p != nil {
			t.Errorf("%s: progress is not silent", f.Name())
		}
		p.Update(1, 2)
		p.Clear()
	}
	if info, err := f.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("%v, %v: bytes were written", info, err)
	}
}

func TestProgressConcurrent(t *testing.T) {
	p := newProgress(&strings.Builder{}, "x", func() int { return 80 }, time.Now)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range int64(1000) {
				p.Update(i, 1000)
			}
		})
	}
	wg.Wait()
	p.Clear()
}
