package candid

// skip reads a value that nobody wants, and checks it like one that somebody
// does.
func (d *decoder) skip(t typeRef, depth int) error {
	if depth > d.limits.Depth {
		return d.tooDeep()
	}
	start := d.pos
	if err := d.spend(1); err != nil {
		return err
	}
	var err error
	switch op := d.op(t); op {
	case opNull, opReserved:
		return nil
	case opBool:
		_, err = d.flag("a bool")
	case opNat, opInt:
		_, err = d.leb(d.limits.NumberBytes)
	case opText:
		_, err = d.text()
	case opPrincipal, opService:
		_, err = d.principal()
	case opFunc:
		err = d.skipFunc()
	case opFuture:
		err = d.skipFuture()
	case opOpt:
		var some bool
		if some, err = d.flag("the tag of an opt"); err == nil && some {
			return d.skip(d.types[t].elem, depth+1)
		}
	case opVec:
		return d.skipVec(d.types[t].elem, depth)
	case opRecord:
		for _, f := range d.types[t].fields {
			if err := d.skip(f.typ, depth+1); err != nil {
				return err
			}
		}
		return nil
	case opVariant:
		f, err := d.variantCase(t)
		if err != nil {
			return err
		}
		return d.skip(f.typ, depth+1)
	case opEmpty:
		return d.emptyValue()
	default:
		_, err = d.bytes(uint64(op.size()))
	}
	if err != nil {
		return err
	}
	return d.spend(d.pos - start)
}

func (d *decoder) skipVec(elem typeRef, depth int) error {
	n, err := d.vecLen(elem)
	if err != nil {
		return err
	}
	switch size := d.op(elem).size(); {
	case d.op(elem) == opNull, d.op(elem) == opReserved:
		return d.spendMany(n)
	case size > 0:
		// vecLen has seen that the bytes are there.
		d.pos += int(n) * size
		return d.spendMany(n * uint64(size))
	}
	for range n {
		if err := d.skip(elem, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// skipFunc reads a function: a service and a method's name.
func (d *decoder) skipFunc() error {
	transparent, err := d.flag("the tag of a reference")
	if err != nil {
		return err
	}
	if !transparent {
		return d.fail(ErrMalformed, "an opaque reference, and there are none beside the message")
	}
	if _, err := d.principal(); err != nil {
		return err
	}
	_, err = d.text()
	return err
}

// skipFuture reads a value of a type that a later Candid has.
func (d *decoder) skipFuture() error {
	n, err := d.uleb()
	if err != nil {
		return err
	}
	refs, err := d.uleb()
	if err != nil {
		return err
	}
	if refs != 0 {
		return d.fail(ErrMalformed, "%d references, and there are none beside the message", refs)
	}
	_, err = d.bytes(n)
	return err
}

// spend takes n off the budget for what is skipped.
func (d *decoder) spend(n int) error { return d.spendMany(uint64(n)) }

func (d *decoder) spendMany(n uint64) error {
	if n > uint64(d.skipped) {
		return d.fail(ErrLimit, "more than %d bytes to skip", d.limits.Skipped)
	}
	d.skipped -= int(n)
	return nil
}
