package candid

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
)

// decoder reads the values of a message.
type decoder struct {
	reader
	*header
	limits  Limits
	decoded int // what is left of Limits.Decoded
	skipped int // what is left of Limits.Skipped
	// inOpt is how many opts the value is in: a type error there is silent.
	inOpt int
}

// Unmarshal reads a message into args, which are pointers. A message may have
// more arguments than args, or fewer when the missing ones are opt, null or
// reserved. On an error, which is an *Error, no argument is changed.
func Unmarshal(data []byte, o Limits, args ...any) error {
	if err := o.Validate(); err != nil {
		return &Error{Offset: -1, Err: err}
	}
	types := make(goTypes)
	want := make([]*goType, len(args))
	for i, arg := range args {
		rv := reflect.ValueOf(arg)
		if rv.Kind() != reflect.Pointer || rv.IsNil() {
			return within(unsupported("%T: give a pointer to the value", arg), "", argument(i))
		}
		g, err := types.of(rv.Type().Elem())
		if err != nil {
			return within(err, "", argument(i))
		}
		want[i] = g
	}

	d := &decoder{reader: reader{data: data}, limits: o.resolve()}
	d.decoded, d.skipped = d.limits.Decoded, d.limits.Skipped
	var err error
	if d.header, err = readHeader(&d.reader, d.limits); err != nil {
		return err
	}
	values := make([]reflect.Value, len(args))
	for i, g := range want {
		values[i] = reflect.New(g.rt).Elem()
		if i < len(d.args) {
			err = d.value(g, values[i], d.args[i], 1)
		} else if !g.op.nullable() {
			err = d.fail(ErrType, "missing, and the message has %d arguments", len(d.args))
		}
		if err != nil {
			return within(err, "", argument(i))
		}
	}
	for i := len(want); i < len(d.args); i++ {
		if err := d.skip(d.args[i], 1); err != nil {
			return within(err, "", argument(i))
		}
	}
	if d.left() != 0 {
		return d.fail(ErrMalformed, "%d bytes after the last value", d.left())
	}
	for i, arg := range args {
		reflect.ValueOf(arg).Elem().Set(values[i])
	}
	return nil
}

func argument(i int) string { return fmt.Sprintf("argument %d", i) }

// value reads a value of type t into v, which is zero.
func (d *decoder) value(g *goType, v reflect.Value, t typeRef, depth int) error {
	if depth > d.limits.Depth {
		return d.tooDeep()
	}
	if err := d.charge(valueCost); err != nil {
		return err
	}
	op := d.op(t)
	switch {
	case g.op == opReserved:
		return d.skip(t, depth)
	case op == opEmpty:
		return d.emptyValue()
	case g.op == opOpt:
		return d.opt(g, v, t, depth)
	case g.op == opInt && op == opNat, g.op == opPrincipal && op == opService:
		// Subtypes.
	case g.op != op:
		return d.mismatch("%v where %v is expected", op, g.op)
	}
	switch op {
	case opNull:
		return nil
	case opBool:
		b, err := d.flag("a bool")
		v.SetBool(b)
		return err
	case opNat, opInt:
		return d.number(g, v, op)
	case opText:
		return d.readText(v)
	case opPrincipal, opService:
		b, err := d.principal()
		if err != nil {
			return err
		}
		return d.setBytes(v, b)
	case opVec:
		return d.vec(g, v, d.types[t].elem, depth)
	case opRecord:
		return d.record(g, v, t, depth)
	case opVariant:
		return d.variant(g, v, t, depth)
	default:
		x, err := d.fixed(op.size())
		if err == nil {
			setFixed(v, op, x)
		}
		return err
	}
}

// opt reads what may be missing into a pointer. What does not fit is nil.
func (d *decoder) opt(g *goType, v reflect.Value, t typeRef, depth int) error {
	switch d.op(t) {
	case opNull, opReserved:
		return nil
	case opOpt:
		some, err := d.flag("the tag of an opt")
		if err != nil || !some {
			return err
		}
		t = d.types[t].elem
	default:
		// A value that is no opt stands for itself.
	}
	start := d.pos
	if err := d.charge(int(g.elem.rt.Size())); err != nil {
		return err
	}
	p := reflect.New(g.elem.rt)
	d.inOpt++
	err := d.value(g.elem, p.Elem(), t, depth+1)
	d.inOpt--
	switch {
	case err == nil:
		v.Set(p)
		return nil
	case errors.Is(err, errMismatch):
		d.pos = start
		return d.skip(t, depth+1)
	default:
		return err
	}
}

// record reads a record. Both lists of fields are sorted by id.
func (d *decoder) record(g *goType, v reflect.Value, t typeRef, depth int) error {
	have, want := d.types[t].fields, g.fields
	for len(have) > 0 || len(want) > 0 {
		switch {
		case len(want) == 0 || len(have) > 0 && have[0].id < want[0].id:
			if err := d.skip(have[0].typ, depth+1); err != nil {
				return err
			}
			have = have[1:]
		case len(have) == 0 || want[0].id < have[0].id:
			if !want[0].typ.op.nullable() {
				return d.mismatch("a record without the field %q", want[0].label)
			}
			want = want[1:]
		default:
			if err := d.value(want[0].typ, v.Field(want[0].index), have[0].typ, depth+1); err != nil {
				return within(err, ".", want[0].label)
			}
			have, want = have[1:], want[1:]
		}
	}
	return nil
}

func (d *decoder) variant(g *goType, v reflect.Value, t typeRef, depth int) error {
	have, err := d.variantCase(t)
	if err != nil {
		return err
	}
	f, ok := g.find(have.id)
	if !ok {
		return d.mismatch("a variant of the unknown case %d", have.id)
	}
	if err := d.charge(int(f.typ.rt.Size())); err != nil {
		return err
	}
	p := reflect.New(f.typ.rt)
	if err := d.value(f.typ, p.Elem(), have.typ, depth+1); err != nil {
		return within(err, ".", f.label)
	}
	v.Field(f.index).Set(p)
	return nil
}

// variantCase reads which of its type's cases a variant is.
func (d *decoder) variantCase(t typeRef) (wireField, error) {
	i, err := d.uleb()
	if err != nil {
		return wireField{}, err
	}
	cases := d.types[t].fields
	if i >= uint64(len(cases)) {
		return wireField{}, d.fail(ErrMalformed, "case %d of a variant with %d", i, len(cases))
	}
	return cases[i], nil
}

func (d *decoder) vec(g *goType, v reflect.Value, elem typeRef, depth int) error {
	n, err := d.vecLen(elem)
	if err != nil || n == 0 {
		return err
	}
	if g.blob && d.op(elem) == opNat8 {
		b, err := d.bytes(n)
		if err != nil {
			return err
		}
		return d.setBytes(v, b)
	}
	size := int(g.elem.rt.Size())
	// The list is as long as there is room: twice what has arrived.
	list := reflect.MakeSlice(g.rt, int(min(4, n)), int(min(4, n)))
	for i := range n {
		if err := d.charge(size); err != nil {
			return err
		}
		if i == uint64(list.Len()) {
			room := int(min(2*i, n))
			bigger := reflect.MakeSlice(g.rt, room, room)
			reflect.Copy(bigger, list)
			list = bigger
		}
		if err := d.value(g.elem, list.Index(int(i)), elem, depth+1); err != nil {
			return d.withinIndex(i, err)
		}
	}
	v.Set(list)
	return nil
}

// vecLen reads a vec's length. Where all elements have the same size, their
// bytes are there.
func (d *decoder) vecLen(elem typeRef) (uint64, error) {
	n, err := d.uleb()
	if err != nil {
		return 0, err
	}
	if size := d.op(elem).size(); size > 0 && n > uint64(d.left()/size) {
		return 0, d.fail(ErrMalformed, "it ends too early: %d elements announced, %d bytes are left", n, d.left())
	}
	return n, nil
}

func (d *decoder) number(g *goType, v reflect.Value, op opcode) error {
	b, err := d.leb(d.limits.NumberBytes)
	if err != nil {
		return err
	}
	// A big.Int and its words.
	if err := d.charge(32 + len(b)); err != nil {
		return err
	}
	var x *big.Int
	if op == opNat {
		x = unsignedLEB(b)
	} else {
		x = signedLEB(b)
	}
	if g.op == opNat {
		v.Set(reflect.ValueOf(Nat{v: x}))
	} else {
		v.Set(reflect.ValueOf(Int{v: x}))
	}
	return nil
}

func (d *decoder) readText(v reflect.Value) error {
	b, err := d.text()
	if err != nil {
		return err
	}
	if err := d.charge(len(b)); err != nil {
		return err
	}
	v.SetString(string(b))
	return nil
}

// setBytes makes the one copy of a blob or a principal.
func (d *decoder) setBytes(v reflect.Value, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := d.charge(len(b)); err != nil {
		return err
	}
	// Clone would round the capacity up.
	c := make([]byte, len(b))
	copy(c, b)
	v.SetBytes(c)
	return nil
}

func setFixed(v reflect.Value, op opcode, x uint64) {
	switch op {
	case opInt8:
		v.SetInt(int64(int8(x)))
	case opInt16:
		v.SetInt(int64(int16(x)))
	case opInt32:
		v.SetInt(int64(int32(x)))
	case opInt64:
		v.SetInt(int64(x))
	case opFloat32:
		// Not through float64, which would change the bits of some NaNs.
		v.Set(reflect.ValueOf(math.Float32frombits(uint32(x))).Convert(v.Type()))
	case opFloat64:
		v.SetFloat(math.Float64frombits(x))
	default:
		v.SetUint(x)
	}
}

// charge takes n off the budget for what is returned.
func (d *decoder) charge(n int) error {
	if n > d.decoded {
		return d.fail(ErrLimit, "more than %d bytes decoded", d.limits.Decoded)
	}
	d.decoded -= n
	return nil
}

// mismatch says that a value is not of the type wanted.
func (d *decoder) mismatch(format string, args ...any) error {
	if d.inOpt > 0 {
		return errMismatch
	}
	return d.fail(ErrType, format, args...)
}

func (d *decoder) withinIndex(i uint64, err error) error {
	if errors.Is(err, errMismatch) {
		return err
	}
	return within(err, "", fmt.Sprintf("[%d]", i))
}

func (d *decoder) tooDeep() error {
	return d.fail(ErrLimit, "values nested deeper than %d", d.limits.Depth)
}

func (d *decoder) emptyValue() error {
	return d.fail(ErrMalformed, "a value of type empty")
}
