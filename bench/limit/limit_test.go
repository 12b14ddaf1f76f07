package limit

import (
	"bytes"
	"os"
	"runtime"
	"testing"

	"github.com/klauspost/compress/s2"

	"github.com/snapstore/snapstore/bench/workload"
	"github.com/snapstore/snapstore/chunk"
)

// TestPipelineDoesTheWork: what it compresses is every distinct page once.
func TestPipelineDoesTheWork(t *testing.T) {
	t.Parallel()
	m := workload.Mix(1, make([]byte, 4<<20))
	seen := map[chunk.ID]struct{}{}
	p, err := NewPipeline(m.Mem, nil, seen)
	if err != nil {
		t.Fatal(err)
	}
	took, stored, err := p.Run(true)
	if err != nil || took <= 0 {
		t.Fatal(took, err)
	}
	_, again, err := p.Run(false)
	// Groups differ by which worker takes which stripe, by little.
	if err != nil || again < stored*95/100 || again > stored*105/100 {
		t.Errorf("%d bytes, then %d: %v", stored, again, err)
	}
	if took, own, err := p.RunOwn(); err != nil || took <= 0 || own <= 0 || own > stored {
		t.Errorf("%d bytes with the engine's codec, %d with s2: %v", own, stored, err)
	}
	if _, _, err := p.Run(true); err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{string(make([]byte, pageSize)): true}
	for i := range m.PageCount() {
		left[string(m.Page(uint64(i)))] = true
	}
	delete(left, string(make([]byte, pageSize)))
	if len(left) != len(seen) {
		t.Errorf("%d pages are new, want %d", len(seen), len(left))
	}
	for _, g := range p.Groups() {
		pages, err := s2.Decode(nil, g)
		if err != nil {
			t.Fatal(err)
		}
		for ; len(pages) > 0; pages = pages[pageSize:] {
			if !left[string(pages[:pageSize])] {
				t.Fatal("a page is there twice, or is not of the image")
			}
			delete(left, string(pages[:pageSize]))
		}
	}
	if len(left) > 0 {
		t.Errorf("%d pages were left out", len(left))
	}
	dst := make([]byte, len(m.Mem))
	if took, err := Decode(p.Groups(), dst, int64(len(m.Mem))); err != nil || took <= 0 {
		t.Errorf("%v, %v", took, err)
	}
	if bytes.Count(dst, []byte{0}) > len(dst)/2 {
		t.Error("the image was not filled")
	}
	broken := append([][]byte{{1, 2, 3}}, p.Groups()...)
	if _, err := Decode(broken, dst, int64(len(dst))); err == nil {
		t.Error("a group that is none was decoded")
	}
	// A few pages, which do not lie side by side.
	dirty := m.Step(0.02)
	if p, err = NewPipeline(m.Mem, dirty, seen); err != nil {
		t.Fatal(err)
	}
	if _, stored, err := p.Run(true); err != nil || stored < int64(len(dirty)*pageSize)*4/10 {
		t.Errorf("%d dirty pages come to %d bytes: %v", len(dirty), stored, err)
	}
	n := 0
	for _, g := range p.Groups() {
		l, err := s2.DecodedLen(g)
		if err != nil {
			t.Fatal(err)
		}
		n += l / pageSize
	}
	if n != len(dirty) {
		t.Errorf("%d of %d dirty pages were compressed", n, len(dirty))
	}
}

func TestMemcpy(t *testing.T) {
	t.Parallel()
	src, dst := bytes.Repeat([]byte("abc"), 100_001), make([]byte, 300_003)
	if Memcpy(dst, src) <= 0 || !bytes.Equal(dst, src) {
		t.Error("not all of it was copied")
	}
}

func TestDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, err := NewDisk(dir, 3<<20)
	if err != nil {
		t.Fatal(err)
	}
	if took, err := d.Overwrite(2<<20 + 5); err != nil || took <= 0 {
		t.Error(took, err)
	}
	if took, err := d.Append(4096); err != nil || took <= 0 {
		t.Error(took, err)
	}
	w, r, cold, err := d.Sequential(3<<20 + 1)
	if err != nil || w <= 0 || r <= 0 || cold != (runtime.GOOS == "linux") {
		t.Error(w, r, cold, err)
	}
	if want := int64(3<<20 + 2<<20 + 5 + 4096 + 3<<20 + 1); d.Written != want {
		t.Errorf("wrote %d bytes, want %d", d.Written, want)
	}
	if _, err := ForgetTree(dir); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := NewDisk(dir+"/absent", 1); err == nil {
		t.Error("made files in no directory")
	}
}
