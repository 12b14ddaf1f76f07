// Command gen writes the assembly of package pagedelta, for processors with
// AVX2, BMI1, BMI2 and POPCNT.
//
// It is a module of its own, so that who builds the store needs no generator:
//
//	go generate ./internal/pagedelta
//
// What each kernel computes is written in Go beside it: encodePortable,
// packPortable, unpackPortable and unpackXORPortable.
package main

import (
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// What encode.go fixes.
const (
	line       = 64
	lines      = 64
	tableBits  = 12
	multiplier = 2654435761

	goodEnough = 16
	tries      = 4
	farther    = 2
	hopeless   = 56
	idleAfter  = 4
	idleEvery  = 8
)

func main() {
	ConstraintExpr("amd64")
	t := tables{gather: shuffles("gather", together), spread: shuffles("spread", apart), eights: eights(), zeros: zeros()}
	t.encode()
	t.pack()
	t.unpack("unpackAVX2", false)
	t.unpack("unpackXORAVX2", true)
	Generate()
}

// tables are what the kernels read.
type tables struct {
	// For each mask of eight bytes, how VPSHUFB moves those together that are in
	// it, and apart.
	gather, spread Mem
	eights         Mem // makes of two such shuffles one of sixteen bytes
	zeros          Mem // a line
}

const nothing = 0x80 // what VPSHUFB takes for a zero

func shuffles(name string, f func(mask uint8) [8]byte) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for mask := range 256 {
		var v uint64
		for i, b := range f(uint8(mask)) {
			v |= uint64(b) << (8 * i)
		}
		DATA(8*mask, U64(v))
	}
	return m
}

func together(mask uint8) (to [8]byte) {
	for i := range to {
		to[i] = nothing
		if mask != 0 {
			to[i] = byte(bits.TrailingZeros8(mask))
			mask &= mask - 1
		}
	}
	return to
}

func apart(mask uint8) (to [8]byte) {
	n := byte(0)
	for i := range to {
		to[i] = nothing
		if mask&(1<<i) != 0 {
			to[i] = n
			n++
		}
	}
	return to
}

func eights() Mem {
	m := GLOBL("eights", RODATA|NOPTR)
	DATA(0, U64(0))
	DATA(8, U64(0x0808080808080808))
	return m
}

func zeros() Mem {
	m := GLOBL("zeros", RODATA|NOPTR)
	for i := 0; i < line; i += 8 {
		DATA(i, U64(0))
	}
	return m
}

func address(m Mem) reg.GPVirtual {
	r := GP64()
	LEAQ(m, r)
	return r
}

func zero(r reg.GPVirtual) reg.GPVirtual { XORL(r.As32(), r.As32()); return r }

func copyOf(r reg.Register) reg.GPVirtual {
	c := GP64()
	MOVQ(r, c)
	return c
}

// twoMasks cuts the lowest two bytes off a mask.
func twoMasks(mask reg.GPVirtual) (lo, hi reg.GPVirtual) {
	lo, hi = GP64(), GP64()
	MOVBLZX(mask.As8(), lo.As32())
	SHRQ(U8(8), mask)
	MOVBLZX(mask.As8(), hi.As32())
	SHRQ(U8(8), mask)
	return lo, hi
}

// shuffle is how sixteen bytes are moved, by two masks.
func shuffle(table, eights reg.Register, lo, hi reg.GPVirtual) reg.VecVirtual {
	x := XMM()
	VMOVQ(Mem{Base: table, Index: lo, Scale: 8}, x)
	VMOVHPS(Mem{Base: table, Index: hi, Scale: 8}, x, x)
	VPOR(eights, x, x)
	return x
}

func advance(p reg.GPVirtual, mask reg.GPVirtual) {
	POPCNTL(mask.As32(), mask.As32())
	ADDQ(mask, p)
}

// store writes the bytes of x that are in the masks.
func store(dst reg.GPVirtual, x reg.VecVirtual, table, eights reg.Register, lo, hi reg.GPVirtual) {
	VPSHUFB(shuffle(table, eights, lo, hi), x, x)
	VMOVQ(x, Mem{Base: dst})
	advance(dst, lo)
	VMOVHPS(x, Mem{Base: dst})
	advance(dst, hi)
}

func (t tables) encode() {
	TEXT("encodeAVX2", 0, "func(dst, window *byte, at int, seen *[4096]uint16, masks *[512]byte, distances *[64]uint16) (n int, changes uint64)")
	Pragma("noescape")
	Doc("encodeAVX2 is encodePortable. It may write 8 bytes beyond what it returns.")
	dst := Load(Param("dst"), GP64()).(reg.GPVirtual)
	window := Load(Param("window"), GP64()).(reg.GPVirtual)
	seen := Load(Param("seen"), GP64()).(reg.GPVirtual)
	cur := Load(Param("at"), GP64()).(reg.GPVirtual)
	ADDQ(window, cur)
	hashes := AllocLocal(line)
	// There are not registers enough for what only the ends of a line want.
	i, poor, changes := AllocLocal(8), AllocLocal(8), AllocLocal(8)
	for _, m := range []Mem{i, poor, changes} {
		MOVQ(U32(0), m)
	}
	distance := zero(GP64())

	none, mul, eight := YMM(), YMM(), XMM()
	VPXOR(none, none, none)
	constant := GP32()
	MOVL(U32(multiplier), constant)
	VMOVD(constant, mul.AsX())
	VPBROADCASTD(mul.AsX(), mul)
	VMOVDQU(t.eights, eight)

	left, right := YMM(), YMM() // the line
	ref := GP64()               // what stands at a distance before it
	refer := func(distance reg.GPVirtual) {
		zeros := address(t.zeros)
		MOVQ(cur, ref)
		SUBQ(distance, ref)
		TESTQ(distance, distance)
		CMOVQEQ(zeros, ref)
	}
	// compare returns which bytes of the line are not those at p, and how many.
	compare := func(p reg.Register) (mask, cost reg.GPVirtual) {
		l, r := YMM(), YMM()
		VPCMPEQB(Mem{Base: p}, left, l)
		VPCMPEQB(Mem{Base: p, Disp: 32}, right, r)
		mask, cost = GP64(), GP64()
		VPMOVMSKB(l, mask.As32())
		VPMOVMSKB(r, cost.As32())
		SHLQ(U8(32), cost)
		ORQ(cost, mask)
		NOTQ(mask)
		POPCNTQ(mask, cost)
		return mask, cost
	}
	mask, cost, from := GP64(), GP64(), GP64()
	// better takes a distance if it is.
	better := func(m, c, d reg.GPVirtual) {
		ADDQ(U8(farther), c)
		CMPQ(c, cost)
		CMOVQLT(m, mask)
		CMOVQLT(d, from)
		CMOVQLT(c, cost) // last, since it is what was compared
	}

	Label("line")
	VMOVDQU(Mem{Base: cur}, left)
	VMOVDQU(Mem{Base: cur, Disp: 32}, right)
	refer(distance)
	{
		m, c := compare(ref)
		MOVQ(m, mask)
		MOVQ(c, cost)
		MOVQ(distance, from)
	}
	CMPQ(poor, U8(idleAfter))
	JLT(LabelRef("awake"))
	TESTQ(U32(idleEvery-1), i)
	JNE(LabelRef("idle"))

	Label("awake")
	TESTQ(mask, mask)
	JEQ(LabelRef("idle"))
	for half, r := range []reg.VecVirtual{left, right} {
		h := YMM()
		VPMULLD(mul, r, h)
		VPSRLD(U8(32-tableBits), h, h)
		VMOVDQU(h, hashes.Offset(32*half))
	}
	CMPQ(cost, U8(goodEnough))
	JLE(LabelRef("remember"))

	// Words that are neither zero nor foreseen, a bit for each.
	words := GP64()
	{
		other := GP64()
		for half, r := range []reg.VecVirtual{left, right} {
			foreseen, empty := YMM(), YMM()
			VPCMPEQD(Mem{Base: ref, Disp: 32 * half}, r, foreseen)
			VPCMPEQD(none, r, empty)
			VPOR(empty, foreseen, foreseen)
			VMOVMSKPS(foreseen, []reg.GPVirtual{words, other}[half].As32())
		}
		SHLL(U8(8), other.As32())
		ORL(other.As32(), words.As32())
		XORL(U32(0xffff), words.As32())
	}
	TESTQ(distance, distance)
	JEQ(LabelRef("search"))
	{
		m, c := compare(address(t.zeros))
		better(m, c, zero(GP64()))
	}
	Label("search")
	last, more := copyOf(distance), GP64()
	MOVL(U32(tries), more.As32())

	Label("word")
	TESTL(words.As32(), words.As32())
	JEQ(LabelRef("remember"))
	{
		k, d, w := GP64(), GP64(), GP32()
		TZCNTL(words.As32(), k.As32())
		BLSRL(words.As32(), words.As32())
		MOVL(hashes.Idx(k, 4), w)
		MOVWLZX(Mem{Base: seen, Index: w.As64(), Scale: 2}, d.As32())
		MOVL(Mem{Base: cur, Index: k, Scale: 4}, w)
		CMPL(w, Mem{Base: window, Index: d, Scale: 1})
		JNE(LabelRef("word"))
		at := GP64()
		LEAQ(Mem{Base: cur, Index: k, Scale: 4}, at)
		SUBQ(window, at)
		SUBQ(d, at)
		d = at
		CMPQ(d, U8(line))
		JGE(LabelRef("far"))
		shift, size := GP64(), GP64()
		zero(size) // of a distance of zero, which stays zero
		BSRQ(d, size)
		MOVL(U32(6), shift.As32())
		SUBQ(size, shift)
		SHLXQ(shift, d, d)
		Label("far")
		a := copyOf(cur)
		SUBQ(window, a)
		CMPQ(d, a)
		JGT(LabelRef("word"))
		CMPQ(d, from)
		JEQ(LabelRef("word"))
		CMPQ(d, last)
		JEQ(LabelRef("word"))
		MOVQ(d, last)
		p := copyOf(cur)
		SUBQ(d, p)
		m, c := compare(p)
		better(m, c, d)
		DECQ(more)
		JNE(LabelRef("word"))
	}

	Label("remember")
	{
		at, h := copyOf(cur), GP64()
		SUBQ(window, at)
		for k := range line / 4 {
			MOVL(hashes.Offset(4*k), h.As32())
			MOVW(at.As16(), Mem{Base: seen, Index: h, Scale: 2})
			if k < line/4-1 {
				ADDL(U8(4), at.As32())
			}
		}
	}

	Label("idle")
	{
		now, longer := zero(GP64()), GP64()
		MOVQ(poor, longer)
		INCQ(longer)
		CMPQ(cost, U8(hopeless))
		CMOVQGT(longer, now)
		MOVQ(now, poor)

		changed, p, bit := zero(GP64()), Load(Param("distances"), GP64()), GP64()
		CMPQ(from, distance)
		SETNE(changed.As8())
		MOVW(from.As16(), Mem{Base: p})
		LEAQ(Mem{Base: p, Index: changed, Scale: 2}, p)
		q, err := Param("distances").Resolve()
		if err != nil {
			panic(err)
		}
		MOVQ(p, q.Addr)
		MOVQ(i, bit)
		SHLXQ(bit, changed, bit)
		ORQ(bit, changes)
		MOVQ(from, distance)
	}
	{
		masks, index := Load(Param("masks"), GP64()), GP64()
		MOVQ(i, index)
		MOVQ(mask, Mem{Base: masks, Index: index, Scale: 8})
	}
	TESTQ(mask, mask)
	JEQ(LabelRef("next"))
	refer(distance)
	{
		table := address(t.gather)
		for k := 0; k < line; k += 16 {
			x := XMM()
			VMOVDQU(Mem{Base: cur, Disp: k}, x)
			VPXOR(Mem{Base: ref, Disp: k}, x, x)
			lo, hi := twoMasks(mask)
			store(dst, x, table, eight, lo, hi)
		}
	}
	Label("next")
	ADDQ(U8(line), cur)
	INCQ(i)
	CMPQ(i, U8(lines))
	JNE(LabelRef("line"))

	SUBQ(Load(Param("dst"), GP64()), dst)
	Store(dst, ReturnIndex(0))
	result := GP64()
	MOVQ(changes, result)
	Store(result, ReturnIndex(1))
	VZEROUPPER()
	RET()
}

func (t tables) pack() {
	TEXT("packAVX2", 0, "func(dst, src, masks *byte, n int) int")
	Pragma("noescape")
	Doc("packAVX2 is packPortable for n pairs of masks. It may write 8 bytes beyond what",
		"it returns.")
	dst := Load(Param("dst"), GP64()).(reg.GPVirtual)
	src, masks, n := Load(Param("src"), GP64()), Load(Param("masks"), GP64()), Load(Param("n"), GP64())
	eight, none := XMM(), XMM()
	VMOVDQU(t.eights, eight)
	VPXOR(none, none, none)
	table := address(t.gather)
	Label("pair")
	x, zeros := XMM(), XMM()
	VMOVDQU(Mem{Base: src}, x)
	VPCMPEQB(none, x, zeros)
	mask := GP64()
	VPMOVMSKB(zeros, mask.As32())
	XORL(U32(0xffff), mask.As32())
	MOVW(mask.As16(), Mem{Base: masks})
	lo, hi := twoMasks(mask)
	store(dst, x, table, eight, lo, hi)
	ADDQ(U8(16), src)
	ADDQ(U8(2), masks)
	DECQ(n)
	JNE(LabelRef("pair"))
	SUBQ(Load(Param("dst"), GP64()), dst)
	Store(dst, ReturnIndex(0))
	RET()
}

func (t tables) unpack(name string, xor bool) {
	if xor {
		TEXT(name, 0, "func(dst, ref, masks, src *byte, n int) int")
	} else {
		TEXT(name, 0, "func(dst, masks, src *byte, n int) int")
	}
	Pragma("noescape")
	Doc(name+" fills 16 bytes of dst for each of n pairs of masks, like the portable code.",
		"It may read 8 bytes beyond what it returns.")
	dst, masks, n := Load(Param("dst"), GP64()), Load(Param("masks"), GP64()), Load(Param("n"), GP64())
	src := Load(Param("src"), GP64()).(reg.GPVirtual)
	var ref reg.Register
	if xor {
		ref = Load(Param("ref"), GP64())
	}
	eight := XMM()
	VMOVDQU(t.eights, eight)
	table := address(t.spread)
	Label("pair")
	lo, hi, x := GP64(), GP64(), XMM()
	MOVBLZX(Mem{Base: masks}, lo.As32())
	MOVBLZX(Mem{Base: masks, Disp: 1}, hi.As32())
	y := shuffle(table, eight, lo, hi)
	VMOVQ(Mem{Base: src}, x)
	advance(src, lo)
	VMOVHPS(Mem{Base: src}, x, x)
	advance(src, hi)
	VPSHUFB(y, x, x)
	if xor {
		VPXOR(Mem{Base: ref}, x, x)
		ADDQ(U8(16), ref)
	}
	VMOVDQU(x, Mem{Base: dst})
	ADDQ(U8(16), dst)
	ADDQ(U8(2), masks)
	DECQ(n)
	JNE(LabelRef("pair"))
	SUBQ(Load(Param("src"), GP64()), src)
	Store(src, ReturnIndex(0))
	RET()
}
