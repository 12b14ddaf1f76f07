package candid

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"unicode/utf8"
)

// Marshal returns the message with args. A pointer among them is an opt. The
// message declares the types as Go has them, all cases of variants included.
// An error is an *Error.
//
// Values may nest DefaultDepth deep, so that pointers in a circle end in
// ErrLimit.
func Marshal(args ...any) ([]byte, error) {
	types := make(goTypes)
	have := make([]*goType, len(args))
	e := &encoder{index: make(map[*goType]int), blob: -1}
	for i, arg := range args {
		if arg == nil {
			return nil, encoding(within(unsupported("nil: give a Null or a typed pointer"), "", argument(i)))
		}
		g, err := types.of(reflect.TypeOf(arg))
		if err != nil {
			return nil, encoding(within(err, "", argument(i)))
		}
		have[i] = g
		e.enter(g)
	}
	e.header(have)
	for i, arg := range args {
		if err := e.value(have[i], reflect.ValueOf(arg), 1); err != nil {
			return nil, encoding(within(err, "", argument(i)))
		}
	}
	return e.buf, nil
}

// encoding marks an error as one of Marshal.
func encoding(err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.encoding = true
	}
	return err
}

// encoder writes a message. It is filled in the order of the message: types
// are entered, the header is written, then the values.
type encoder struct {
	buf   []byte
	table []*goType
	index map[*goType]int
	blob  int // the one entry for all Go types that are blobs, or -1
}

// enter gives a type and those it is made of their entries in the table.
func (e *encoder) enter(g *goType) {
	if g.op.primitive() {
		return
	}
	if _, ok := e.index[g]; ok {
		return
	}
	if g.blob && e.blob >= 0 {
		e.index[g] = e.blob
		return
	}
	e.index[g] = len(e.table)
	if g.blob {
		e.blob = len(e.table)
	}
	e.table = append(e.table, g)
	if g.elem != nil {
		e.enter(g.elem)
	}
	for _, f := range g.fields {
		e.enter(f.typ)
	}
}

func (e *encoder) header(args []*goType) {
	e.buf = append(e.buf, "DIDL"...)
	e.uleb(uint64(len(e.table)))
	for _, g := range e.table {
		e.buf = appendSLEB(e.buf, int64(g.op))
		if g.elem != nil {
			e.ref(g.elem)
			continue
		}
		e.uleb(uint64(len(g.fields)))
		for _, f := range g.fields {
			e.uleb(uint64(f.id))
			e.ref(f.typ)
		}
	}
	e.uleb(uint64(len(args)))
	for _, g := range args {
		e.ref(g)
	}
}

// ref writes the name of a type.
func (e *encoder) ref(g *goType) {
	if g.op.primitive() {
		e.buf = appendSLEB(e.buf, int64(g.op))
		return
	}
	e.buf = appendSLEB(e.buf, int64(e.index[g]))
}

func (e *encoder) value(g *goType, v reflect.Value, depth int) error {
	if depth > DefaultDepth {
		return encodeError(ErrLimit, "values nested deeper than %d, or in a circle", DefaultDepth)
	}
	switch g.op {
	case opNull, opReserved:
		return nil
	case opEmpty:
		return encodeError(ErrType, "there is no value of type empty")
	case opBool:
		b := byte(0)
		if v.Bool() {
			b = 1
		}
		e.buf = append(e.buf, b)
		return nil
	case opNat:
		n, _ := v.Interface().(Nat)
		e.buf = appendUnsigned(e.buf, orZero(n.v))
		return nil
	case opInt:
		n, _ := v.Interface().(Int)
		e.buf = appendSigned(e.buf, orZero(n.v))
		return nil
	case opText:
		s := v.String()
		if !utf8.ValidString(s) {
			return encodeError(ErrType, "text that is not UTF-8")
		}
		e.uleb(uint64(len(s)))
		e.buf = append(e.buf, s...)
		return nil
	case opPrincipal:
		if v.Len() > MaxPrincipal {
			return encodeError(ErrType, "a principal of %d bytes, more than %d", v.Len(), MaxPrincipal)
		}
		e.buf = append(e.buf, 1)
		e.bytes(v)
		return nil
	case opOpt:
		if v.IsNil() {
			e.buf = append(e.buf, 0)
			return nil
		}
		e.buf = append(e.buf, 1)
		return e.value(g.elem, v.Elem(), depth+1)
	case opVec:
		if g.blob {
			e.bytes(v)
			return nil
		}
		return e.vec(g, v, depth)
	case opRecord:
		for _, f := range g.fields {
			if err := e.value(f.typ, v.Field(f.index), depth+1); err != nil {
				return within(err, ".", f.label)
			}
		}
		return nil
	case opVariant:
		return e.variant(g, v, depth)
	default:
		e.fixed(g.op, v)
		return nil
	}
}

func (e *encoder) vec(g *goType, v reflect.Value, depth int) error {
	e.uleb(uint64(v.Len()))
	for i := range v.Len() {
		if err := e.value(g.elem, v.Index(i), depth+1); err != nil {
			return within(err, "", fmt.Sprintf("[%d]", i))
		}
	}
	return nil
}

func (e *encoder) variant(g *goType, v reflect.Value, depth int) error {
	set := -1
	for i, f := range g.fields {
		if v.Field(f.index).IsNil() {
			continue
		}
		if set >= 0 {
			return encodeError(ErrType, "a variant that is both %q and %q", g.fields[set].label, f.label)
		}
		set = i
	}
	if set < 0 {
		return encodeError(ErrType, "a variant of no case: set one of the fields of %v", g.rt)
	}
	f := g.fields[set]
	e.uleb(uint64(set))
	if err := e.value(f.typ, v.Field(f.index).Elem(), depth+1); err != nil {
		return within(err, ".", f.label)
	}
	return nil
}

// bytes writes a blob.
func (e *encoder) bytes(v reflect.Value) {
	e.uleb(uint64(v.Len()))
	e.buf = append(e.buf, v.Bytes()...)
}

func (e *encoder) fixed(op opcode, v reflect.Value) {
	var x uint64
	switch op {
	case opInt8, opInt16, opInt32, opInt64:
		x = uint64(v.Int())
	case opFloat32:
		// Not through float64, which would change the bits of some NaNs.
		f, _ := v.Convert(reflect.TypeFor[float32]()).Interface().(float32)
		x = uint64(math.Float32bits(f))
	case opFloat64:
		x = math.Float64bits(v.Float())
	default:
		x = v.Uint()
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], x)
	e.buf = append(e.buf, b[:op.size()]...)
}

func (e *encoder) uleb(x uint64) { e.buf = binary.AppendUvarint(e.buf, x) }

func appendSLEB(b []byte, x int64) []byte {
	for {
		c := byte(x & 0x7f)
		x >>= 7
		if x == 0 && c&0x40 == 0 || x == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func appendUnsigned(b []byte, x *big.Int) []byte {
	if x.IsUint64() {
		return binary.AppendUvarint(b, x.Uint64())
	}
	return appendGroups(b, x, (x.BitLen()+6)/7)
}

func appendSigned(b []byte, x *big.Int) []byte {
	if x.IsInt64() {
		return appendSLEB(b, x.Int64())
	}
	// As many groups of 7 bits as hold the number and its sign; a negative
	// one is written as what it is modulo the power of two above them.
	bits := x.BitLen()
	if x.Sign() < 0 {
		bits = new(big.Int).Not(x).BitLen()
	}
	groups := (bits + 1 + 6) / 7
	if x.Sign() < 0 {
		x = new(big.Int).Add(x, new(big.Int).Lsh(big.NewInt(1), uint(7*groups)))
	}
	return appendGroups(b, x, groups)
}

// appendGroups writes n groups of 7 bits, the lowest first.
func appendGroups(b []byte, x *big.Int, n int) []byte {
	raw := x.Bytes()
	var acc uint64
	var bits int
	for i := range n {
		for bits < 7 && len(raw) > 0 {
			acc |= uint64(raw[len(raw)-1]) << bits
			raw = raw[:len(raw)-1]
			bits += 8
		}
		c := byte(acc & 0x7f)
		acc >>= 7
		bits -= 7
		if i < n-1 {
			c |= 0x80
		}
		b = append(b, c)
	}
	return b
}

func encodeError(kind error, format string, args ...any) error {
	return &Error{Offset: -1, Err: fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))}
}
