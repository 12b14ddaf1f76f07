package management

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/snapstore/snapstore/manifest"
)

// What a module may be once it is decompressed, which is what it may be packed,
// how many globals it may have, and how much of it is looked at in lists.
const (
	maxPlainModule = 100 << 20
	maxGlobals     = 1000
	maxWasmItems   = 1_000_000
	wasmPage       = 64 << 10
	// instructionsPerByte stands for what compiling costs where no compiler
	// counts: 6,000 for each Wasm instruction, of about two bytes.
	instructionsPerByte = 3_000
)

var errWasm = errors.New("not a valid Wasm module")

// ParseModule reads from a module, which may be gzip, what its sections say:
// memory, globals, exports and custom sections. It checks the frame of the
// module, not its code.
func ParseModule(wasm []byte) (*Module, error) {
	if len(wasm) > 2 && wasm[0] == 0x1f && wasm[1] == 0x8b {
		z, err := gzip.NewReader(bytes.NewReader(wasm))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errWasm, err)
		}
		if wasm, err = io.ReadAll(io.LimitReader(z, maxPlainModule+1)); err != nil {
			return nil, fmt.Errorf("%w: %w", errWasm, err)
		}
	}
	if len(wasm) > maxPlainModule {
		return nil, fmt.Errorf("%w: more than %d bytes", errWasm, maxPlainModule)
	}
	r := wasmReader{b: wasm}
	if !bytes.Equal(r.take(8), []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, fmt.Errorf("%w: it does not begin as one", errWasm)
	}
	m := &Module{Instructions: mulBytes(uint64(len(wasm)), instructionsPerByte)}
	imported := uint64(0)
	var seen [256]bool
	for len(r.b) > 0 && r.err == nil {
		id := r.byte()
		if seen[id] && id != 0 {
			return nil, fmt.Errorf("section %d: %w: it is there twice", id, errWasm)
		}
		seen[id] = true
		body := wasmReader{b: r.take(r.u32())}
		switch id {
		case 0:
			name := string(body.take(body.u32()))
			if bytes.HasPrefix([]byte(name), []byte("icp:")) {
				m.CustomSections = addBytes(m.CustomSections, uint64(len(body.b)), uint64(len(name)))
			}
			body.b = nil
		case 2:
			imported = body.imports(m)
		case 5:
			for range body.count() {
				body.memory(m)
			}
		case 6:
			body.globals(m)
		case 7:
			body.exports(m, imported)
		default:
			body.b = nil
		}
		if body.err == nil && len(body.b) > 0 {
			body.fail()
		}
		if body.err != nil {
			return nil, fmt.Errorf("section %d: %w", id, body.err)
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}

// wasmReader reads from the front of b. Its first error stays.
type wasmReader struct {
	b   []byte
	err error
}

func (r *wasmReader) fail() {
	if r.err == nil {
		r.err = fmt.Errorf("%w: it ends too early, or says what can not be", errWasm)
	}
	r.b = nil
}

func (r *wasmReader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *wasmReader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *wasmReader) u32() uint32 {
	v := r.u64()
	if v > 1<<32-1 {
		r.fail()
		return 0
	}
	return uint32(v)
}

// u64 reads LEB128; signed ones are skipped the same way.
func (r *wasmReader) u64() uint64 {
	var v uint64
	for shift := 0; shift < 70; shift += 7 {
		b := r.byte()
		if r.err != nil {
			return 0
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.fail()
	return 0
}

// count is a length of a list; every item takes a byte at least.
func (r *wasmReader) count() uint32 {
	n := r.u32()
	if uint64(n) > uint64(len(r.b)) || n > maxWasmItems {
		r.fail()
		return 0
	}
	return n
}

func (r *wasmReader) limits() (flags byte, least uint64) {
	flags = r.byte()
	least = r.u64()
	if flags&1 != 0 {
		r.u64()
	}
	if flags&8 != 0 { // custom page size
		r.u32()
	}
	return flags, least
}

func (r *wasmReader) memory(m *Module) {
	flags, least := r.limits()
	m.Wasm64 = flags&4 != 0
	m.InitialMemory = mulBytes(least, wasmPage)
}

func (r *wasmReader) kind() GlobalKind {
	switch r.byte() {
	case 0x7f:
		return manifest.GlobalI32
	case 0x7e:
		return manifest.GlobalI64
	case 0x7d:
		return manifest.GlobalF32
	case 0x7c:
		return manifest.GlobalF64
	case 0x7b:
		return manifest.GlobalV128
	}
	return 0 // a reference, which no snapshot has
}

// imports skips them and counts the globals, which come first in numbering.
func (r *wasmReader) imports(m *Module) (globals uint64) {
	for range r.count() {
		r.take(r.u32())
		r.take(r.u32())
		switch r.byte() {
		case 0:
			r.u32()
		case 1:
			r.byte()
			r.limits()
		case 2:
			r.memory(m)
		case 3:
			r.kind()
			r.byte()
			globals++
		case 4:
			r.byte()
			r.u32()
		default:
			r.fail()
		}
		if r.err != nil {
			return globals
		}
	}
	return globals
}

func (r *wasmReader) globals(m *Module) {
	n := r.count()
	if n > maxGlobals {
		r.fail()
		return
	}
	for range n {
		g := GlobalType{Kind: r.kind(), Mutable: r.byte() == 1}
		r.constant()
		if r.err != nil {
			return
		}
		m.Globals = append(m.Globals, g)
	}
}

// constant skips an expression to its end.
func (r *wasmReader) constant() {
	for r.err == nil {
		switch r.byte() {
		case 0x0b:
			return
		case 0x41, 0x42, 0x23, 0xd2: // i32.const, i64.const, global.get, ref.func
			r.u64()
		case 0x43:
			r.take(4)
		case 0x44:
			r.take(8)
		case 0xd0: // ref.null
			r.u64()
		case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e: // extended constants
		case 0xfd:
			if r.u32() != 12 { // v128.const
				r.fail()
			}
			r.take(16)
		default:
			r.fail()
		}
	}
}

func (r *wasmReader) exports(m *Module, imported uint64) {
	for range r.count() {
		name := string(r.take(r.u32()))
		kind, i := r.byte(), uint64(r.u32())
		if r.err != nil {
			return
		}
		switch {
		case kind == 3 && i >= imported && i-imported < uint64(len(m.Globals)):
			m.Globals[i-imported].Exported = true
		case kind == 0 && name == "canister_on_low_wasm_memory":
			m.LowMemoryHook = true
		}
	}
}
