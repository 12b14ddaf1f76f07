package snapdir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hostile is a way to spoil a directory, and the refusal it must meet.
type hostile struct {
	name  string
	spoil func(t *testing.T, d spoiler)
	want  error
	// path is what the error must name.
	path string
}

// spoiler changes the files of a directory that was whole.
type spoiler struct{ dir string }

func (d spoiler) at(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

func (d spoiler) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(d.at(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (d spoiler) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.RemoveAll(d.at(name)); err != nil {
		t.Fatal(err)
	}
}

func (d spoiler) truncate(t *testing.T, name string, size int64) {
	t.Helper()
	if err := os.Truncate(d.at(name), size); err != nil {
		t.Fatal(err)
	}
}

// link replaces name by a symbolic link to a whole copy of it.
func (d spoiler) link(t *testing.T, name, target string) {
	t.Helper()
	d.remove(t, name)
	if err := os.Symlink(target, d.at(name)); err != nil {
		t.Fatal(err)
	}
}

// flip changes one bit.
func (d spoiler) flip(t *testing.T, name string, off int64) {
	t.Helper()
	b, err := os.ReadFile(d.at(name))
	if err != nil {
		t.Fatal(err)
	}
	b[off] ^= 1
	d.write(t, name, b)
}

// edit replaces text in metadata.json, and drops the sums that would notice.
func edit(old, new string) func(*testing.T, spoiler) {
	return func(t *testing.T, d spoiler) {
		d.remove(t, sumsName)
		b, err := os.ReadFile(d.at(metadataName))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), old) {
			t.Fatalf("metadata.json has no %q:\n%s", old, b)
		}
		d.write(t, metadataName, []byte(strings.Replace(string(b), old, new, 1)))
	}
}

// noFloats makes a directory that is whole without its sums too.
func noFloats(s *sample) *sample {
	s.meta.Globals = s.meta.Globals[:3]
	return s
}

func hostiles(s *sample) []hostile {
	chunk := Part{Kind: WasmChunk, Hash: s.meta.WasmChunks[2]}.Path()
	bigChunk := Part{Kind: WasmChunk, Hash: s.meta.WasmChunks[0]}.Path()
	memory := "wasm_memory.bin"
	memorySize := fmt.Sprintf(`"wasm_memory_size": %d`, s.meta.WasmMemorySize)
	list := func(n int, what string) string {
		return strings.TrimSuffix(strings.Repeat(what+",", n), ",")
	}
	file := func(name string) func(*testing.T, spoiler) {
		return func(t *testing.T, d spoiler) { d.write(t, name, nil) }
	}
	gone := func(names ...string) func(*testing.T, spoiler) {
		return func(t *testing.T, d spoiler) {
			for _, n := range names {
				d.remove(t, n)
			}
		}
	}
	sized := func(name string, size int64) func(*testing.T, spoiler) {
		return func(t *testing.T, d spoiler) { d.truncate(t, name, size) }
	}
	linked := func(name, target string) func(*testing.T, spoiler) {
		return func(t *testing.T, d spoiler) { d.link(t, name, target) }
	}
	flipped := func(name string, off int64) func(*testing.T, spoiler) {
		return func(t *testing.T, d spoiler) { d.flip(t, name, off) }
	}
	bare := func(next func(*testing.T, spoiler)) func(*testing.T, spoiler) {
		return func(t *testing.T, d spoiler) { d.remove(t, sumsName); next(t, d) }
	}
	text := func(s string) func(*testing.T, spoiler) {
		return func(t *testing.T, d spoiler) { d.remove(t, sumsName); d.write(t, metadataName, []byte(s)) }
	}
	asDir := func(name string) func(*testing.T, spoiler) {
		return func(t *testing.T, d spoiler) {
			d.remove(t, name)
			if err := os.Mkdir(d.at(name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	return []hostile{
		// Not finished.
		{"download in progress", file(".download_progress.json"), ErrIncomplete, ".download_progress.json"},
		{"download cut off", file(".download_progress.json.tmp"), ErrIncomplete, ".download_progress.json.tmp"},
		{"temporary file", file("wasm_memory.bin.tmp"), ErrIncomplete, "wasm_memory.bin.tmp"},
		{"progress as dangling link", linked(".download_progress.json", "nowhere"), ErrIncomplete, ".download_progress.json"},

		// Missing.
		{"no metadata", gone(metadataName), ErrMissing, metadataName},
		{"no module", gone("wasm_module.bin"), ErrMissing, "wasm_module.bin"},
		{"no wasm memory", gone(memory), ErrMissing, memory},
		{"no stable memory", gone("stable_memory.bin"), ErrMissing, "stable_memory.bin"},
		{"no chunk store", gone(chunkDirName), ErrMissing, chunkDirName},
		{"no chunk", gone(chunk), ErrMissing, chunk},
		{"no chunk, no sums", gone(sumsName, chunk), ErrMissing, chunk},

		// Not plain.
		{"metadata as link", linked(metadataName, sumsName), ErrNotRegular, metadataName},
		{"metadata as directory", asDir(metadataName), ErrNotRegular, metadataName},
		{"module as link inside", linked("wasm_module.bin", memory), ErrNotRegular, "wasm_module.bin"},
		{"memory as link outside", linked(memory, "/etc/passwd"), ErrNotRegular, memory},
		{"memory as link upwards", linked(memory, "../outside"), ErrNotRegular, memory},
		{"memory as device", linked(memory, "/dev/zero"), ErrNotRegular, memory},
		{"memory as directory", asDir(memory), ErrNotRegular, memory},
		{"sums as link", linked(sumsName, metadataName), ErrNotRegular, sumsName},
		{"lock as link", linked(lockName, metadataName), ErrNotRegular, lockName},
		{"chunk store as link", linked(chunkDirName, "."), ErrNotRegular, chunkDirName},
		{"chunk store as file", func(t *testing.T, d spoiler) {
			d.remove(t, chunkDirName)
			d.write(t, chunkDirName, nil)
		}, ErrNotRegular, chunkDirName},
		{"chunk as link", linked(chunk, "../"+bigChunk), ErrNotRegular, chunk},
		{"chunk as directory", asDir(chunk), ErrNotRegular, chunk},

		// Sizes.
		{"memory one short", sized(memory, int64(s.meta.WasmMemorySize)-1), ErrSize, memory},
		{"memory one long", sized(memory, int64(s.meta.WasmMemorySize)+1), ErrSize, memory},
		{"memory one short, no sums", bare(sized(memory, int64(s.meta.WasmMemorySize)-1)), ErrSize, memory},
		{"memory one long, no sums", bare(sized(memory, int64(s.meta.WasmMemorySize)+1)), ErrSize, memory},
		{"memory empty", sized(memory, 0), ErrSize, memory},
		{"module short", sized("wasm_module.bin", 1), ErrSize, "wasm_module.bin"},
		{"stable memory long", sized("stable_memory.bin", 1<<40), ErrSize, "stable_memory.bin"},
		{"chunk one long", sized(chunk, 18), ErrSize, chunk},
		{"chunk too large", sized(chunk, MaxChunk+1), ErrLimit, chunk},
		{"metadata too large", sized(metadataName, maxJSON+1), ErrLimit, metadataName},
		{"sums too large", sized(sumsName, maxJSON+1), ErrLimit, sumsName},
		{"memory not of 64 KiB", edit(memorySize, `"wasm_memory_size": 65537`), ErrSize, metadataName},
		{"stable memory not of 64 KiB", edit(`"stable_memory_size": 131072`, `"stable_memory_size": 4096`), ErrSize, metadataName},

		// Limits.
		{"module above limit", edit(`"wasm_module_size": 12345`, `"wasm_module_size": 104857601`), ErrLimit, metadataName},
		{"memory above limit", edit(memorySize, `"wasm_memory_size": 6442516480`), ErrLimit, metadataName},
		{"stable memory above limit", edit(`"stable_memory_size": 131072`, `"stable_memory_size": 18446744073709486080`), ErrLimit, metadataName},
		{"1001 globals", edit(`"globals": [`, `"globals": [`+list(1001, `{"i32":0}`)+`,`), ErrLimit, metadataName},
		{"101 chunks", edit(`"wasm_chunk_store": [`, `"wasm_chunk_store": [`+list(101, `{"hash":[]}`)+`,`), ErrLimit, metadataName},
		{"33 bytes certified", edit(`"certified_data": [`, `"certified_data": [1,`), ErrLimit, metadataName},

		// Malformed metadata.
		{"empty metadata", text(""), ErrMetadata, metadataName},
		{"no JSON", text("{"), ErrMetadata, metadataName},
		{"a list", text("[]"), ErrMetadata, metadataName},
		{"two values", text("{} {}"), ErrMetadata, metadataName},
		{"byte order mark", text("\ufeff{}"), ErrMetadata, metadataName},
		{"empty object", text("{}"), ErrMetadata, metadataName},
		{"nested without end", text(strings.Repeat("[", 9000) + strings.Repeat("]", 9000)), ErrMetadata, metadataName},
		{"unknown nested deep", edit(`"globals"`, `"x":`+strings.Repeat("[", 50)+strings.Repeat("]", 50)+`,"globals"`), ErrMetadata, metadataName},
		{"key twice", edit(`"canister_version"`, `"wasm_memory_size": 0, "canister_version"`), ErrMetadata, metadataName},
		{"unknown key twice", edit(`"canister_version"`, `"x": 0, "x": 0, "canister_version"`), ErrMetadata, metadataName},
		{"key twice deeper", edit(`{
      "i32": -1
    }`, `{"i32": -1, "i32": -1}`), ErrMetadata, metadataName},
		{"key in another case", edit(`"canister_version"`, `"Canister_Version"`), ErrMetadata, metadataName},
		{"key missing", edit(`"certified_data"`, `"certified"`), ErrMetadata, metadataName},
		{"null size", edit(memorySize, `"wasm_memory_size": null`), ErrMetadata, metadataName},
		{"size as text", edit(memorySize, `"wasm_memory_size": "196608"`), ErrMetadata, metadataName},
		{"size as float", edit(memorySize, `"wasm_memory_size": 196608.0`), ErrMetadata, metadataName},
		{"size with exponent", edit(memorySize, `"wasm_memory_size": 196608e0`), ErrMetadata, metadataName},
		{"negative size", edit(memorySize, `"wasm_memory_size": -65536`), ErrMetadata, metadataName},
		{"size above 2^64", edit(memorySize, `"wasm_memory_size": 18446744073709551616`), ErrMetadata, metadataName},
		{"unknown source", edit(`"taken_from_canister"`, `"stolen"`), ErrMetadata, metadataName},
		{"source with value", edit(`"taken_from_canister": null`, `"taken_from_canister": 1`), ErrMetadata, metadataName},
		{"two sources", edit(`"taken_from_canister": null`, `"taken_from_canister": null, "metadata_upload": null`), ErrMetadata, metadataName},
		{"unknown hook status", edit(`"ready"`, `"steady"`), ErrMetadata, metadataName},
		{"empty hook status", edit(`"ready"`, `""`), ErrMetadata, metadataName},
		{"unknown timer", edit(`"active"`, `"asleep"`), ErrMetadata, metadataName},
		{"active timer without time", edit(`"active": 18446744073709551615`, `"active": null`), ErrMetadata, metadataName},
		{"unknown global", edit(`"i32"`, `"i33"`), ErrMetadata, metadataName},
		{"global of two types", edit(`"i32": -1`, `"i32": -1, "i64": -1`), ErrMetadata, metadataName},
		{"i32 too large", edit(`"i32": -1`, `"i32": 2147483648`), ErrMetadata, metadataName},
		{"i32 minus zero", edit(`"i32": -1`, `"i32": -0`), ErrMetadata, metadataName},
		{"i64 too small", edit(`"i64": -9223372036854775808`, `"i64": -9223372036854775809`), ErrMetadata, metadataName},
		{"f32 too large", edit(`"f32": 0.1`, `"f32": 1e39`), ErrMetadata, metadataName},
		{"f64 too large", edit(`"f32": 0.1`, `"f64": 1e999`), ErrMetadata, metadataName},
		{"f32 as text", edit(`"f32": 0.1`, `"f32": "NaN"`), ErrMetadata, metadataName},
		{"v128 of five digits", edit(`"f32": 0.1`, `"v128": [0,0,0,0,1]`), ErrMetadata, metadataName},
		{"v128 digit too large", edit(`"f32": 0.1`, `"v128": [4294967296]`), ErrMetadata, metadataName},
		{"v128 above 2^128", edit(`"f32": 0.1`, `"v128": 340282366920938463463374607431768211456`), ErrMetadata, metadataName},
		{"v128 negative", edit(`"f32": 0.1`, `"v128": -1`), ErrMetadata, metadataName},
		{"lost float", edit(`"f32": 0.1`, `"f32": null`), ErrGlobalLost, metadataName},
		{"lost global", edit(`{
      "f32": 0.1
    }`, `null`), ErrGlobalLost, metadataName},
		{"chunk hash short", edit(`"hash": [`, `"hash": [1], "x": [`), ErrMetadata, metadataName},
		{"chunk hash of 256", edit(`"hash": [`, `"hash": [256,`), ErrLimit, metadataName},
		{"chunk as text", edit(`"wasm_chunk_store": [`, `"wasm_chunk_store": ["../../etc/passwd",`), ErrMetadata, metadataName},
		{"certified data as text", edit(`"certified_data": [`, `"certified_data": "", "x": [`), ErrMetadata, metadataName},
		{"chunk twice", func(t *testing.T, d spoiler) {
			h := jsonList(s.meta.WasmChunks[0][:])
			edit(`"wasm_chunk_store": [`, `"wasm_chunk_store": [{"hash":`+h+`},`)(t, d)
		}, ErrMetadata, metadataName},

		// Chunks.
		{"unlisted chunk", file(chunkDirName + "/" + strings.Repeat("0", 64) + ".bin"), ErrChunkList, chunkDirName + "/" + strings.Repeat("0", 64) + ".bin"},
		{"chunk content, no sums", bare(flipped(chunk, 3)), ErrChunkHash, chunk},
		{"chunk content", flipped(bigChunk, 777), ErrSumMismatch, bigChunk},
		{"chunk of another size, no sums", bare(sized(chunk, 16)), ErrChunkHash, chunk},
		{"chunks swapped, no sums", bare(func(t *testing.T, d spoiler) {
			b, err := os.ReadFile(d.at(chunk))
			if err != nil {
				t.Fatal(err)
			}
			d.write(t, bigChunk, b)
		}), ErrChunkHash, bigChunk},

		// Sums.
		{"metadata changed", func(t *testing.T, d spoiler) {
			b, err := os.ReadFile(d.at(metadataName))
			if err != nil {
				t.Fatal(err)
			}
			d.write(t, metadataName, bytes.Replace(b, []byte(`"i32": -1`), []byte(`"i32": -2`), 1))
		}, ErrSumMismatch, metadataName},
		{"module changed", flipped("wasm_module.bin", 0), ErrSumMismatch, "wasm_module.bin"},
		{"last byte of memory changed", flipped(memory, int64(s.meta.WasmMemorySize)-1), ErrSumMismatch, memory},
		{"stable memory changed", flipped("stable_memory.bin", wasmPage), ErrSumMismatch, "stable_memory.bin"},
		{"sums empty", file(sumsName), ErrSums, sumsName},
		{"sums of nothing", func(t *testing.T, d spoiler) { d.write(t, sumsName, []byte("{}")) }, ErrSums, sumsName},
		{"sums newer", func(t *testing.T, d spoiler) {
			d.write(t, sumsName, []byte(`{"format":"snapstore-sums","version":2,"files":"elsewhere"}`))
		}, ErrNewerFormat, sumsName},
		{"sums with a file outside", sums(func(j *Sums) { j.Files[1].Path = "../../etc/passwd" }), ErrSums, sumsName},
		{"sums without a file", sums(func(j *Sums) { j.Files = j.Files[:len(j.Files)-1] }), ErrSums, sumsName},
		{"sums with a file too many", sums(func(j *Sums) { j.Files = append(j.Files, j.Files[0]) }), ErrSums, sumsName},
		{"sums with another size", sums(func(j *Sums) { j.Files[2].Size++ }), ErrSize, memory},
		{"sums with a value for a known global", sums(func(j *Sums) {
			j.Floats = append(j.Floats, FloatBits{0, Global{Kind: GlobalF32, Lo: 0x7fc00000}})
		}), ErrSums, sumsName},
	}
}

// sums rewrites the sums with a right checksum of their own.
func sums(change func(*Sums)) func(*testing.T, spoiler) {
	return func(t *testing.T, d spoiler) {
		b, err := os.ReadFile(d.at(sumsName))
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseSums(b)
		if err != nil {
			t.Fatal(err)
		}
		change(s)
		if b, err = s.Encode(); err != nil {
			t.Fatal(err)
		}
		d.write(t, sumsName, b)
	}
}

// TestHostile: every spoiled directory is refused for the right reason, the
// error names the file, nothing in the directory changes, and Open alone
// refuses whatever does not need reading the parts.
func TestHostile(t *testing.T) {
	s := noFloats(newSample())
	for _, h := range hostiles(s) {
		t.Run(h.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "snap")
			s.write(t, dir)
			h.spoil(t, spoiler{dir})
			before := names(t, dir)
			r, err := Open(dir)
			if err == nil {
				err = errors.Join(r.Verify(t.Context(), nil), r.Close())
				if !errors.Is(h.want, ErrChunkHash) && !errors.Is(h.want, ErrSumMismatch) {
					t.Errorf("only Verify found it")
				}
			}
			if !errors.Is(err, h.want) {
				t.Fatalf("got %v, want %v", err, h.want)
			}
			var e *Error
			if !errors.As(err, &e) || e.Path != h.path {
				t.Errorf("%v does not name %q", err, h.path)
			}
			if len(err.Error()) > 400 {
				t.Errorf("error of %d characters", len(err.Error()))
			}
			if after := names(t, dir); len(after) != len(before) {
				t.Errorf("files before %v, after %v", before, after)
			}
		})
	}
}

// TestFlippedBits: with sums, no flipped bit of a JSON file goes unseen.
func TestFlippedBits(t *testing.T) {
	s := newSample()
	dir := filepath.Join(t.TempDir(), "snap")
	s.write(t, dir)
	for _, name := range []string{metadataName, sumsName} {
		whole, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for bit := 0; bit < len(whole)*8; bit += 19 {
			spoiled := bytes.Clone(whole)
			spoiled[bit/8] ^= 1 << (bit % 8)
			spoiler{dir}.write(t, name, spoiled)
			r, err := Open(dir)
			if err == nil {
				_ = r.Close()
				t.Fatalf("%s: bit %d flipped and not seen", name, bit)
			}
		}
		spoiler{dir}.write(t, name, whole)
	}
	s.check(t, dir, true)
}

// TestStreamSeesChange: a part that changes between Open and the end of
// reading is refused, though its file was right when it was opened.
func TestStreamSeesChange(t *testing.T) {
	const memory = "wasm_memory.bin"
	for _, c := range []struct {
		name   string
		sums   bool
		change func(*testing.T, spoiler)
		want   error
	}{
		{"grows", true, func(t *testing.T, d spoiler) { d.truncate(t, memory, 5*wasmPage) }, ErrSize},
		{"grows, no sums", false, func(t *testing.T, d spoiler) { d.truncate(t, memory, 5*wasmPage) }, ErrSize},
		{"shrinks, no sums", false, func(t *testing.T, d spoiler) { d.truncate(t, memory, wasmPage) }, ErrSize},
		{"rots", true, func(t *testing.T, d spoiler) { d.flip(t, memory, 5) }, ErrSumMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := noFloats(newSample())
			dir := filepath.Join(t.TempDir(), "snap")
			s.write(t, dir)
			if !c.sums {
				spoiler{dir}.remove(t, sumsName)
			}
			r, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			c.change(t, spoiler{dir})
			if err := r.Verify(t.Context(), nil); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
