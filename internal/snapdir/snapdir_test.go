package snapdir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

// sample is a snapshot with something in every field.
type sample struct {
	meta Metadata
	data map[Part][]byte
	root [32]byte
}

func newSample() *sample {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	s := &sample{data: map[Part][]byte{}, root: [32]byte{1, 2, 3}}
	s.meta = Metadata{
		Source: SourceTaken, TakenAt: math.MaxUint64, CanisterVersion: 1<<53 + 1,
		Globals: []Global{
			{Kind: GlobalI32, Lo: 0xffff_ffff},
			{Kind: GlobalI64, Lo: 1 << 63},
			{Kind: GlobalF32, Lo: uint64(math.Float32bits(0.1))},
			{Kind: GlobalF32, Lo: 0x7fc0_0001},
			{Kind: GlobalF64, Lo: math.Float64bits(math.Copysign(0, -1))},
			{Kind: GlobalF64, Lo: math.Float64bits(math.Inf(-1))},
			{Kind: GlobalF64, Lo: 0x7ff4_0000_0000_0001},
			{Kind: GlobalV128, Lo: 1 << 40, Hi: math.MaxUint64},
			{Kind: GlobalV128},
		},
		CertifiedData: random(32),
		GlobalTimer:   Timer{Present: true, Active: true, Deadline: math.MaxUint64},
		HookStatus:    HookReady,
	}
	add := func(p Part, b []byte) { s.data[p] = b }
	add(Part{Kind: WasmModule}, random(12_345))
	memory := make([]byte, 3*wasmPage)
	copy(memory[5000:], random(70_000))
	add(Part{Kind: WasmMemory}, memory)
	stable := make([]byte, 2*wasmPage)
	copy(stable[wasmPage-1:], random(3))
	add(Part{Kind: StableMemory}, stable)
	for _, n := range []int{MaxChunk, 0, 17} {
		b := random(n)
		h := sha256.Sum256(b)
		s.meta.WasmChunks = append(s.meta.WasmChunks, h)
		add(Part{Kind: WasmChunk, Hash: h}, b)
	}
	s.meta.WasmModuleSize = uint64(len(s.data[Part{Kind: WasmModule}]))
	s.meta.WasmMemorySize = uint64(len(memory))
	s.meta.StableMemorySize = uint64(len(stable))
	return s
}

// write exports the sample in pieces of odd sizes.
func (s *sample) write(t *testing.T, dir string) {
	t.Helper()
	w, err := Create(dir, s.meta, s.root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Abort(); err != nil {
			t.Error(err)
		}
	}()
	for _, p := range s.meta.Parts() {
		part, err := w.Part(t.Context(), p, uint64(len(s.data[p])))
		if err != nil {
			t.Fatal(err)
		}
		for piece := range slices.Chunk(s.data[p], 9_973) {
			if n, err := part.Write(piece); err != nil || n != len(piece) {
				t.Fatalf("%v: %d, %v", p, n, err)
			}
		}
		if err := part.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// check opens dir, reads everything in all ways, and compares with the sample.
func (s *sample) check(t *testing.T, dir string, sums bool) {
	t.Helper()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	if got := r.Metadata(); !reflect.DeepEqual(got, s.meta) {
		t.Errorf("metadata\n%+v, want\n%+v", got, s.meta)
	}
	if (r.Sums() != nil) != sums {
		t.Errorf("sums %v, want %v", r.Sums(), sums)
	}
	if sums && r.Sums().Root != s.root {
		t.Errorf("root %x", r.Sums().Root)
	}
	if !slices.Equal(r.Parts(), s.meta.Parts()) {
		t.Errorf("parts %v", r.Parts())
	}
	var total int64
	for _, p := range r.Parts() {
		total += r.Size(p)
		stream, err := r.Stream(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(stream); err != nil || !bytes.Equal(got, s.data[p]) {
			t.Errorf("%v: %d bytes, %v; want %d", p, len(got), err, len(s.data[p]))
		}
		section, err := r.Section(p)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(section); err != nil || !bytes.Equal(got, s.data[p]) {
			t.Errorf("%v: random access differs: %v", p, err)
		}
	}
	if r.Total() != total {
		t.Errorf("total %d, want %d", r.Total(), total)
	}
	var last int64
	err = r.Verify(t.Context(), func(done, all int64) {
		if done < last || done > all || all != total {
			t.Errorf("progress %d of %d after %d", done, all, last)
		}
		last = done
	})
	if err != nil || last != total {
		t.Errorf("verify: %v after %d of %d", err, last, total)
	}
}

func TestRoundTrip(t *testing.T) {
	s := newSample()
	dir := filepath.Join(t.TempDir(), "snap")
	s.write(t, dir)
	s.check(t, dir, true)
	// A second export of what was imported is the same to the byte.
	again := filepath.Join(t.TempDir(), "again")
	s.write(t, again)
	for _, name := range []string{metadataName, sumsName} {
		a, err1 := os.ReadFile(filepath.Join(dir, name))
		b, err2 := os.ReadFile(filepath.Join(again, name))
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
}

func TestRoundTripEmpty(t *testing.T) {
	s := &sample{data: map[Part][]byte{}}
	s.meta.CertifiedData = []byte{}
	dir := filepath.Join(t.TempDir(), "snap")
	w, err := Create(dir, s.meta, s.root)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	s.check(t, dir, true)
	// The tools do not write all the empty files.
	for _, name := range []string{sumsName, "wasm_module.bin", "wasm_memory.bin", "stable_memory.bin", chunkDirName} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.check(t, dir, false)
}

// TestForeignDirectory: what the tools leave behind is no obstacle.
func TestForeignDirectory(t *testing.T) {
	s := newSample()
	s.meta.Globals = slices.DeleteFunc(s.meta.Globals, func(g Global) bool { return !g.finite() })
	dir := filepath.Join(t.TempDir(), "snap")
	s.write(t, dir)
	if err := os.Remove(filepath.Join(dir, sumsName)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		".lock", ".upload_progress.json", "000000000000000080000000001000000101.json",
		".snapshot_write_test", "notes.txt", "wasm_chunk_store/.DS_Store",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.check(t, dir, false)
}

func TestClosedReader(t *testing.T) {
	s := newSample()
	dir := filepath.Join(t.TempDir(), "snap")
	s.write(t, dir)
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Section(Part{Kind: WasmChunk}); !errors.Is(err, ErrMissing) {
		t.Errorf("part that is not there: %v", err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Stream(t.Context(), Part{Kind: WasmMemory}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestVerifyStopsWithContext(t *testing.T) {
	s := newSample()
	dir := filepath.Join(t.TempDir(), "snap")
	s.write(t, dir)
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err = r.Verify(ctx, func(int64, int64) { calls++; cancel() })
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// names lists everything under dir.
func names(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
