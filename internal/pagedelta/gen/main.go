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
	words      = line / 4
	tableBits  = 12
	multiplier = 2654435761

	rememberEvery = 4

	goodEnough = 16
	rounds     = 2
	farther    = 2
	hopeless   = 56
	idleAfter  = 4
	idleEvery  = 8
)

func main() {
	ConstraintExpr("amd64")
	t := tables{gather: shuffles("gather", together), spread: shuffles("spread", apart), eights: eights(), zeros: zeros(), backwards: backwards()}
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
	backwards      Mem // has VPERMD turn eight words around
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

func backwards() Mem {
	m := GLOBL("backwards", RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32(7-i))
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
	Doc("encodeAVX2 is encodePortable. Of dst it may write beyond what it returns, but no",
		"more than a page.")
	window := Load(Param("window"), GP64()).(reg.GPVirtual)
	cur := Load(Param("at"), GP64()).(reg.GPVirtual)
	ADDQ(window, cur)
	hashes, places := AllocLocal(line), AllocLocal(2*words)
	// There are not registers enough for what only the ends of a line want.
	i, poor, changes, more, to := AllocLocal(8), AllocLocal(8), AllocLocal(8), AllocLocal(8), AllocLocal(8)
	for _, m := range []Mem{i, poor, changes} {
		MOVQ(U32(0), m)
	}
	MOVQ(Load(Param("dst"), GP64()), to)
	before := AllocLocal(8) // the distance of the line before
	MOVQ(U32(0), before)

	none, mul, eight := YMM(), YMM(), XMM()
	VPXOR(none, none, none)
	constant := GP32()
	MOVL(U32(multiplier), constant)
	VMOVD(constant, mul.AsX())
	VPBROADCASTD(mul.AsX(), mul)
	VMOVDQU(t.eights, eight)
	backwards := YMM()
	VMOVDQU(t.backwards, backwards)

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

	// equalWords sets a bit for each word of the line that is as at p, or zero where
	// there is a register of zeros, the first word's on top.
	equalWords := func(p reg.Register, set reg.GPVirtual, zeros reg.Register) {
		low := GP64()
		for half, r := range []reg.VecVirtual{left, right} {
			equal := YMM()
			VPCMPEQD(Mem{Base: p, Disp: 32 * half}, r, equal)
			if zeros != nil {
				empty := YMM()
				VPCMPEQD(zeros, r, empty)
				VPOR(empty, equal, equal)
			}
			VPERMD(equal, backwards, equal)
			VMOVMSKPS(equal, []reg.GPVirtual{set, low}[half].As32())
		}
		SHLL(U8(8), set.As32())
		ORL(low.As32(), set.As32())
	}

	// lookedUp returns the distance at which a word of the line was last seen, and
	// what stands there; zeros where there is no such line.
	lookedUp := func(word reg.GPVirtual) (d, p reg.GPVirtual) {
		place := GP64()
		MOVWLZX(places.Idx(word, 2), place.As32())
		LEAQ(Mem{Base: place, Index: word, Scale: 4}, place)
		d = copyOf(cur)
		SUBQ(window, d)
		ADDQ(U8(line-4), d)
		SUBQ(place, d)

		size, shift, none := zero(GP64()), GP64(), zero(GP64())
		BSRQ(d, size) // of a distance of zero, which stays zero, any
		MOVL(U32(6), shift.As32())
		SUBQ(size, shift)
		CMOVQLT(none, shift)
		SHLXQ(shift, d, d)

		a, less := copyOf(cur), GP64()
		SUBQ(window, a)
		p = copyOf(cur)
		SUBQ(d, p)
		LEAQ(Mem{Base: d, Disp: -1}, less)
		CMPQ(less, a)
		zeros := address(t.zeros)
		CMOVQCC(zeros, p)
		CMOVQCC(none, d)
		return d, p
	}

	Label("line")
	VMOVDQU(Mem{Base: cur}, left)
	VMOVDQU(Mem{Base: cur, Disp: 32}, right)
	MOVQ(before, from)
	refer(from)
	{
		m, c := compare(ref)
		MOVQ(m, mask)
		MOVQ(c, cost)
	}
	CMPQ(poor, U8(idleAfter))
	JLT(LabelRef("awake"))
	TESTQ(U32(idleEvery-1), i)
	JNE(LabelRef("idle"))

	Label("awake")
	TESTQ(mask, mask)
	JEQ(LabelRef("idle"))
	CMPQ(cost, U8(goodEnough))
	JLE(LabelRef("remember"))
	for half, r := range []reg.VecVirtual{left, right} {
		h := YMM()
		VPMULLD(mul, r, h)
		VPSRLD(U8(32-tableBits), h, h)
		VMOVDQU(h, hashes.Offset(32*half))
	}

	// Which words of the line stand where they were last seen, and neither are zero
	// nor foreseen: a bit for each, the first word's on top.
	matches := zero(GP64())
	{
		seen := Load(Param("seen"), GP64())
		for k := range words {
			h, p, w := GP64(), GP64(), GP32()
			MOVL(hashes.Offset(4*k), h.As32())
			MOVWLZX(Mem{Base: seen, Index: h, Scale: 2}, p.As32())
			MOVW(p.As16(), places.Offset(2*(words-1-k)))
			MOVL(Mem{Base: cur, Disp: 4 * k}, w)
			XORL(Mem{Base: window, Index: p, Scale: 1}, w)
			CMPL(w, U8(1)) // carries if it is zero
			ADCL(matches.As32(), matches.As32())
		}
		except := GP64()
		equalWords(ref, except, none)
		ANDNL(matches.As32(), except.As32(), matches.As32())
	}
	{
		m, c := compare(address(t.zeros))
		better(m, c, zero(GP64()))
	}
	MOVQ(U32(rounds), more)

	Label("round")
	TESTL(matches.As32(), matches.As32())
	JEQ(LabelRef("remember"))
	{
		// The first of them and the last, which do not wait for each other.
		word := GP64()
		BSRL(matches.As32(), word.As32())
		d1, p1 := lookedUp(word)
		TZCNTL(matches.As32(), word.As32())
		d2, p2 := lookedUp(word)
		m, c := compare(p1)
		better(m, c, d1)
		m, c = compare(p2)
		better(m, c, d2)
		CMPQ(cost, U8(goodEnough))
		JLE(LabelRef("remember"))
		DECQ(more)
		JEQ(LabelRef("remember"))
		// What these distances foresee would only ask for them again.
		BSRL(matches.As32(), word.As32())
		BTRL(word.As32(), matches.As32())
		BLSRL(matches.As32(), matches.As32())
		for _, p := range []reg.GPVirtual{p1, p2} {
			again := GP64()
			equalWords(p, again, nil)
			ANDNL(matches.As32(), again.As32(), matches.As32())
		}
		JMP(LabelRef("round"))
	}

	Label("remember")
	{
		seen := Load(Param("seen"), GP64())
		first, at, h, multiplied := GP64(), copyOf(cur), GP64(), GP32()
		MOVL(U32(multiplier), multiplied)
		MOVQ(i, first)
		NEGQ(first)
		ANDL(U8(rememberEvery-1), first.As32())
		SUBQ(window, at)
		LEAQ(Mem{Base: at, Index: first, Scale: 4}, at)
		for k := 0; k < words; k += rememberEvery {
			MOVL(Mem{Base: cur, Index: first, Scale: 4, Disp: 4 * k}, h.As32())
			IMULL(multiplied, h.As32())
			SHRL(U8(32-tableBits), h.As32())
			MOVW(at.As16(), Mem{Base: seen, Index: h, Scale: 2})
			if k+rememberEvery < words {
				ADDL(U8(4*rememberEvery), at.As32())
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
		CMPQ(from, before)
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
		MOVQ(from, before)
	}
	{
		masks, index := Load(Param("masks"), GP64()), GP64()
		MOVQ(i, index)
		MOVQ(mask, Mem{Base: masks, Index: index, Scale: 8})
	}
	TESTQ(mask, mask)
	JEQ(LabelRef("next"))
	refer(from)
	{
		table, dst := address(t.gather), GP64()
		MOVQ(to, dst)
		for k := 0; k < line; k += 16 {
			x := XMM()
			VMOVDQU(Mem{Base: cur, Disp: k}, x)
			VPXOR(Mem{Base: ref, Disp: k}, x, x)
			lo, hi := twoMasks(mask)
			store(dst, x, table, eight, lo, hi)
		}
		MOVQ(dst, to)
	}
	Label("next")
	ADDQ(U8(line), cur)
	INCQ(i)
	CMPQ(i, U8(lines))
	JNE(LabelRef("line"))

	result := GP64()
	MOVQ(to, result)
	SUBQ(Load(Param("dst"), GP64()), result)
	Store(result, ReturnIndex(0))
	MOVQ(changes, result)
	Store(result, ReturnIndex(1))
	VZEROUPPER()
	RET()
}

func (t tables) pack() {
	TEXT("packAVX2", 0, "func(dst, src, masks *byte, n int) int")
	Pragma("noescape")
	Doc("packAVX2 is packPortable for n pairs of masks. Of dst it may write beyond what it",
		"returns, but no more than src has.")
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
