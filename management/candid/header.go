package candid

import (
	"bytes"
	"math"
)

// typeRef names a type of the message: a primitive opcode, or an entry of the
// type table.
type typeRef int32

// wireType is an entry of the type table. fields are a range of header.fields.
type wireType struct {
	op     opcode
	elem   typeRef
	fields []wireField
}

type wireField struct {
	id  uint32
	typ typeRef
}

// header is what stands before the values. It is complete: every typeRef is
// in range, fields are sorted, methods are functions.
type header struct {
	types []wireType
	args  []typeRef
}

// op returns the constructor of a type.
func (h *header) op(t typeRef) opcode {
	if t < 0 {
		return opcode(t)
	}
	return h.types[t].op
}

// headerReader counts what Limits.Fields bounds.
type headerReader struct {
	*reader
	limits  Limits
	fields  int // left to use
	entries int // of the table
	// methods are types that must turn out to be functions.
	methods []typeRef
}

func readHeader(r *reader, limits Limits) (*header, error) {
	magic, err := r.bytes(4)
	if err != nil || !bytes.Equal(magic, []byte("DIDL")) {
		r.pos = 0
		return nil, r.fail(ErrMalformed, "it does not begin with DIDL")
	}
	hr := &headerReader{reader: r, limits: limits, fields: limits.Fields}
	n, err := r.uleb()
	if err != nil {
		return nil, err
	}
	if n > uint64(limits.Types) {
		return nil, r.fail(ErrLimit, "%d table entries, at most %d", n, limits.Types)
	}
	hr.entries = int(n)
	h := &header{}
	for range hr.entries {
		t, err := hr.entry()
		if err != nil {
			return nil, err
		}
		h.types = append(h.types, t)
	}
	for _, m := range hr.methods {
		if op := h.op(m); op != opFunc {
			return nil, r.fail(ErrMalformed, "a method of type %v", op)
		}
	}
	h.args, err = hr.list("argument")
	return h, err
}

// entry reads one entry of the type table.
func (r *headerReader) entry() (wireType, error) {
	code, err := r.sleb()
	if err != nil {
		return wireType{}, err
	}
	if code < int64(opPrincipal) {
		n, err := r.uleb()
		if err != nil {
			return wireType{}, err
		}
		_, err = r.bytes(n)
		return wireType{op: opFuture}, err
	}
	if code >= 0 || opcode(code).primitive() {
		return wireType{}, r.fail(ErrMalformed, "type %d in the type table", code)
	}
	t := wireType{op: opcode(code)}
	switch t.op {
	case opOpt, opVec:
		t.elem, err = r.ref()
	case opRecord, opVariant:
		t.fields, err = r.recordFields()
	case opFunc:
		err = r.function()
	default:
		err = r.service()
	}
	return t, err
}

// ref reads the name of a type.
func (r *headerReader) ref() (typeRef, error) {
	code, err := r.sleb()
	switch {
	case err != nil:
		return 0, err
	case code >= int64(r.entries):
		return 0, r.fail(ErrMalformed, "type %d, and the table has %d", code, r.entries)
	case code < int64(opPrincipal), code < 0 && !opcode(code).primitive():
		return 0, r.fail(ErrMalformed, "type %d outside the type table", code)
	}
	return typeRef(code), nil
}

// count reads how many things follow, and takes them off Limits.Fields.
func (r *headerReader) count(what string) (int, error) {
	n, err := r.uleb()
	if err != nil {
		return 0, err
	}
	if n > uint64(r.fields) {
		return 0, r.fail(ErrLimit, "%d %ss, at most %d fields and arguments in all", n, what, r.limits.Fields)
	}
	r.fields -= int(n)
	return int(n), nil
}

func (r *headerReader) recordFields() ([]wireField, error) {
	n, err := r.count("field")
	if err != nil {
		return nil, err
	}
	var fields []wireField
	for i := range n {
		id, err := r.uleb()
		if err != nil {
			return nil, err
		}
		if id > math.MaxUint32 {
			return nil, r.fail(ErrMalformed, "field id %d of more than 32 bits", id)
		}
		if i > 0 && uint32(id) <= fields[i-1].id {
			return nil, r.fail(ErrMalformed, "field id %d after %d", id, fields[i-1].id)
		}
		t, err := r.ref()
		if err != nil {
			return nil, err
		}
		fields = append(fields, wireField{id: uint32(id), typ: t})
	}
	return fields, nil
}

func (r *headerReader) list(what string) ([]typeRef, error) {
	n, err := r.count(what)
	if err != nil {
		return nil, err
	}
	var list []typeRef
	for range n {
		t, err := r.ref()
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}

// function reads a function type. Nobody asks for one, so nothing is kept.
func (r *headerReader) function() error {
	for _, what := range []string{"parameter", "result"} {
		if _, err := r.list(what); err != nil {
			return err
		}
	}
	n, err := r.count("annotation")
	if err != nil {
		return err
	}
	for range n {
		b, err := r.byte()
		if err != nil {
			return err
		}
		if b < 1 || b > 3 {
			return r.fail(ErrMalformed, "function annotation %d", b)
		}
	}
	return nil
}

// service reads a service type.
func (r *headerReader) service() error {
	n, err := r.count("method")
	if err != nil {
		return err
	}
	var last []byte
	for i := range n {
		name, err := r.text()
		if err != nil {
			return err
		}
		if i > 0 && bytes.Compare(name, last) <= 0 {
			return r.fail(ErrMalformed, "method %.90q after %.90q", name, last)
		}
		last = name
		t, err := r.ref()
		if err != nil {
			return err
		}
		r.methods = append(r.methods, t)
	}
	return nil
}
