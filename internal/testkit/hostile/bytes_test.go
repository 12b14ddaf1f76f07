package hostile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/gc"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/management/candid"
	"github.com/snapstore/snapstore/manifest"
)

var le = binary.LittleEndian

// patched copies b and changes it.
func patched(b []byte, change func([]byte) []byte) []byte { return change(bytes.Clone(b)) }

// at overwrites bytes from an offset on.
func at(off int, with ...byte) func([]byte) []byte {
	return func(b []byte) []byte { copy(b[off:], with); return b }
}

func u32(off int, n uint32) func([]byte) []byte {
	return func(b []byte) []byte { le.PutUint32(b[off:], n); return b }
}

func u64(off int, n uint64) func([]byte) []byte {
	return func(b []byte) []byte { le.PutUint64(b[off:], n); return b }
}

func cut(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }

func more(tail ...byte) func([]byte) []byte {
	return func(b []byte) []byte { return append(b, tail...) }
}

// fed makes cases of changes to something that is right.
func fed(good []byte, decode func([]byte) error, want error, changes map[string]func([]byte) []byte) (out []attempt) {
	if err := decode(good); err != nil {
		panic(fmt.Sprintf("what is to be changed is wrong already: %v", err))
	}
	for name, change := range changes {
		b := patched(good, change)
		out = append(out, attempt{name, func() error { return decode(b) }, []error{want}})
	}
	return out
}

func manifests() []attempt {
	root := chunk.ID{1}
	m := &manifest.Manifest{
		Sections: []manifest.SectionRoot{{Section: engine.WasmMemory, Size: 1 << 16, Root: root}, {Section: engine.StableMemory, Size: 1 << 20, Root: root}},
		Meta:     manifest.Metadata{Source: manifest.SourceTaken, CertifiedData: []byte("cert"), Globals: []manifest.Global{{Kind: manifest.GlobalI32, Lo: 7}}},
	}
	const first, entry = 4, 1 + 8 + 32
	const meta = first + 2*entry
	return fed(must(m.Encode()), func(b []byte) error { _, err := manifest.Decode(b); return err }, manifest.ErrMalformed, map[string]func([]byte) []byte{
		"nothing":                     cut(0),
		"kind only":                   cut(1),
		"header only":                 cut(3),
		"another kind":                at(0, 1),
		"unknown kind":                at(0, 0xff),
		"newer version":               at(1, 2),
		"version 0":                   at(1, 0),
		"a level":                     at(2, 1),
		"255 sections":                at(3, 255),
		"more sections than there":    at(3, 3),
		"fewer sections than there":   at(3, 1),
		"129 sections":                func(b []byte) []byte { b[3] = 129; return append(b, make([]byte, 129*entry)...) },
		"section of no kind":          at(first, 0),
		"section of unknown kind":     at(first, 9),
		"sections out of order":       func(b []byte) []byte { b[first], b[first+entry] = b[first+entry], b[first]; return b },
		"section twice":               at(first+entry, byte(manifest.WasmMemory)),
		"chunk without its hash":      at(first+entry, byte(manifest.WasmChunk)),
		"size of 2^63":                u64(first+1, 1<<63),
		"size of 2^64-1":              u64(first+1, math.MaxUint64),
		"size above the limit":        u64(first+1, manifest.MaxSectionSize+1),
		"size 0 with a root":          u64(first+1, 0),
		"pages x 4096 beyond 2^64":    u64(first+1, math.MaxUint64-4094),
		"cut in a section":            cut(first + 20),
		"unknown source":              at(meta, 3),
		"certified data of 33":        at(meta+1+8+8, 33),
		"certified data of 255":       at(meta+1+8+8, 255),
		"65535 globals":               at(meta+1+8+8+1+4, 0xff, 0xff),
		"1001 globals":                at(meta+1+8+8+1+4, 0xe9, 3),
		"global of no kind":           at(meta+1+8+8+1+4+2, 0),
		"global of unknown kind":      at(meta+1+8+8+1+4+2, 6),
		"i64 global in i32's bytes":   at(meta+1+8+8+1+4+2, 2),
		"v128 global in i32's bytes":  at(meta+1+8+8+1+4+2, 5),
		"unknown timer":               at(meta+1+8+8+1+4+2+5, 3),
		"active timer without a time": at(meta+1+8+8+1+4+2+5, 2),
		"unknown hook status":         at(meta+1+8+8+1+4+2+5+1, 4),
		"a byte too many":             more(0),
		"a manifest behind it":        func(b []byte) []byte { return append(b, b...) },
		"a gigabyte of zeros' start":  more(make([]byte, 1<<20)...),
	})
}

func nodes() []attempt {
	var kids [manifest.Fanout]chunk.ID
	kids[0], kids[3], kids[15] = chunk.ID{1}, chunk.ID{2}, chunk.ID{3}
	good := must(manifest.AppendNode(nil, 2, &kids))
	own := must(manifest.NodeID(good))
	return append(fed(good, func(b []byte) error { _, err := manifest.DecodeNode(b); return err }, manifest.ErrMalformed, map[string]func([]byte) []byte{
		"nothing":                 cut(0),
		"header only":             cut(3),
		"without children":        cut(5),
		"a manifest":              at(0, 2),
		"version 2":               at(1, 2),
		"level 10":                at(2, 10),
		"level 255":               at(2, 255),
		"no bit set":              at(3, 0, 0),
		"all bits set":            at(3, 0xff, 0xff),
		"a bit fewer":             at(3, 8, 0x80),
		"a child of zeros":        func(b []byte) []byte { clear(b[5:37]); return b },
		"half a child":            func(b []byte) []byte { return b[:len(b)-16] },
		"a child too many":        more(bytes.Repeat([]byte{9}, 32)...),
		"17 children":             more(bytes.Repeat([]byte{9}, 14*32)...),
		"a node of 64 KiB":        more(make([]byte, 64<<10)...),
		"a byte too many":         more(1),
		"bits without their kids": cut(5 + 32),
	}), attempt{"a node that has itself as child", func() error {
		// What names itself would have to be found under its own hash.
		var loop [manifest.Fanout]chunk.ID
		loop[0] = own
		b := must(manifest.AppendNode(nil, 2, &loop))
		g := single{own: b}
		return manifest.Walk(bgContext(), g, own, manifest.WalkOptions{})
	}, []error{manifest.ErrMalformed, chunk.ErrNotStored}})
}

func places() []attempt {
	good := manifest.PagePlace(engine.WasmMemory, 5).Encode()
	return fed(good, func(b []byte) error { _, err := manifest.DecodePlace(b); return err }, manifest.ErrMalformed, map[string]func([]byte) []byte{
		"nothing":              cut(0),
		"stage only":           cut(1),
		"unknown stage":        at(0, 4),
		"unknown section":      at(1, 77),
		"height 11":            at(2, 11),
		"height 255":           at(2, 255),
		"page 2^63":            u64(3, 1<<63),
		"page 2^64-1":          u64(3, math.MaxUint64),
		"cut index":            cut(9),
		"a byte too many":      more(0),
		"chunk without a hash": at(1, 4),
	})
}

// page is one that compresses.
func page() []byte { return bytes.Repeat([]byte("snapstore "), 410)[:chunk.PageSize] }

func groupOf(codec chunk.Codec, d chunk.Domain, n int) []byte {
	pages := bytes.Repeat(page(), n)
	ids := make([]chunk.ID, n)
	if err := chunk.SumPages(ids, pages); err != nil {
		panic(err)
	}
	b, _, err := new(chunk.Coder).AppendGroupIn(nil, d, codec, ids, pages)
	if err != nil {
		panic(err)
	}
	return b
}

// stuffed is a group of one page with other data.
func stuffed(codec chunk.Codec, data []byte) []byte {
	b := append([]byte{1, byte(codec), 1, 0}, make([]byte, 8)...)
	le.PutUint32(b[4:], chunk.PageSize)
	le.PutUint32(b[8:], uint32(len(data)))
	b = append(b, bytes.Repeat([]byte{7}, chunk.IDSize)...)
	return append(b, data...)
}

func groups() []attempt {
	decode := func(b []byte) error {
		dst := make([]byte, 0, chunk.GroupPages*chunk.PageSize)
		_, _, err := chunk.DecodeGroup(dst, b)
		return err
	}
	const table = 12
	out := fed(groupOf(chunk.CodecS2, chunk.Domain{}, 3), decode, chunk.ErrMalformed, map[string]func([]byte) []byte{
		"nothing":                  cut(0),
		"header only":              cut(12),
		"half a header":            cut(7),
		"version 0":                at(0, 0),
		"version 3":                at(0, 3),
		"a domain that is not":     at(0, 2),
		"unknown codec":            at(1, 4),
		"in parts, and is one":     at(1, 3),
		"another codec":            at(1, 2),
		"raw":                      at(1, 0),
		"no page":                  at(2, 0),
		"17 pages":                 at(2, 17),
		"255 pages":                at(2, 255),
		"more pages than it says":  at(2, 2),
		"reserved byte":            at(3, 1),
		"raw length of 1 GiB":      u32(4, 1<<30),
		"raw length of 2^32-1":     u32(4, math.MaxUint32),
		"raw length of a page":     u32(4, chunk.PageSize),
		"stored length 0":          u32(8, 0),
		"stored length of 2^32-1":  u32(8, math.MaxUint32),
		"stored length one more":   func(b []byte) []byte { le.PutUint32(b[8:], le.Uint32(b[8:])+1); return b },
		"a page of zeros":          func(b []byte) []byte { clear(b[table : table+32]); return b },
		"table cut":                cut(table + 40),
		"data cut":                 func(b []byte) []byte { return b[:len(b)-5] },
		"a byte too many":          more(0),
		"data of noise":            func(b []byte) []byte { copy(b[table+96:], content(3, len(b)-table-96)); return b },
		"data of another group":    func(b []byte) []byte { return append(b[:table+96], b[table:table+40]...) },
		"length of s2 of 2^31":     func(b []byte) []byte { return at(table+96, 0xff, 0xff, 0xff, 0xff, 7)(b) },
		"length of s2 of 4 pages":  func(b []byte) []byte { return at(table+96, 0x80, 0x80, 1)(b) },
		"domain of zeros, version": func(b []byte) []byte { b[0] = 2; return append(b[:12:12], append(make([]byte, 32), b[12:]...)...) },
	})
	const lengths = table + 9*32 // of two parts; the third has the rest
	out = append(out, fed(groupOf(chunk.CodecS2Parts, chunk.Domain{}, 9), decode, chunk.ErrMalformed, map[string]func([]byte) []byte{
		"parts: one block":       at(1, 1),
		"parts: four pages":      at(2, 4),
		"parts: length 0":        at(lengths, 0, 0),
		"parts: length of 65535": at(lengths, 0xff, 0xff),
		"parts: one byte more":   func(b []byte) []byte { le.PutUint16(b[lengths:], le.Uint16(b[lengths:])+1); return b },
		"parts: all in the second": func(b []byte) []byte {
			le.PutUint16(b[lengths+2:], uint16(len(b)-lengths-4)-le.Uint16(b[lengths:]))
			return b
		},
		"parts: lengths cut":        func(b []byte) []byte { le.PutUint32(b[8:], 3); return b[:lengths+3] },
		"parts: no data":            func(b []byte) []byte { le.PutUint32(b[8:], 4); return b[:lengths+4] },
		"parts: nothing":            func(b []byte) []byte { le.PutUint32(b[8:], 0); return b[:lengths] },
		"parts: first says 2^31":    at(lengths+4, 0xff, 0xff, 0xff, 0xff, 7),
		"parts: first says 8 pages": at(lengths+4, 0x80, 0x80, 2),
		"parts: data of noise":      func(b []byte) []byte { copy(b[lengths+4:], content(3, len(b)-lengths-4)); return b },
	})...)
	in := chunk.DedupCanister.Of([]byte("a"))
	out = append(out, fed(groupOf(chunk.CodecZstd, in, 2), decode, chunk.ErrMalformed, map[string]func([]byte) []byte{
		"zstd: domain cut":       cut(30),
		"zstd: version of none":  at(0, 1),
		"zstd: data of noise":    func(b []byte) []byte { copy(b[len(b)-20:], content(4, 20)); return b },
		"zstd: data cut":         func(b []byte) []byte { return b[:len(b)-3] },
		"zstd: magic":            func(b []byte) []byte { b[12+32+64] ^= 1; return b },
		"zstd: lies on its size": func(b []byte) []byte { b[12+32+64+4] ^= 0xe0; return b },
	})...)
	// Bombs: a page's worth of bytes that would become a GiB.
	enc := must(zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1)))
	gib := make([]byte, 64<<20)
	bomb := enc.EncodeAll(gib, nil)
	for len(bomb) < chunk.PageSize*3/4 {
		bomb = enc.EncodeAll(gib, bomb) // frame behind frame
		if len(bomb) > chunk.PageSize*3/4 {
			break
		}
	}
	for name, b := range map[string][]byte{
		"zstd bomb":              stuffed(chunk.CodecZstd, bomb[:min(len(bomb), 3800)]),
		"zstd of 8 pages":        stuffed(chunk.CodecZstd, enc.EncodeAll(make([]byte, 8*chunk.PageSize), nil)),
		"zstd of half a page":    stuffed(chunk.CodecZstd, enc.EncodeAll(make([]byte, chunk.PageSize/2), nil)),
		"zstd of nothing":        stuffed(chunk.CodecZstd, enc.EncodeAll(nil, nil)),
		"zstd window of 2^41":    stuffed(chunk.CodecZstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0xf8, 1, 0, 0}),
		"zstd skippable of 4 GB": stuffed(chunk.CodecZstd, []byte{0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 1}),
		"zstd with a dictionary": stuffed(chunk.CodecZstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x23, 1, 2, 3, 4, 0, 0x10, 1, 0, 0}),
		"s2 bomb":                stuffed(chunk.CodecS2, s2.Encode(nil, make([]byte, 1<<20))),
		"s2 of half a page":      stuffed(chunk.CodecS2, s2.Encode(nil, make([]byte, chunk.PageSize/2))),
		"s2 of 2^32":             stuffed(chunk.CodecS2, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0}),
		"s2 copies from before":  stuffed(chunk.CodecS2, []byte{0x80, 0x20, 0xfe, 0xff, 0xff, 0xfe, 0xff, 0xff}),
		"delta of nothing":       stuffed(chunk.CodecDelta, nil),
		"delta of half a head":   stuffed(chunk.CodecDelta, []byte{0x10}),
		"delta of 8191 bytes":    stuffed(chunk.CodecDelta, []byte{0xff, 0x3f, 1, 2, 3}),
		"delta of no method":     stuffed(chunk.CodecDelta, []byte{4, 0x60, 1, 2, 3, 4}),
		"delta of short lines":   stuffed(chunk.CodecDelta, append([]byte{15, 0x20}, make([]byte, 15)...)),
		"delta of all bits":      stuffed(chunk.CodecDelta, append([]byte{16, 0x20}, bytes.Repeat([]byte{0xff}, 16)...)),
		"delta from before":      stuffed(chunk.CodecDelta, append([]byte{18, 0x20, 64, 0}, append(make([]byte, 8), 1, 0, 0, 0, 0, 0, 0, 0)...)),
		"delta of an s2 bomb":    stuffed(chunk.CodecDelta, append([]byte{10, 0x40}, s2.Encode(nil, make([]byte, 1<<20))[:10]...)),
		"raw short":              stuffed(chunk.CodecRaw, make([]byte, chunk.PageSize-1)),
		"raw long":               stuffed(chunk.CodecRaw, make([]byte, chunk.PageSize+1)),
	} {
		out = append(out, attempt{name, func() error { return decode(b) }, []error{chunk.ErrMalformed}})
	}
	return out
}

func nodeFrames() []attempt {
	good := must(chunk.AppendNodes(nil, chunk.Domain{}, [][]byte{[]byte("one"), []byte("three")}))
	return fed(good, func(b []byte) error { _, _, err := chunk.SplitNodes(b); return err }, chunk.ErrMalformed, map[string]func([]byte) []byte{
		"nothing":                cut(0),
		"header only":            cut(4),
		"version 9":              at(0, 9),
		"no node":                at(1, 0),
		"17 nodes":               at(1, 17),
		"255 nodes":              at(1, 255),
		"reserved":               at(2, 1),
		"reserved too":           at(3, 1),
		"a node of 0 bytes":      u32(4, 0),
		"a node of 64 KiB and 1": u32(4, 64<<10+1),
		"a node of 4 GiB":        u32(4, math.MaxUint32),
		"lengths cut":            cut(10),
		"nodes cut":              func(b []byte) []byte { return b[:len(b)-1] },
		"a byte too many":        more(0),
		"a domain of 5 bytes":    at(0, 2),
	})
}

func records() []attempt {
	rec := &record.Record{
		Seq: 5, Incarnation: 1, NextLocal: 3, Head: chunk.ID{1}, HeadLogical: 9, Host: []byte("host"),
		Snapshots: []record.Snapshot{{Local: 0, Root: chunk.ID{1}, Source: record.Taken}, {Local: 2, Root: chunk.ID{2}, Source: record.Uploaded, Mutable: true}},
	}
	const head, snap = 72, 58
	return fed(must(rec.Encode()), func(b []byte) error { _, err := record.Decode(b); return err }, record.ErrMalformed, map[string]func([]byte) []byte{
		"nothing":                 cut(0),
		"half a head":             cut(40),
		"head only":               cut(head),
		"version 0":               at(0, 0),
		"version 2":               at(0, 2),
		"deleted twice":           at(1, 2),
		"a tombstone with all":    at(1, 1),
		"4097 snapshots":          at(2, 1, 16),
		"65535 snapshots":         at(2, 0xff, 0xff),
		"a snapshot too few":      at(2, 1),
		"sequence 0":              u64(4, 0),
		"incarnation 0":           u64(12, 0),
		"counter below":           u64(20, 2),
		"counter 0":               u64(20, 0),
		"host of 4 GiB":           u32(68, math.MaxUint32),
		"host of 64 KiB and 1":    u32(68, 65537),
		"host of fewer bytes":     u32(68, 3),
		"snapshots out of order":  u64(head, 2),
		"snapshot twice":          u64(head+snap, 0),
		"snapshot of 2^64-1":      u64(head+snap, math.MaxUint64),
		"snapshot without a root": func(b []byte) []byte { clear(b[head+8 : head+40]); return b },
		"source 0":                at(head+56, 0),
		"source 3":                at(head+56, 3),
		"a taken one is mutable":  at(head+57, 1),
		"mutable twice":           at(head+snap+57, 2),
		"a byte too many":         more(0),
		"cut by one":              func(b []byte) []byte { return b[:len(b)-1] },
	})
}

func moves() []attempt {
	good := append([]byte{1, 0, 0, 0, 2, 0, 0, 0}, make([]byte, 8+2*16)...)
	return fed(good, func(b []byte) error { _, _, err := gc.DecodeMove(b); return err }, gc.ErrMove, map[string]func([]byte) []byte{
		"nothing":          cut(0),
		"head only":        cut(16),
		"version 2":        at(0, 2),
		"reserved":         at(2, 1),
		"a frame too many": u32(4, 3),
		"a frame too few":  u32(4, 1),
		"2^24 and 1":       u32(4, 1<<24+1),
		"2^32-1 frames":    u32(4, math.MaxUint32),
		"a byte too many":  more(0),
	})
}

func ids() []attempt {
	var out []attempt
	text := func(kind string, parse func(string) error, want []error, bad ...string) {
		for _, b := range bad {
			name := b
			if len(name) > 40 {
				name = fmt.Sprintf("%s... of %d", name[:20], len(b))
			}
			out = append(out, attempt{fmt.Sprintf("%s %q", kind, name), func() error { return parse(b) }, want})
		}
	}
	invalid := []error{engine.ErrInvalid}
	good := canister(1).String()
	text("canister", func(s string) error { _, err := engine.ParseCanisterID(s); return err }, invalid,
		"", "-", "../../etc/passwd", "/etc/passwd", "aaaaa-aa-", strings.ToUpper(good), good+"-", good+"\x00", "\x00"+good, " "+good,
		strings.Replace(good, "-", "", 1), good[:len(good)-1]+"z", strings.Repeat("a", 1<<20), strings.Repeat("aaaaa-", 1000), "rrkah\nfqaaa", "\xff\xfe")
	hex := engine.SnapshotID{Canister: canister(1), Local: 1}.String()
	text("snapshot", func(s string) error { _, err := engine.ParseSnapshotID(s); return err }, invalid,
		"", "0", "00", hex[:16], hex[:17], hex+"0", strings.ToUpper("0000000000000001000000000000000a0101"), hex+strings.Repeat("00", 30), "../"+hex, hex+"\x00",
		"0x"+hex, strings.Repeat("ff", 1<<19), "zz"+hex[2:])
	for _, n := range []int{0, 1, 8, 8 + 30, 1 << 20} {
		b := make([]byte, n)
		out = append(out, attempt{fmt.Sprintf("snapshot of %d bytes", n), func() error { _, err := engine.SnapshotIDFromBytes(b); return err }, invalid})
	}
	for _, n := range []int{0, 30, 1 << 20} {
		b := make([]byte, n)
		out = append(out, attempt{fmt.Sprintf("canister of %d bytes", n), func() error { _, err := engine.CanisterIDFromBytes(b); return err }, invalid})
	}
	text("section", func(s string) error { _, err := manifest.ParseSection(s); return err }, []error{manifest.ErrMalformed},
		"", "wasm", "wasm-chunk/", "wasm-chunk/../../etc/x", "wasm-memory/"+strings.Repeat("0", 64), "stable-memory\x00", "WASM-MEMORY", "wasm-chunk/"+strings.Repeat("g", 64))
	text("dedup domain", func(s string) error { _, err := engine.ParseDedupDomain(s); return err }, invalid, "", "Store", "all")
	return out
}

// messages are of whoever may call the management canister.
func messages() []attempt {
	limits := candid.Limits{Decoded: 1 << 20}
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}
	didl := func(b ...byte) []byte { return append([]byte("DIDL"), b...) }
	var out []attempt
	for name, b := range map[string][]byte{
		"nothing":               nil,
		"magic":                 []byte("DIDM\x00\x00"),
		"half the magic":        []byte("DI"),
		"type table of 2^64":    append(didl(), huge...),
		"2^64 arguments":        append(didl(0), huge...),
		"vec null of 2^64":      append(didl(1, 0x6d, 0x7f, 1, 0), huge...),
		"vec nat8 of 2^64":      append(didl(1, 0x6d, 0x7b, 1, 0), huge...),
		"text of 2^64":          append(didl(0, 1, 0x71), huge...),
		"principal of 2^64":     append(didl(0, 1, 0x68, 1), huge...),
		"a record of itself":    didl(1, 0x6c, 1, 0, 0, 1, 0),
		"a type that is not":    didl(0, 1, 0x10),
		"an index out of range": didl(1, 0x6d, 5, 1, 0, 0),
		"endless nat":           append(didl(0, 1, 0x7d), bytes.Repeat([]byte{0xff}, 100_000)...),
		"endless length":        append(didl(1, 0x6d, 0x7b, 1, 0), bytes.Repeat([]byte{0x80}, 100_000)...),
		"opt of itself":         append(didl(1, 0x6e, 0, 1, 0), bytes.Repeat([]byte{1}, 100_000)...),
		"a field twice":         didl(1, 0x6c, 2, 0, 0x7f, 0, 0x7f, 1, 0),
		"bytes behind it":       didl(0, 0, 0),
	} {
		out = append(out, attempt{name, func() error {
			var blob []byte
			err := candid.Unmarshal(b, limits, &blob)
			var typed *candid.Error
			if err != nil && !asCandid(err, &typed) {
				return fmt.Errorf("untyped: %w", err)
			}
			if err == nil {
				return nil
			}
			return errRejected
		}, []error{errRejected}})
	}
	return out
}

// rootSize is where ROOT's hash begins, without segments.
const rootSize = 168

// roots replaces both copies of ROOT, each with a right hash where the change is
// not about that, and opens the store; then everything is put back.
func roots(a *target) []attempt {
	read := func(name string) []byte {
		f := must(a.fs.Open("store/" + name))
		defer f.Close()
		st := must(f.Stat())
		b := make([]byte, st.Size())
		must(f.ReadAt(b, 0))
		return b
	}
	var out []attempt
	add := func(name string, change func([]byte) []byte, hashed bool) {
		out = append(out, attempt{name, func() error {
			// A copy of the store, so that a refusal can be seen to change nothing.
			if err := a.e.Close(); err != nil {
				return err
			}
			goodA, goodB := read("ROOT-A"), read("ROOT-B")
			defer func() {
				put(a.fs, "store/ROOT-A", goodA)
				put(a.fs, "store/ROOT-B", goodB)
				a.reopen()
			}()
			bad := change(bytes.Clone(goodA))
			if hashed {
				bad = rehash(bad)
			}
			put(a.fs, "store/ROOT-A", bad)
			put(a.fs, "store/ROOT-B", bad)
			before := a.files()
			e, err := engine.Open("store", options(a.fs))
			if err == nil {
				e.Close()
				return nil
			}
			if after := a.files(); after != before {
				return fmt.Errorf("a refused open changed files:\n%s\nbefore\n%s", after, before)
			}
			return err
		}, []error{engine.ErrCorrupt, engine.ErrNewerFormat}})
	}
	body := func(change func([]byte) []byte) func([]byte) []byte { return change }
	add("empty", cut(0), false)
	add("magic only", cut(8), false)
	add("cut", cut(100), false)
	add("cut by a segment", func(b []byte) []byte { return append(b[:len(b)-32-72:len(b)-32-72], b[len(b)-32:]...) }, true)
	add("zeros", func(b []byte) []byte { clear(b); return b }, false)
	add("one bit", func(b []byte) []byte { b[50] ^= 1; return b }, false)
	add("magic", body(at(0, 'X')), true)
	add("version 0", body(u32(8, 0)), true)
	add("version 2", body(u32(8, 2)), true)
	add("version 2^32-1", body(u32(8, math.MaxUint32)), true)
	add("reserved", body(u32(12, 1)), true)
	add("unknown feature", body(u64(16, 2)), true)
	add("all features", body(u64(16, math.MaxUint64)), true)
	add("next segment 0", body(u64(88, 0)), true)
	add("next sequence 0", body(u64(96, 0)), true)
	add("next sequence below the last", body(u64(112, 1<<40)), true)
	add("floor above all", body(u64(104, math.MaxUint64)), true)
	add("segment size 0", body(u64(152, 0)), true)
	add("segment size 2^63", body(u64(152, 1<<63)), true)
	add("segment size of 1 byte", body(u64(152, 1)), true)
	add("a segment too many", func(b []byte) []byte { le.PutUint32(b[160:], le.Uint32(b[160:])+1); return b }, true)
	add("2^32-1 segments", body(u32(160, math.MaxUint32)), true)
	add("2^20 and 1 segments", body(u32(160, 1<<20+1)), true)
	add("segment 0", body(u64(rootSize, 0)), true)
	add("segment of the future", body(u64(rootSize, 1<<40)), true)
	add("segment of unknown stream", body(at(rootSize+64, 9)), true)
	add("segment in unknown state", body(at(rootSize+65, 9)), true)
	add("segment with unknown flags", body(at(rootSize+66, 0xfe)), true)
	add("directory behind the end", body(u32(rootSize+12, 0xffffffc0)), true)
	add("length that is no frame's end", body(u32(rootSize+8, 7)), true)
	return out
}

var _ = seglog.MaxPayload
