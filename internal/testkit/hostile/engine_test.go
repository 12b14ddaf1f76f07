package hostile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/snapdir"
	"github.com/snapstore/snapstore/management/candid"
	"github.com/snapstore/snapstore/manifest"
)

// errRejected stands for an error type that is no sentinel.
var errRejected = errors.New("rejected")

func asCandid(err error, to **candid.Error) bool { return errors.As(err, to) }

func bgContext() context.Context { return context.Background() }

// single is a store of one node, under any name.
type single struct{ own []byte }

func (s single) Node(_ context.Context, id chunk.ID) ([]byte, error) {
	// As the chunk store does, content is compared with its name.
	if got, err := manifest.NodeID(s.own); err != nil || got != id {
		return nil, &chunk.NotStoredError{ID: id}
	}
	return s.own, nil
}

// metadata that can not be.
func metadata(a *target) []attempt {
	var out []attempt
	for name, m := range map[string]engine.Metadata{
		"certified data of 33":        {CertifiedData: make([]byte, 33)},
		"certified data of 1 MiB":     {CertifiedData: make([]byte, 1<<20)},
		"1001 globals":                {Globals: slices.Repeat([]manifest.Global{{Kind: manifest.GlobalI32}}, 1001)},
		"a million globals":           {Globals: make([]manifest.Global, 1<<16)},
		"global of no kind":           {Globals: []manifest.Global{{}}},
		"global of unknown kind":      {Globals: []manifest.Global{{Kind: 200}}},
		"i32 of 33 bits":              {Globals: []manifest.Global{{Kind: manifest.GlobalI32, Lo: 1 << 32}}},
		"f64 of 65 bits":              {Globals: []manifest.Global{{Kind: manifest.GlobalF64, Hi: 1}}},
		"unknown source":              {Source: 9},
		"timer active and absent":     {GlobalTimer: manifest.Timer{Active: true}},
		"deadline of an inactive one": {GlobalTimer: manifest.Timer{Present: true, Deadline: 1}},
		"unknown hook status":         {HookStatus: 9},
	} {
		out = append(out, attempt{name + ", set", func() error { return a.c.SetMetadata(m) }, []error{engine.ErrInvalid}})
		out = append(out, attempt{name + ", uploaded", func() error {
			_, err := a.c.Upload(bgContext(), m, nil, engine.UploadOptions{})
			if m.Source == 9 && err == nil {
				return engine.ErrInvalid // an upload says itself where it comes from
			}
			return err
		}, []error{engine.ErrInvalid}})
	}
	return slices.DeleteFunc(out, func(c attempt) bool { return c.name == "unknown source, uploaded" })
}

func uploads(a *target) []attempt {
	ctx := bgContext()
	invalid := []error{engine.ErrInvalid}
	type sections = []engine.UploadSection
	var out []attempt
	declare := func(name string, want []error, s sections, o engine.UploadOptions) {
		out = append(out, attempt{"declares " + name, func() error { _, err := a.c.Upload(ctx, engine.Metadata{}, s, o); return err }, want})
	}
	mem := engine.WasmMemory
	declare("a memory of 2^64-1", invalid, sections{{Section: mem, Size: math.MaxUint64}}, engine.UploadOptions{})
	declare("a memory of 2^63", invalid, sections{{Section: mem, Size: 1 << 63}}, engine.UploadOptions{})
	declare("pages x 4096 beyond 2^64", invalid, sections{{Section: mem, Size: math.MaxUint64 - 4094}}, engine.UploadOptions{})
	declare("a memory above its limit", invalid, sections{{Section: mem, Size: 1<<40 + 1}}, engine.UploadOptions{})
	declare("a memory above the quota", []error{engine.ErrQuota}, sections{{Section: mem, Size: 8 << 30}}, engine.UploadOptions{})
	declare("sizes that come to more than the quota", []error{engine.ErrQuota}, sections{{Section: mem, Size: 3 << 30}, {Section: engine.StableMemory, Size: 3 << 30}}, engine.UploadOptions{})
	declare("a section twice", invalid, sections{{Section: mem, Size: 1}, {Section: mem, Size: 1}}, engine.UploadOptions{})
	declare("a section of no kind", invalid, sections{{Size: 1}}, engine.UploadOptions{})
	declare("a section of unknown kind", invalid, sections{{Section: engine.Section{Kind: 77}, Size: 1}}, engine.UploadOptions{})
	declare("a memory with a hash", invalid, sections{{Section: engine.Section{Kind: manifest.WasmMemory, Hash: [32]byte{1}}, Size: 1}}, engine.UploadOptions{})
	var many sections
	for i := range manifest.MaxSections + 1 {
		many = append(many, engine.UploadSection{Section: engine.WasmChunk([32]byte{byte(i), byte(i >> 8), 1}), Size: 1})
	}
	declare("129 sections", invalid, many, engine.UploadOptions{})
	declare("in place of another canister's", []error{engine.ErrOtherCanister}, nil, engine.UploadOptions{Replace: engine.SnapshotID{Canister: canister(2), Local: 0}})
	declare("in place of none", []error{engine.ErrNotFound}, nil, engine.UploadOptions{Replace: engine.SnapshotID{Canister: canister(1), Local: 1 << 60}})
	declare("a host blob of 64 KiB and 1", invalid, nil, engine.UploadOptions{Host: make([]byte, 65537)})

	put := func(name string, s engine.Section, n int, off int64, want ...error) {
		out = append(out, attempt{"writes " + name, func() error { _, err := a.up.WriteAt(s, make([]byte, n), off); return err }, want})
	}
	put("at -1", mem, 1, -1, engine.ErrInvalid)
	put("at -2^63", mem, 1, math.MinInt64, engine.ErrInvalid)
	put("at 2^63-1", mem, 1, math.MaxInt64, engine.ErrInvalid)
	put("so that offset and length wrap", mem, 4096, math.MaxInt64-4000, engine.ErrInvalid)
	put("one byte behind the end", mem, 1, 5*engine.PageSize, engine.ErrInvalid)
	put("across the end", mem, 2, 5*engine.PageSize-1, engine.ErrInvalid)
	put("more than all", mem, 6*engine.PageSize, 0, engine.ErrInvalid)
	put("what was not declared", engine.StableMemory, 1, 0, engine.ErrNotFound)
	put("a chunk that was not declared", engine.WasmChunk([32]byte{1}), 1, 0, engine.ErrNotFound)
	put("a section of no kind", engine.Section{}, 1, 0, engine.ErrNotFound)
	out = append(out,
		attempt{"adds a chunk of nothing", func() error { _, err := a.up.AddChunk(ctx, nil, nil); return err }, invalid},
		attempt{"adds a chunk with a host blob that is too large", func() error { _, err := a.up.AddChunk(ctx, []byte("x"), make([]byte, 70_000)); return err }, invalid},
		attempt{"goes on with a taken snapshot", func() error { _, err := a.c.OpenUpload(ctx, a.id); return err }, []error{engine.ErrImmutable}},
		attempt{"goes on with another canister's", func() error { _, err := a.evil.OpenUpload(ctx, a.up.ID()); return err }, []error{engine.ErrOtherCanister}},
		attempt{"goes on with none", func() error {
			_, err := a.c.OpenUpload(ctx, engine.SnapshotID{Canister: canister(1), Local: math.MaxUint64})
			return err
		}, []error{engine.ErrNotFound}},
	)
	return out
}

func memories(a *target) []attempt {
	m := must(a.c.Memory(engine.WasmMemory))
	invalid := []error{engine.ErrInvalid}
	var out []attempt
	for name, size := range map[string]uint64{"2^64-1": math.MaxUint64, "2^63": 1 << 63, "2^40 and 1": 1<<40 + 1, "2^64-4095": math.MaxUint64 - 4094} {
		out = append(out, attempt{"grows to " + name, func() error { return m.Resize(size) }, invalid})
	}
	for name, off := range map[string]int64{"-1": -1, "2^63-1": math.MaxInt64, "-2^63": math.MinInt64, "the end": 30 * engine.PageSize} {
		out = append(out, attempt{"writes at " + name, func() error { _, err := m.WriteAt([]byte("x"), off); return err }, invalid})
	}
	out = append(out,
		attempt{"reads at -1", func() error { _, err := m.ReadAt(make([]byte, 1), -1); return err }, invalid},
		attempt{"a section of no kind", func() error { _, err := a.c.Memory(engine.Section{}); return err }, invalid},
		attempt{"a section of unknown kind", func() error { _, err := a.c.Memory(engine.Section{Kind: 200}); return err }, invalid},
		attempt{"a memory with a hash", func() error {
			_, err := a.c.Memory(engine.Section{Kind: manifest.StableMemory, Hash: [32]byte{1}})
			return err
		}, invalid},
	)
	return out
}

func operations(a *target) []attempt {
	ctx := bgContext()
	none := engine.SnapshotID{Canister: canister(1), Local: 1 << 50}
	guessed := engine.SnapshotID{Canister: canister(9), Local: 0}
	notFound, other, invalid := []error{engine.ErrNotFound}, []error{engine.ErrOtherCanister}, []error{engine.ErrInvalid}
	return []attempt{
		{"load of another canister's snapshot", func() error { _, err := a.evil.Load(ctx, a.id, engine.LoadOptions{}); return err }, other},
		{"load of another canister's upload", func() error { _, err := a.evil.Load(ctx, a.up.ID(), engine.LoadOptions{}); return err }, other},
		{"load of a guessed id", func() error {
			_, err := a.c.Load(ctx, guessed, engine.LoadOptions{FromOtherCanister: true})
			return err
		}, notFound},
		{"load of none", func() error { _, err := a.c.Load(ctx, none, engine.LoadOptions{}); return err }, notFound},
		{"load of nothing", func() error {
			_, err := a.c.Load(ctx, engine.SnapshotID{}, engine.LoadOptions{FromOtherCanister: true})
			return err
		}, notFound},
		{"load with a host blob that is too large", func() error { _, err := a.c.Load(ctx, a.id, engine.LoadOptions{Host: make([]byte, 65537)}); return err }, invalid},
		{"take in place of another canister's", func() error { _, err := a.evil.Take(ctx, engine.TakeOptions{Replace: a.id}); return err }, other},
		{"take in place of none", func() error { _, err := a.c.Take(ctx, engine.TakeOptions{Replace: none}); return err }, notFound},
		{"take with a host blob that is too large", func() error { _, err := a.c.Take(ctx, engine.TakeOptions{Host: make([]byte, 1<<20)}); return err }, invalid},
		{"delete of none", func() error { return a.e.Delete(ctx, none) }, notFound},
		{"delete of a guessed id", func() error { return a.e.Delete(ctx, guessed) }, notFound},
		{"delete of a canister that is not", func() error { return a.e.DeleteCanister(ctx, canister(9)) }, notFound},
		{"create of one that is", func() error { _, err := a.e.CreateCanister(ctx, canister(1)); return err }, []error{engine.ErrExists}},
		{"create of no name", func() error { _, err := a.e.CreateCanister(ctx, engine.CanisterID{}); return err }, invalid},
		{"create with a host blob that is too large", func() error { _, err := a.e.CreateCanisterHost(ctx, canister(8), make([]byte, 65537)); return err }, invalid},
		{"read of none", func() error { _, err := a.e.Snapshot(ctx, none); return err }, notFound},
		{"read of a guessed canister's", func() error { _, err := a.e.Snapshot(ctx, guessed); return err }, notFound},
		{"a page that nobody has", func() error { return a.e.Page(chunk.ID{1, 2, 3}, make([]byte, engine.PageSize)) }, []error{chunk.ErrNotStored}},
		{"a node that nobody has", func() error { _, err := a.e.Node(ctx, chunk.ID{1, 2, 3}); return err }, []error{chunk.ErrNotStored}},
		{"a manifest as a page", func() error { return a.e.Page(must(a.c.Info()).HeadRoot, make([]byte, engine.PageSize)) }, []error{chunk.ErrNotStored}},
		{"a page as a node", func() error {
			_, err := a.e.Node(ctx, chunk.Sum(content(1, 40*engine.PageSize)[:engine.PageSize]))
			return err
		}, []error{chunk.ErrNotStored}},
	}
}

// directories are what somebody says is a snapshot. Each is opened, checked, and
// would then be imported.
func directories(t *testing.T) []attempt {
	t.Helper()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, make([]byte, 65536), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	// whole writes a directory that is right.
	whole := func() string {
		n++
		dir := filepath.Join(t.TempDir(), fmt.Sprint("d", n))
		w := must(snapdir.Create(dir, snapdir.Metadata{Source: snapdir.SourceTaken, WasmModuleSize: 8, WasmMemorySize: 65536}, [32]byte{1}))
		for _, p := range []struct {
			part snapdir.Part
			data []byte
		}{{snapdir.Part{Kind: snapdir.WasmModule}, content(1, 8)}, {snapdir.Part{Kind: snapdir.WasmMemory}, content(2, 65536)}} {
			pw := must(w.Part(bgContext(), p.part, uint64(len(p.data))))
			must(pw.Write(p.data))
			if err := pw.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	open := func(dir string) error {
		r, err := snapdir.Open(dir)
		if err != nil {
			return err
		}
		return errors.Join(r.Verify(bgContext(), nil), r.Close())
	}
	if err := open(whole()); err != nil {
		t.Fatal(err)
	}
	var out []attempt
	add := func(name string, want error, spoil func(dir string) error) {
		dir := whole()
		if err := spoil(dir); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, attempt{name, func() error { return open(dir) }, []error{want}})
	}
	memory := "wasm_memory.bin"
	link := func(name, to string) func(string) error {
		return func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, name)), os.Symlink(to, filepath.Join(dir, name)))
		}
	}
	edit := func(old, new string) func(string) error {
		return func(dir string) error {
			name := filepath.Join(dir, "metadata.json")
			b, err := os.ReadFile(name)
			if err != nil || !strings.Contains(string(b), old) {
				return fmt.Errorf("%s has no %q: %w", name, old, err)
			}
			sums, err := filepath.Glob(filepath.Join(dir, "*sums*"))
			for _, s := range sums {
				err = errors.Join(err, os.Remove(s))
			}
			return errors.Join(err, os.WriteFile(name, []byte(strings.Replace(string(b), old, new, 1)), 0o600))
		}
	}
	truncated := func(size int64) func(string) error {
		return func(dir string) error { return os.Truncate(filepath.Join(dir, memory), size) }
	}
	add("memory is a link outside", snapdir.ErrNotRegular, link(memory, outside))
	add("memory is an absolute path", snapdir.ErrNotRegular, link(memory, "/etc/passwd"))
	add("memory leads upwards", snapdir.ErrNotRegular, link(memory, "../../etc/x"))
	add("memory is a device", snapdir.ErrNotRegular, link(memory, "/dev/zero"))
	add("metadata is a link", snapdir.ErrNotRegular, link("metadata.json", outside))
	add("memory of 8 EiB, sparse", snapdir.ErrSize, truncated(1<<40))
	add("memory shorter than declared", snapdir.ErrSize, truncated(4096))
	add("memory empty", snapdir.ErrSize, truncated(0))
	add("memory missing", snapdir.ErrMissing, func(dir string) error { return os.Remove(filepath.Join(dir, memory)) })
	add("size of 2^64", snapdir.ErrMetadata, edit("65536", "18446744073709551616"))
	add("size of 2^63", snapdir.ErrLimit, edit("65536", "9223372036854775808"))
	add("size negative", snapdir.ErrMetadata, edit("65536", "-65536"))
	add("size not of pages", snapdir.ErrSize, edit("65536", "65537"))
	add("a member twice", snapdir.ErrMetadata, edit(`"wasm_memory_size"`, `"wasm_memory_size": 0, "wasm_memory_size"`))
	add("NUL in a name", snapdir.ErrMetadata, edit(`"wasm_memory_size"`, "\"wasm\x00memory_size\""))
	add("a chunk named ../../etc/x", snapdir.ErrMetadata, edit(`"wasm_chunk_store": [`, `"wasm_chunk_store": ["../../etc/x"`))
	add("nested without end", snapdir.ErrMetadata, func(dir string) error {
		return errors.Join(edit(`"wasm_memory_size"`, `"x": `+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)+`, "wasm_memory_size"`)(dir))
	})
	add("content changed", snapdir.ErrSumMismatch, func(dir string) error {
		return os.WriteFile(filepath.Join(dir, memory), content(99, 65536), 0o600)
	})
	out = append(out, attempt{"no directory", func() error { return open(filepath.Join(outside, "x\x00y")) }, []error{snapdir.ErrMissing, os.ErrInvalid, errInvalidPath(outside)}})
	return out
}

// errInvalidPath is what the system says of a name with a NUL in it.
func errInvalidPath(dir string) error {
	_, err := os.Lstat(filepath.Join(dir, "x\x00y"))
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return os.ErrInvalid
}

// put replaces a file of a memory file system.
func put(fs *vfs.MemFS, name string, b []byte) {
	f := must(fs.Create(name, vfs.WriteCategoryUnspecified))
	must(f.Write(b))
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		panic(err)
	}
}

// rehash gives ROOT a right hash again.
func rehash(b []byte) []byte {
	body := b[:len(b)-32]
	sum := blake3.Sum256(body)
	return append(body[:len(body):len(body)], sum[:]...)
}

// files lists all files with their content hashed.
func (a *target) files() string {
	var b strings.Builder
	var walk func(dir string)
	walk = func(dir string) {
		names := must(a.fs.List(dir))
		slices.Sort(names)
		for _, n := range names {
			p := a.fs.PathJoin(dir, n)
			st := must(a.fs.Stat(p))
			if st.IsDir() {
				walk(p)
				continue
			}
			f := must(a.fs.Open(p))
			data := make([]byte, st.Size())
			if len(data) > 0 {
				must(f.ReadAt(data, 0))
			}
			f.Close()
			fmt.Fprintf(&b, "%s %d %x\n", p, len(data), blake3.Sum256(data))
		}
	}
	walk("store")
	return b.String()
}

// reopen opens the store again, and what a target holds of it.
func (a *target) reopen() {
	a.e = must(engine.Open("store", options(a.fs)))
	a.c, a.evil = must(a.e.Canister(canister(1))), must(a.e.Canister(canister(2)))
	a.up = must(a.c.OpenUpload(bgContext(), a.up.ID()))
}
