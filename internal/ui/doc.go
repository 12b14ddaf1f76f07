// Package ui is how the command speaks to a person: sizes, rates and durations
// in words, aligned tables, and one progress line.
//
// Everything here is text for eyes. Output that programs read carries raw
// numbers and never passes through this package. Sizes are binary and say so
// (KiB, MiB). The progress line is drawn only on a terminal; in a pipe, a file
// or a log it writes not one byte.
package ui
