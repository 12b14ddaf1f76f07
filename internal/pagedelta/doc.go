// Package pagedelta compresses pages of 4096 bytes of a program's memory.
//
// Memory is full of records that differ from one before them in a few bytes:
// the same class, the same upper half of an address, counters below 65,536. A
// compressor of text looks for equal strings, finds eight bytes here and nine
// there, and spends its time between one and the next. This one cuts a page into
// lines of 64 bytes. A line is stored as the bytes in which it differs from the 64
// bytes at some distance before it, mostly the distance of the line before, and a
// bitmap that says which they are. That needs no branch nobody foresees, it runs
// sixteen bytes at a time, and of memory it leaves less than s2; text is not what
// it is for, and left to its caller.
//
// A page is decompressed with what stands before it in memory, as it was
// compressed: whoever stores several pages together compresses and decompresses
// them in order. The bytes are described in docs/format.md under "Delta pages".
//
// The assembly is generated, see gen; "go generate" needs the network once. An
// Encoder is for one goroutine; everything else may be called concurrently.
package pagedelta

//go:generate go run -C gen . -out ../kernel_amd64.s -stubs ../kernel_amd64.go -pkg pagedelta
