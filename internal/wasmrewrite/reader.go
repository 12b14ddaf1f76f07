package wasmrewrite

// reader takes a module apart. After the first mistake bad is set and all
// that it gives is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint32) []byte {
	if r.bad || uint64(n) > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// leb reads a number of at most n bytes and gives its low 64 bits.
func (r *reader) leb(n int) uint64 {
	var v uint64
	for i := range n {
		b := r.byte()
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return v
		}
	}
	r.bad, r.b = true, nil
	return 0
}

func (r *reader) u32() uint32 {
	v := r.leb(5)
	if v > 1<<32-1 {
		r.bad, r.b = true, nil
	}
	return uint32(v)
}

// list calls each for every entry of a vector.
func (r *reader) list(each func()) {
	for n := r.u32(); n > 0 && !r.bad; n-- {
		each()
	}
}

func (r *reader) limits() {
	flags := r.byte()
	r.leb(10)
	if flags&1 != 0 {
		r.leb(10)
	}
	if flags > 7 {
		r.bad, r.b = true, nil
	}
}

func (r *reader) globalType() global {
	g := global{typ: Type(r.byte())}
	switch r.byte() {
	case 0:
	case 1:
		g.mutable = true
	default:
		r.bad, r.b = true, nil
	}
	return g
}

// expression skips a constant expression.
func (r *reader) expression() {
	for !r.bad {
		switch r.byte() {
		case 0x0b: // end
			return
		case 0x41, 0x23, 0xd2: // i32.const, global.get, ref.func
			r.leb(5)
		case 0x42: // i64.const
			r.leb(10)
		case 0x43: // f32.const
			r.take(4)
		case 0x44: // f64.const
			r.take(8)
		case 0xd0: // ref.null
			r.leb(5)
		case 0xfd: // v128.const
			if r.leb(5) != 0x0c {
				r.bad, r.b = true, nil
			}
			r.take(16)
		case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e: // add, sub, mul
		default:
			r.bad, r.b = true, nil
		}
	}
}
