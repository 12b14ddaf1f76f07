// Command gen writes the assembly of package pagehash: BLAKE3's compression
// function over 8 lanes of 32 bits (AVX2) and over 16 (AVX-512).
//
// It is a module of its own, so that who builds the store needs no generator:
//
//	go generate ./internal/pagehash
//
// The two kernels share the shape: the words of the state are one register
// each, a lane is one chunk of 1024 bytes. Four chunks make a page, so the
// lanes of a 128-bit part of a register are the chunks of one page.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// What BLAKE3 fixes.
const (
	blockLen = 64
	chunkLen = 1024
	rounds   = 7

	flagChunkStart = 1
	flagChunkEnd   = 2
)

var (
	iv = [8]uint32{
		0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
		0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
	}
	permutation = [16]int{2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8}
)

// A machine is what the two kernels do differently.
type machine interface {
	name() string
	lanes() int
	// state is the register of a word of the state. For a word that is kept
	// in memory it is a scratch register.
	state(word int) reg.VecPhysical
	// start says where the compression function's locals are.
	start()
	// zero clears a register.
	zero(r reg.VecPhysical)
	// broadcast fills all lanes of a register from memory.
	broadcast(m Mem, r reg.VecPhysical)
	// spread fills all lanes of a register with the low half of a general one.
	spread(g reg.Register, r reg.VecPhysical)
	// rows fills four registers with 16 bytes of each chunk of each page: row
	// j has those of chunk j, one page in each 128-bit part.
	rows(pages []reg.GPVirtual, at reg.GPVirtual, disp int, to [4]reg.VecPhysical)
	// scratch are eight registers that are free while a message is read.
	scratch() [8]reg.VecPhysical
	// message is where a word of the message is put together, keep moves it
	// to where the rounds find it, and word is that place.
	message(word int) reg.VecPhysical
	keep(word int)
	word(word int) Op
	// third sets up word 8 of the state from the initial value.
	third(m Mem)
	// half does half a step of four columns or diagonals at once: a += b + m,
	// d = (d ^ a) >>> r1, c += d, b = (b ^ c) >>> r2.
	half(a, b, c, d [4]int, msg [4]int, r1, r2 int)
	// finish folds the state into its first eight words.
	finish()
}

func main() {
	ConstraintExpr("amd64")
	constants := data()
	generate(&avx2{constants: constants}, constants)
	generate(&avx512{}, constants)
	Generate()
}

// Offsets in the table of constants.
const (
	atIV       = 0  // the initial value, 8 words
	atBlockLen = 32 // a word
	atCounters = 64 // 16 words: the number of the chunk in each lane
	atRot16    = 128
	atRot8     = 160
)

func data() Mem {
	m := GLOBL("constants", RODATA|NOPTR)
	for i, w := range iv {
		DATA(atIV+4*i, U32(w))
	}
	DATA(atBlockLen, U32(blockLen))
	for i := atBlockLen + 4; i < atCounters; i += 4 {
		DATA(i, U32(0))
	}
	for i := range 16 {
		DATA(atCounters+4*i, U32(i%4))
	}
	// Where each byte of a register comes from.
	for i := range 8 {
		DATA(atRot16+4*i, U32(0x01000302+i%4*4*0x01010101))
	}
	for i := range 8 {
		DATA(atRot8+4*i, U32(0x00030201+i%4*4*0x01010101))
	}
	return m
}

func generate(m machine, constants Mem) {
	chunks(m, constants)
	parents(m, constants)
}

// values is the Go type of a chaining value, eight words in all lanes one
// after the other, for the most lanes there are.
const values = "*[128]uint32"

func chunks(m machine, constants Mem) {
	TEXT("chunks"+m.name(), 0, "func(out "+values+", pages *[4]*byte, ahead uintptr)")
	Pragma("noescape")
	Doc("chunks"+m.name()+" sets out to the chaining values of the four chunks of as many pages",
		"as lanes hold; the lanes are the chunks, page by page. What lies ahead of each",
		"page by so many bytes is read next, and fetched.")
	from := Load(Param("pages"), GP64())
	ahead := Load(Param("ahead"), GP64())
	var pages, coming []reg.GPVirtual
	for i := range m.lanes() / 4 {
		p, c := GP64(), GP64()
		MOVQ(Mem{Base: from, Disp: 8 * i}, p)
		LEAQ(Mem{Base: p, Index: ahead, Scale: 1}, c)
		pages, coming = append(pages, p), append(coming, c)
	}
	m.start()
	for i := range 8 {
		m.broadcast(constants.Offset(atIV+4*i), m.state(i))
	}
	at, flags, end := GP64(), GP32(), GP32()
	XORQ(at, at)
	MOVL(U32(flagChunkStart), flags)

	Label("block")
	for _, c := range coming {
		for j := range 4 {
			PREFETCHT0(Mem{Base: c, Index: at, Scale: 1, Disp: chunkLen * j})
		}
	}
	for g := range 4 {
		s := m.scratch()
		rows := [4]reg.VecPhysical(s[:4])
		half := s[4:]
		m.rows(pages, at, 16*g, rows)
		VPUNPCKLDQ(rows[1], rows[0], half[0]) // words 0 and 1 of chunks 0 and 1
		VPUNPCKHDQ(rows[1], rows[0], half[1]) // words 2 and 3
		VPUNPCKLDQ(rows[3], rows[2], half[2])
		VPUNPCKHDQ(rows[3], rows[2], half[3])
		w := 4 * g
		VPUNPCKLQDQ(half[2], half[0], m.message(w))
		m.keep(w)
		VPUNPCKHQDQ(half[2], half[0], m.message(w+1))
		m.keep(w + 1)
		VPUNPCKLQDQ(half[3], half[1], m.message(w+2))
		m.keep(w + 2)
		VPUNPCKHQDQ(half[3], half[1], m.message(w+3))
		m.keep(w + 3)
	}
	ADDQ(Imm(blockLen), at)
	Comment("The last block has a flag of its own.")
	MOVL(flags, end)
	ORL(U32(flagChunkEnd), end)
	CMPQ(at, U32(chunkLen))
	CMOVLEQ(end, flags)

	move(m, constants.Offset(atCounters), m.state(12))
	compress(m, constants, flags)
	XORL(flags, flags)
	CMPQ(at, U32(chunkLen))
	JNE(LabelRef("block"))

	store(m)
	VZEROUPPER()
	RET()
}

func parents(m machine, constants Mem) {
	TEXT("parents"+m.name(), 0, "func(out, a, b "+values+", flags uint32)")
	Pragma("noescape")
	Doc("parents"+m.name()+" sets out to the chaining values of the parents of neighbours.",
		"In each 128-bit part of out, the parents of the two pairs of a come before",
		"those of b. out may be a or b.")
	left, right := GP64(), GP64()
	Load(Param("a"), left)
	Load(Param("b"), right)
	flags := GP32()
	Load(Param("flags"), flags)
	m.start()
	s := m.scratch()
	for w := range 8 {
		move(m, Mem{Base: left, Disp: w * 4 * m.lanes()}, s[6])
		move(m, Mem{Base: right, Disp: w * 4 * m.lanes()}, s[7])
		VSHUFPS(U8(0x88), s[7], s[6], m.message(w))
		m.keep(w)
		VSHUFPS(U8(0xDD), s[7], s[6], m.message(w+8))
		m.keep(w + 8)
	}
	for i := range 8 {
		m.broadcast(constants.Offset(atIV+4*i), m.state(i))
	}
	m.zero(m.state(12))
	compress(m, constants, flags)
	store(m)
	VZEROUPPER()
	RET()
}

// compress runs the rounds over words 0 to 7 and 12 of the state and the
// message, and leaves the chaining value in words 0 to 7.
func compress(m machine, constants Mem, flags reg.Register) {
	m.third(constants.Offset(atIV))
	for i := 1; i < 4; i++ {
		m.broadcast(constants.Offset(atIV+4*i), m.state(8+i))
	}
	m.zero(m.state(13))
	m.broadcast(constants.Offset(atBlockLen), m.state(14))
	m.spread(flags, m.state(15))
	var order [16]int
	for i := range order {
		order[i] = i
	}
	a, b, c, d := [4]int{0, 1, 2, 3}, [4]int{4, 5, 6, 7}, [4]int{8, 9, 10, 11}, [4]int{12, 13, 14, 15}
	for r := range rounds {
		Commentf("Round %d.", r+1)
		o := order
		m.half(a, b, c, d, [4]int{o[0], o[2], o[4], o[6]}, 16, 12)
		m.half(a, b, c, d, [4]int{o[1], o[3], o[5], o[7]}, 8, 7)
		b, c, d := turned(b, 1), turned(c, 2), turned(d, 3)
		m.half(a, b, c, d, [4]int{o[8], o[10], o[12], o[14]}, 16, 12)
		m.half(a, b, c, d, [4]int{o[9], o[11], o[13], o[15]}, 8, 7)
		for i := range order {
			order[i] = o[permutation[i]]
		}
	}
	m.finish()
}

// turned starts a row of the state n words later, which makes columns of
// diagonals.
func turned(row [4]int, n int) (t [4]int) {
	for i := range t {
		t[i] = row[(i+n)%4]
	}
	return t
}

func store(m machine) {
	out := Load(Param("out"), GP64())
	for i := range 8 {
		move(m, m.state(i), Mem{Base: out, Disp: i * 4 * m.lanes()})
	}
}

// move copies a whole register from or to memory that need not be aligned, or
// to another.
func move(m machine, from, to Op) {
	if m.lanes() == 16 {
		VMOVDQU32(from, to)
		return
	}
	VMOVDQU(from, to)
}
