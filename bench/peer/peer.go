// Package peer: systems that keep versions of a memory image, beside which the engine is measured.
package peer

import (
	"context"
	"errors"
)

// Version is one state of the image to be kept.
type Version struct {
	Name  string   // unique, [a-z0-9-]+
	Path  string   // the image as a file, on the file system of the store
	Mem   []byte   // the same bytes
	Dirty []uint64 // page indexes (4 KiB) that changed since the version before, ascending; nil for the first
}

// Features says what a comparison must not hide.
type Features struct {
	Dedup, Compress, Checksums, Durable bool
	Note                                string
}

// Peer is a system that may be here.
type Peer interface {
	Name() string
	Features() Features
	// Probe gives its version, or an error that says how to install it (errors.Is ErrAbsent).
	Probe(ctx context.Context) (string, error)
	// Create makes an empty store in dir, which exists and is empty.
	Create(ctx context.Context, dir string) (Store, error)
}

// Store is a store of one peer. It is used by one goroutine.
type Store interface {
	Put(ctx context.Context, v Version) error        // durable on return
	Get(ctx context.Context, name, dst string) error // the image, to the file dst
	Delete(ctx context.Context, name string) error   // and give its space back, as far as the peer does
	Size(ctx context.Context) (int64, error)         // bytes on disk
	Close() error
}

// ErrAbsent: the program or the right to use it is not here.
var ErrAbsent = errors.New("not installed")

// All gives the peers known, in a fixed order.
func All() []Peer { return nil }
