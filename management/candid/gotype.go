package candid

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
)

// goType is what a Go type stands for.
type goType struct {
	op   opcode
	rt   reflect.Type
	elem *goType // of an opt or a vec
	// blob: a slice of bytes, which is a vec of nat8.
	blob bool
	// fields of a record, or cases of a variant, by id.
	fields []goField
}

// goField is a field of a struct. In a variant, typ is what it points to.
type goField struct {
	id    uint32
	index int
	label string
	typ   *goType
}

// find returns the field of that id.
func (g *goType) find(id uint32) (goField, bool) {
	i, ok := slices.BinarySearchFunc(g.fields, id, func(f goField, id uint32) int { return cmp.Compare(f.id, id) })
	if !ok {
		return goField{}, false
	}
	return g.fields[i], true
}

// goTypes holds each Go type once, which is what makes types that contain
// themselves finite.
type goTypes map[reflect.Type]*goType

func (ts goTypes) of(rt reflect.Type) (*goType, error) {
	if g := ts[rt]; g != nil {
		return g, nil
	}
	g := &goType{rt: rt}
	ts[rt] = g
	var err error
	switch rt {
	case reflect.TypeFor[Null]():
		g.op = opNull
	case reflect.TypeFor[Reserved]():
		g.op = opReserved
	case reflect.TypeFor[Empty]():
		g.op = opEmpty
	case reflect.TypeFor[Principal]():
		g.op = opPrincipal
	case reflect.TypeFor[Nat]():
		g.op = opNat
	case reflect.TypeFor[Int]():
		g.op = opInt
	default:
		err = ts.byKind(g)
	}
	return g, err
}

func (ts goTypes) byKind(g *goType) (err error) {
	switch g.rt.Kind() {
	case reflect.Bool:
		g.op = opBool
	case reflect.Uint8:
		g.op = opNat8
	case reflect.Uint16:
		g.op = opNat16
	case reflect.Uint32:
		g.op = opNat32
	case reflect.Uint64:
		g.op = opNat64
	case reflect.Int8:
		g.op = opInt8
	case reflect.Int16:
		g.op = opInt16
	case reflect.Int32:
		g.op = opInt32
	case reflect.Int64:
		g.op = opInt64
	case reflect.Float32:
		g.op = opFloat32
	case reflect.Float64:
		g.op = opFloat64
	case reflect.String:
		g.op = opText
	case reflect.Pointer:
		g.op = opOpt
		g.elem, err = ts.of(g.rt.Elem())
	case reflect.Slice:
		g.op = opVec
		g.blob = g.rt.Elem().Kind() == reflect.Uint8
		g.elem, err = ts.of(g.rt.Elem())
		err = within(err, "", "[]")
	case reflect.Struct:
		g.op = opRecord
		err = ts.fields(g)
	case reflect.Int, reflect.Uint:
		err = unsupported("%v: use a type of fixed size, or Nat or Int", g.rt)
	default:
		err = unsupported("%v", g.rt)
	}
	return err
}

func (ts goTypes) fields(g *goType) error {
	for i := range g.rt.NumField() {
		if f := g.rt.Field(i); f.Anonymous && f.Type == reflect.TypeFor[Variant]() {
			g.op = opVariant
		}
	}
	for i := range g.rt.NumField() {
		f := g.rt.Field(i)
		label, tagged := f.Tag.Lookup("candid")
		switch {
		case f.Anonymous && f.Type == reflect.TypeFor[Variant](), label == "-":
			continue
		case !tagged:
			return unsupported(`field %s of %v: tag it with its label, or "-"`, f.Name, g.rt)
		case !f.IsExported():
			return unsupported("field %s of %v: export it", f.Name, g.rt)
		}
		id, err := labelID(label)
		if err != nil {
			return unsupported("field %s of %v: %v", f.Name, g.rt, err)
		}
		rt := f.Type
		if g.op == opVariant {
			if rt.Kind() != reflect.Pointer {
				return unsupported("case %s of %v: make it a pointer", f.Name, g.rt)
			}
			rt = rt.Elem()
		}
		typ, err := ts.of(rt)
		if err != nil {
			return within(err, ".", label)
		}
		g.fields = append(g.fields, goField{id: id, index: i, label: label, typ: typ})
	}
	slices.SortFunc(g.fields, func(a, b goField) int { return cmp.Compare(a.id, b.id) })
	for i := 1; i < len(g.fields); i++ {
		if a, b := g.fields[i-1], g.fields[i]; a.id == b.id {
			return unsupported("%v: the labels %q and %q have the same id %d", g.rt, a.label, b.label, a.id)
		}
	}
	return nil
}

// labelID returns the id of a label: the number that it is, or its hash.
func labelID(label string) (uint32, error) {
	if label == "" {
		return 0, fmt.Errorf("an empty label; give a name")
	}
	if label[0] >= '0' && label[0] <= '9' {
		id, err := strconv.ParseUint(label, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("label %q: a label that begins with a digit is a number below 2^32", label)
		}
		return uint32(id), nil
	}
	var id uint32
	for i := range len(label) {
		id = id*223 + uint32(label[i])
	}
	return id, nil
}

func unsupported(format string, args ...any) error {
	return &Error{Offset: -1, Err: fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, args...))}
}
