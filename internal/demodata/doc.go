// Package demodata holds successive memory images of a real canister, for
// demonstrations, tests and examples: see testdata/motoko-ledger/README.md for
// where they come from.
//
// A Series is a file of images in their order. Each is kept as the pages that
// differ from the image before (the first: from zeros), and all of them are
// compressed together:
//
//	header   magic "SSIMAGES", version, page size, number of images,
//	         lengths of the payload compressed and raw, its BLAKE3
//	table    per image: size in bytes, number of pages that differ, 4 bytes
//	         of zero, BLAKE3 of the whole image
//	sum      BLAKE3 of header and table
//	payload  one zstd frame; per image: the page numbers, ascending, 4 bytes
//	         each, then the pages in the same order
//
// Integers are little-endian. Everything is checked before it is yielded, so
// an image is the one that was put in or there is an error. Memory in use is
// one image and the decompressor's window.
//
// The format is for shipped test data only; stores have their own.
package demodata
