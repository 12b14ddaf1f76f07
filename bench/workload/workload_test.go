package workload

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestCheckHoldsForManySeeds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		c, err := Check(seed)
		if err != nil {
			t.Errorf("seed %d: %v (%+v)", seed, err, c)
		}
	}
}

// TestCheckRefuses makes the mistakes that the check is for.
func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	const n = 64
	good, structured := make([]byte, n*PageSize), make([]byte, n*PageSize)
	g := Pages{Seed: 1}
	for off := 0; off < len(good); off += PageSize {
		g.Random(good[off : off+PageSize])
		g.Structured(structured[off : off+PageSize])
	}
	shifted := func(word int) []byte {
		// One long row; page i+1 is page i moved by a word.
		row := make([]byte, 2*n*PageSize)
		(&Pages{Seed: 3}).Random(row)
		b := make([]byte, n*PageSize)
		for i := range n {
			copy(b[i*PageSize:], row[i*word:i*word+PageSize])
		}
		return b
	}
	for name, pair := range map[string][2][]byte{
		"random pages that repeat":         {bytes.Repeat(good[:PageSize], n), structured},
		"random pages moved by a word":     {shifted(8), structured},
		"random pages moved by a record":   {shifted(32), structured},
		"structured pages that are random": {good, good},
		"structured pages of zeros":        {good, make([]byte, n*PageSize)},
	} {
		if c, err := check(pair[0], pair[1]); !errors.Is(err, ErrCheck) {
			t.Errorf("%s passed: %v, %+v", name, err, c)
		}
	}
	// Structured pages that are moved copies compress alone as stated.
	moved := bytes.Clone(structured)
	for off := PageSize; off < len(moved); off += PageSize {
		copy(moved[off:off+PageSize], moved[off-PageSize+32:off])
		copy(moved[off+PageSize-32:off+PageSize], structured[off:off+32])
	}
	if c, err := check(good, moved); !errors.Is(err, ErrCheck) {
		t.Errorf("moved structured pages passed: %v, %+v", err, c)
	}
}

func TestMixHasItsShares(t *testing.T) {
	t.Parallel()
	m := Mix(7, make([]byte, 32<<20))
	zero, dup, seen := 0, 0, map[string]bool{}
	for i := range m.PageCount() {
		p := m.Page(uint64(i))
		switch {
		case bytes.Equal(p, make([]byte, PageSize)):
			zero++
		case seen[string(p)]:
			dup++
		}
		seen[string(p)] = true
	}
	n := float64(m.PageCount())
	// A duplicate of a zero page is a zero page.
	if z := float64(zero) / n; math.Abs(z-0.275) > 0.02 {
		t.Errorf("%.3f of the pages are zero", z)
	}
	if d := float64(dup) / n; math.Abs(d-0.075) > 0.015 {
		t.Errorf("%.3f of the pages are duplicates", d)
	}
	again := Mix(7, make([]byte, 32<<20))
	if !bytes.Equal(m.Mem, again.Mem) {
		t.Error("the same seed made another image")
	}
	if bytes.Equal(m.Mem, Mix(8, make([]byte, 32<<20)).Mem) {
		t.Error("another seed made the same image")
	}
	before := bytes.Clone(m.Mem)
	dirty := m.Step(0.01)
	if !slices.Equal(dirty, again.Step(0.01)) || !bytes.Equal(m.Mem, again.Mem) {
		t.Error("the same seed made another step")
	}
	var changed []uint64
	for i := range uint64(m.PageCount()) {
		if !bytes.Equal(m.Page(i), before[i*PageSize:(i+1)*PageSize]) {
			changed = append(changed, i)
		}
	}
	if !slices.Equal(changed, dirty) || len(dirty) != m.PageCount()/100 {
		t.Errorf("%d pages changed, %d are said to, want %d", len(changed), len(dirty), m.PageCount()/100)
	}
	neighbours := 0
	for i := 1; i < len(dirty); i++ {
		if dirty[i] == dirty[i-1]+1 {
			neighbours++
		}
	}
	if got := float64(neighbours) / float64(len(dirty)); got < 0.4 || got > 0.55 {
		t.Errorf("%.2f of the dirty pages follow another, want about 15/32", got)
	}
}

func TestIdealCountsOnce(t *testing.T) {
	t.Parallel()
	m := Mix(9, make([]byte, 4<<20))
	var d Ideal
	if err := d.Add(m.Mem, nil); err != nil {
		t.Fatal(err)
	}
	distinct := map[string]bool{}
	for i := range m.PageCount() {
		distinct[string(m.Page(uint64(i)))] = true
	}
	if d.Pages != len(distinct)-1 {
		t.Errorf("%d pages, want %d", d.Pages, len(distinct)-1)
	}
	pages, size := d.Pages, d.Bytes
	if err := d.Add(m.Mem, nil); err != nil || d.Pages != pages || d.Bytes != size {
		t.Errorf("the same image again: %d pages, %d bytes, %v", d.Pages-pages, d.Bytes-size, err)
	}
	dirty := m.Step(0.1)
	if err := d.Add(m.Mem, dirty); err != nil || d.Pages != pages+len(dirty) {
		t.Errorf("%d pages after a step of %d, before it %d: %v", d.Pages, len(dirty), pages, err)
	}
	if share := float64(size) / float64(pages*PageSize); share < 0.5 || share > 0.65 {
		t.Errorf("the ideal is %.2f of what is distinct", share)
	}
}

// TestChurnIsPossible plays the operations on a model.
func TestChurnIsPossible(t *testing.T) {
	t.Parallel()
	const canisters, limit = 7, 4
	c, held, seen := NewChurn(3, canisters, limit), make([]int, canisters), map[Action]int{}
	for range 10_000 {
		op := c.Next()
		n := &held[op.Canister]
		seen[op.Action]++
		switch op.Action {
		case Take:
			*n++
		case Replace:
			if *n == 0 {
				t.Fatal("nothing to replace")
			}
		case Delete:
			if op.Victim >= *n {
				t.Fatalf("victim %d of %d", op.Victim, *n)
			}
			*n--
		}
		if *n > limit {
			t.Fatalf("%d snapshots", *n)
		}
	}
	for _, a := range []Action{Take, Replace, Delete} {
		if seen[a] < 1000 {
			t.Errorf("%d times %v", seen[a], a)
		}
	}
}

func TestSparseWritesWhatItSays(t *testing.T) {
	t.Parallel()
	s := NewSparse(1, 4<<30)
	last, n := uint64(0), 0
	if err := s.Step(100, func(i uint64, p []byte) error {
		if n > 0 && i <= last || i >= 1<<20 || binary.LittleEndian.Uint64(p[24:]) == 0 {
			t.Errorf("page %d after %d", i, last)
		}
		last, n = i, n+1
		return nil
	}); err != nil || n != 100 {
		t.Errorf("%d pages, %v", n, err)
	}
}

func TestSeries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := FindSeries(dir); !errors.Is(err, ErrImages) {
		t.Errorf("empty directory: %v", err)
	}
	if _, err := FindSeries(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	images := [][]byte{bytes.Repeat([]byte("a"), PageSize), bytes.Repeat([]byte("b"), PageSize+1)}
	if err := os.Mkdir(filepath.Join(dir, "loose"), 0o700); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for i, b := range images {
		name := string(rune('0'+i)) + ".mem"
		if err := os.WriteFile(filepath.Join(dir, "loose", name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteHeader(&tar.Header{Name: "x/" + name, Mode: 0o600, Size: int64(len(b))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close(), os.WriteFile(filepath.Join(dir, "packed.tar.zst"), packed.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	series, err := FindSeries(dir)
	if err != nil || len(series) != 2 || series[0].Name != "loose" || series[1].Name != "packed" {
		t.Fatalf("%v, %v", series, err)
	}
	for _, s := range series {
		n := 0
		for b, err := range s.Images() {
			if err != nil {
				t.Fatal(err)
			}
			if len(b)%PageSize != 0 || !bytes.HasPrefix(b, images[n]) || bytes.Trim(b[len(images[n]):], "\x00") != nil && len(bytes.Trim(b[len(images[n]):], "\x00")) > 0 {
				t.Errorf("%s: image %d of %d bytes", s.Name, n, len(b))
			}
			n++
		}
		if n != len(images) {
			t.Errorf("%s: %d images", s.Name, n)
		}
	}
	// An archive is in the order in which somebody packed it.
	var mixed bytes.Buffer
	if z, err = zstd.NewWriter(&mixed); err != nil {
		t.Fatal(err)
	}
	w = tar.NewWriter(z)
	for _, i := range []int{1, 0} {
		if err := w.WriteHeader(&tar.Header{Name: "x/" + string(rune('0'+i)) + ".mem", Mode: 0o600, Size: int64(len(images[i]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(images[i]); err != nil {
			t.Fatal(err)
		}
	}
	other := t.TempDir()
	if err := errors.Join(w.Close(), z.Close(), os.WriteFile(filepath.Join(other, "mixed.tar.zst"), mixed.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if series, err = FindSeries(other); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for b, err := range series[0].Images() {
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(b))
	}
	if !slices.Equal(sizes, []int{PageSize, 2 * PageSize}) {
		t.Errorf("an archive out of order gave images of %d bytes", sizes)
	}
	if series, err = FindSeries(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "packed.tar.zst"), packed.Bytes()[:packed.Len()/2], 0o600); err != nil {
		t.Fatal(err)
	}
	var failed error
	for _, err := range series[1].Images() {
		failed = err
	}
	if failed == nil {
		t.Error("half an archive was read without a word")
	}
}

func TestShiftedCopy(t *testing.T) {
	t.Parallel()
	page, other := make([]byte, 2*PageSize), make([]byte, PageSize)
	g := Pages{Seed: 4}
	for _, fill := range []func([]byte){g.Random, g.Structured} {
		fill(page[:PageSize])
		fill(page[PageSize:])
		fill(other)
		if shift, ok := shiftedCopy(page[:PageSize], other); ok {
			t.Errorf("a page of its own is a copy moved by %d", shift)
		}
		for _, by := range []int{0, 8, 48, 1000} {
			if shift, ok := shiftedCopy(page[:PageSize], page[by:by+PageSize]); !ok || shift != by {
				t.Errorf("a page moved by %d: moved by %d, %v", by, shift, ok)
			}
		}
	}
}
