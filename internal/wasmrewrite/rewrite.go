package wasmrewrite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// ErrMalformed: the bytes are not a Wasm module of a kind that is understood.
var ErrMalformed = errors.New("malformed wasm module")

// Options of Rewrite. The zero value has defaults that clash with no module.
type Options struct {
	// Prefix of the names of exported globals; the index follows. The default
	// is what the Internet Computer uses.
	Prefix string
	// Start is the name under which the start function is exported; it is not
	// run by itself then. The default is canister_start.
	Start string
}

// Defaults of Options.
const (
	DefaultPrefix = "__persistent_mutable_global_"
	DefaultStart  = "canister_start"
)

// Type of a value, as modules encode it.
type Type byte

// The types that a global's value can be saved of.
const (
	I32  Type = 0x7f
	I64  Type = 0x7e
	F32  Type = 0x7d
	F64  Type = 0x7c
	V128 Type = 0x7b
)

// Global is a mutable global and the name that it is exported by.
type Global struct {
	Index uint32
	Type  Type
	Name  string
}

// Result of Rewrite.
type Result struct {
	Module  []byte
	Globals []Global // by index
	Start   string   // export of what was the start function; empty if there was none
}

// Sections of a module.
const (
	custom     = 0
	imports    = 2
	globals    = 6
	exports    = 7
	start      = 8
	lastKnown  = 13 // tags
	kindGlobal = 3
)

// order is where a section stands among the others: data count and tags have
// later numbers than they have places.
func order(id byte) int {
	switch id {
	case 12: // data count, before code
		return 9*2 + 1
	case 13: // tags, after memories
		return 5*2 + 1
	}
	return int(id) * 2
}

// Rewrite exports every mutable global and the start function.
func Rewrite(module []byte, o Options) (*Result, error) {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.Start == "" {
		o.Start = DefaultStart
	}
	m, err := parse(module)
	if err != nil {
		return nil, err
	}
	out := &Result{}
	var added []byte
	n := uint32(0)
	add := func(name string, kind byte, index uint32) error {
		if m.names[name] {
			return fmt.Errorf("%w: it exports %q already", ErrMalformed, name)
		}
		m.names[name] = true
		added = binary.AppendUvarint(added, uint64(len(name)))
		added = append(added, name...)
		added = append(added, kind)
		added = binary.AppendUvarint(added, uint64(index))
		n++
		return nil
	}
	for i, g := range m.globals {
		if !g.mutable {
			continue
		}
		index := uint32(i)
		switch g.typ {
		case I32, I64, F32, F64, V128:
		default:
			return nil, fmt.Errorf("%w: mutable global %d holds a reference, which can not be saved", ErrMalformed, i)
		}
		name, ok := m.exported[index]
		if !ok {
			name = o.Prefix + strconv.FormatUint(uint64(index), 10)
			if err := add(name, kindGlobal, index); err != nil {
				return nil, err
			}
		}
		out.Globals = append(out.Globals, Global{index, g.typ, name})
	}
	if m.start != nil {
		if err := add(o.Start, 0, *m.start); err != nil {
			return nil, err
		}
		out.Start = o.Start
	}
	out.Module = m.encode(module, n, added)
	return out, nil
}

type section struct {
	id   byte
	body []byte
}

type global struct {
	typ     Type
	mutable bool
}

type module struct {
	sections []section
	globals  []global
	exported map[uint32]string // globals by index
	names    map[string]bool
	exports  []byte // entries as they are
	count    uint32
	start    *uint32
}

const header = "\x00asm\x01\x00\x00\x00"

func parse(b []byte) (*module, error) {
	r := &reader{b: b}
	if string(r.take(8)) != header {
		return nil, fmt.Errorf("%w: it does not begin as one", ErrMalformed)
	}
	m := &module{exported: map[uint32]string{}, names: map[string]bool{}}
	last := 0
	for len(r.b) > 0 && !r.bad {
		s := section{id: r.byte()}
		s.body = r.take(r.u32())
		if s.id != custom {
			if s.id > lastKnown || order(s.id) <= last {
				return nil, fmt.Errorf("%w: section %d out of place", ErrMalformed, s.id)
			}
			last = order(s.id)
		}
		m.sections = append(m.sections, s)
		body := &reader{b: s.body}
		switch s.id {
		case imports:
			body.list(func() { m.imported(body) })
		case globals:
			body.list(func() {
				m.globals = append(m.globals, body.globalType())
				body.expression()
			})
		case exports:
			m.count = body.u32()
			m.exports = body.b
			for i := uint32(0); i < m.count && !body.bad; i++ {
				name := string(body.take(body.u32()))
				kind, index := body.byte(), body.u32()
				m.names[name] = true
				if kind == kindGlobal {
					m.exported[index] = name
				}
			}
		case start:
			f := body.u32()
			m.start = &f
		default:
			body.b = nil
		}
		if body.bad || len(body.b) > 0 {
			return nil, fmt.Errorf("%w: section %d", ErrMalformed, s.id)
		}
	}
	if r.bad {
		return nil, fmt.Errorf("%w: it ends early", ErrMalformed)
	}
	return m, nil
}

// imported reads an import and keeps it if it is a global.
func (m *module) imported(r *reader) {
	r.take(r.u32())
	r.take(r.u32())
	switch r.byte() {
	case 0: // function
		r.u32()
	case 1: // table
		r.byte()
		r.limits()
	case 2: // memory
		r.limits()
	case kindGlobal:
		m.globals = append(m.globals, r.globalType())
	case 4: // tag
		r.byte()
		r.u32()
	default:
		r.bad = true
	}
}

// encode writes the module with n more exports, and without its start section
// when that was exported.
func (m *module) encode(was []byte, n uint32, added []byte) []byte {
	list := binary.AppendUvarint(nil, uint64(m.count)+uint64(n))
	list = slices.Concat(list, m.exports, added)
	out := make([]byte, 0, len(was)+len(added)+16)
	out = append(out, header...)
	write := func(id byte, body []byte) {
		out = append(out, id)
		out = binary.AppendUvarint(out, uint64(len(body)))
		out = append(out, body...)
	}
	done := n == 0
	for _, s := range m.sections {
		if !done && s.id != custom && order(s.id) >= order(exports) {
			write(exports, list)
			done = true
		}
		if s.id == start || n > 0 && s.id == exports {
			continue
		}
		write(s.id, s.body)
	}
	if !done {
		write(exports, list)
	}
	return out
}
