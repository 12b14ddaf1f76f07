// Package pagehash computes the BLAKE3-256 of many pages of 4096 bytes at
// once.
//
// BLAKE3 cuts a page into four chunks of 1024 bytes, which are hashed apart
// and joined by three parents. A vector register of 32-bit lanes holds the
// same word of the state of several chunks, so one instruction works on all
// of them: 2 pages in the 8 lanes of AVX2, 4 in the 16 of AVX-512. The parents
// of four such sets fill the lanes again. What libraries offer fills the lanes
// from one input only, and a page alone leaves half of them or more empty.
//
// The assembly is generated, see gen; "go generate" needs the network once.
// Nothing here holds state, and everything may be called concurrently.
package pagehash

//go:generate go run -C gen . -out ../kernel_amd64.s -stubs ../kernel_amd64.go -pkg pagehash
