package guesttest

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/snapstore/snapstore/engine"
)

// storesModule writes its generator's state at addresses drawn from it, over
// all of its memory. The state is a global that it does not export.
func storesModule() []byte {
	sleb := func(v int64) []byte {
		var out []byte
		for {
			b := byte(v & 0x7f)
			v >>= 7
			if v == 0 && b&0x40 == 0 || v == -1 && b&0x40 != 0 {
				return append(out, b)
			}
			out = append(out, b|0x80)
		}
	}
	section := func(id byte, parts ...[]byte) []byte {
		body := bytes.Join(parts, nil)
		return append(binary.AppendUvarint([]byte{id}, uint64(len(body))), body...)
	}
	body := func(code ...[]byte) []byte {
		b := append([]byte{0}, bytes.Join(code, nil)...)
		return append(binary.AppendUvarint(nil, uint64(len(b))), b...)
	}
	export := func(name string, kind, index byte) []byte {
		return append(append([]byte{byte(len(name))}, name...), kind, index)
	}
	const (
		block, loop, end, br, brIf       = 0x02, 0x03, 0x0b, 0x0c, 0x0d
		localGet, localSet               = 0x20, 0x21
		globalGet, globalSet             = 0x23, 0x24
		i64Store                         = 0x37
		memorySize, memoryGrow           = 0x3f, 0x40
		i32Const, i64Const               = 0x41, 0x42
		i32Eqz, i32Sub                   = 0x45, 0x6b
		i64Add, i64Sub, i64Mul           = 0x7c, 0x7d, 0x7e
		i64RemU, i64ShrU                 = 0x82, 0x88
		i32WrapI64, i64ExtendI32U, empty = 0xa7, 0xad, 0x40
		i32, i64                         = 0x7f, 0x7e
	)
	run := body(
		[]byte{block, empty, loop, empty, localGet, 0, i32Eqz, brIf, 1},
		[]byte{globalGet, 0, i64Const}, sleb(6364136223846793005), []byte{i64Mul, i64Const}, sleb(1442695040888963407), []byte{i64Add, globalSet, 0},
		[]byte{globalGet, 0, i64Const, 33, i64ShrU},
		[]byte{memorySize, 0, i64ExtendI32U, i64Const}, sleb(wasmPage), []byte{i64Mul, i64Const, 8, i64Sub, i64RemU, i32WrapI64},
		[]byte{globalGet, 0, i64Store, 0, 0},
		[]byte{localGet, 0, i32Const, 1, i32Sub, localSet, 0, br, 0, end, end, end},
	)
	grow := body([]byte{localGet, 0, memoryGrow, 0, end})
	return bytes.Join([][]byte{
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, []byte{2, 0x60, 1, i32, 0, 0x60, 1, i32, 1, i32}),
		section(3, []byte{2, 0, 1}),
		section(5, []byte{1, 1, 4}, binary.AppendUvarint(nil, 1000)),
		section(6, []byte{1, i64, 1, i64Const, 42, end}),
		section(7, []byte{2}, export("run", 0, 0), export("grow", 0, 1)),
		section(10, []byte{2}, run, grow),
		section(11, []byte{1, 0, i32Const, 0xe4, 0, end, 5, 'h', 'e', 'l', 'l', 'o'}),
	}, nil)
}

// Every snapshot of a guest that stores all over its memory and grows is its
// memory byte for byte.
func TestStores(t *testing.T) {
	t.Parallel()
	inModes(t, func(t *testing.T, mode engine.TrackingMode) {
		e := store(t, mode)
		p := compile(t, storesModule(), nil)
		g := p.run(t, canister(t, e, 1))
		rounds := 200
		if testing.Short() {
			rounds = 30
		}
		var last engine.SnapshotID
		var was []byte
		for round := range rounds {
			g.must(t, "run", 50)
			if round%20 == 19 {
				g.must(t, "grow", 3)
			}
			res, err := g.c.Take(bg, engine.TakeOptions{Replace: last})
			if err != nil {
				t.Fatal(err)
			}
			last = res.ID
			now := g.borrow.Bytes()
			changed := uint64(0)
			for off := 0; off < len(now); off += engine.PageSize {
				if off >= len(was) || !bytes.Equal(was[off:off+engine.PageSize], now[off:off+engine.PageSize]) {
					if off < len(was) || !bytes.Equal(now[off:off+engine.PageSize], make([]byte, engine.PageSize)) {
						changed++
					}
				}
			}
			if round > 0 && mode == engine.TrackKernel && res.Pages.Pages > changed {
				t.Errorf("round %d: %d pages were taken, %d changed", round, res.Pages.Pages, changed)
			}
			was = bytes.Clone(now)
			snap, err := e.Snapshot(bg, last)
			if err != nil {
				t.Fatal(err)
			}
			r, err := snap.Section(engine.WasmMemory)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if _, err := r.WriteTo(&got); err != nil {
				t.Fatal(err)
			}
			snap.Close()
			if !bytes.Equal(got.Bytes(), now) {
				t.Fatalf("round %d: the snapshot is not the memory", round)
			}
		}
	})
}

func TestRestoreStores(t *testing.T) {
	t.Parallel()
	inModes(t, func(t *testing.T, mode engine.TrackingMode) {
		restores(t, mode, compile(t, storesModule(), nil), func(*guest) {}, func(g *guest, i int) error {
			if i%4 == 3 {
				if _, err := g.call("grow", 2); err != nil {
					return err
				}
			}
			_, err := g.call("run", 300)
			return err
		}, 7, 15)
	})
}
