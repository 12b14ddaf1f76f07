package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// avx512 has room for everything: words 0 to 15 of the state are Z0 to Z15,
// the message is Z16 to Z31.
type avx512 struct{}

func (avx512) name() string                     { return "AVX512" }
func (avx512) lanes() int                       { return 16 }
func (avx512) state(word int) reg.VecPhysical   { return zmm[word] }
func (avx512) message(word int) reg.VecPhysical { return zmm[16+word] }
func (avx512) keep(int)                         {}
func (avx512) word(word int) Op                 { return zmm[16+word] }
func (avx512) start()                           {}
func (avx512) zero(r reg.VecPhysical)           { VPXORD(r, r, r) }
func (avx512) scratch() [8]reg.VecPhysical      { return [8]reg.VecPhysical(zmm[8:16]) }

func (avx512) broadcast(m Mem, r reg.VecPhysical) { VPBROADCASTD(m, r) }

func (avx512) spread(g reg.Register, r reg.VecPhysical) { VPBROADCASTD(g, r) }

func (avx512) third(m Mem) { VPBROADCASTD(m, zmm[8]) }

func (avx512) rows(pages []reg.GPVirtual, at reg.GPVirtual, disp int, to [4]reg.VecPhysical) {
	for j, r := range to {
		VMOVDQU(Mem{Base: pages[0], Index: at, Scale: 1, Disp: disp + chunkLen*j}, r.AsX())
		for part := 1; part < 4; part++ {
			VINSERTI32X4(U8(part), Mem{Base: pages[part], Index: at, Scale: 1, Disp: disp + chunkLen*j}, r, r)
		}
	}
}

func (m avx512) half(a, b, c, d [4]int, msg [4]int, r1, r2 int) {
	for i := range 4 {
		VPADDD(zmm[b[i]], zmm[a[i]], zmm[a[i]])
	}
	for i := range 4 {
		VPADDD(m.word(msg[i]), zmm[a[i]], zmm[a[i]])
	}
	for i := range 4 {
		VPXORD(zmm[a[i]], zmm[d[i]], zmm[d[i]])
	}
	for i := range 4 {
		VPRORD(U8(r1), zmm[d[i]], zmm[d[i]])
	}
	for i := range 4 {
		VPADDD(zmm[d[i]], zmm[c[i]], zmm[c[i]])
	}
	for i := range 4 {
		VPXORD(zmm[c[i]], zmm[b[i]], zmm[b[i]])
	}
	for i := range 4 {
		VPRORD(U8(r2), zmm[b[i]], zmm[b[i]])
	}
}

func (avx512) finish() {
	for i := range 8 {
		VPXORD(zmm[8+i], zmm[i], zmm[i])
	}
}

var zmm = [32]reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7,
	reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
	reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23,
	reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
}
