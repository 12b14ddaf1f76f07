package manifest

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/snapstore/snapstore/chunk"
)

// SectionKind says which of a canister's address spaces a section is.
type SectionKind uint8

// The kinds of sections, in the order they have in a manifest.
const (
	WasmModule   SectionKind = 1
	WasmMemory   SectionKind = 2
	StableMemory SectionKind = 3
	WasmChunk    SectionKind = 4 // one entry of the wasm chunk store
)

// String returns the name the command line and the logs use.
func (k SectionKind) String() string {
	switch k {
	case WasmModule:
		return "wasm-module"
	case WasmMemory:
		return "wasm-memory"
	case StableMemory:
		return "stable-memory"
	case WasmChunk:
		return "wasm-chunk"
	}
	return fmt.Sprintf("section-kind-%d", uint8(k))
}

func (k SectionKind) valid() bool { return k >= WasmModule && k <= WasmChunk }

// Section names one address space of a canister. Comparable.
type Section struct {
	Kind SectionKind
	Hash [32]byte // SHA-256 of a WasmChunk; zero for the other kinds
}

// Compare orders sections as they stand in a manifest.
func (s Section) Compare(t Section) int {
	if c := cmp.Compare(s.Kind, t.Kind); c != 0 {
		return c
	}
	return bytes.Compare(s.Hash[:], t.Hash[:])
}

// String returns the kind, and for a chunk "wasm-chunk/<hex>".
func (s Section) String() string {
	if s.Kind == WasmChunk {
		return s.Kind.String() + "/" + hex.EncodeToString(s.Hash[:])
	}
	return s.Kind.String()
}

// ParseSection parses what String prints for a valid section.
func ParseSection(text string) (Section, error) {
	for k := WasmModule; k < WasmChunk; k++ {
		if text == k.String() {
			return Section{Kind: k}, nil
		}
	}
	s := Section{Kind: WasmChunk}
	digits, ok := strings.CutPrefix(text, WasmChunk.String()+"/")
	if ok && len(digits) == 2*len(s.Hash) {
		if _, err := hex.Decode(s.Hash[:], []byte(digits)); err == nil && s.String() == text {
			return s, nil
		}
	}
	return Section{}, fmt.Errorf("manifest: section %.90q: want wasm-module, wasm-memory, stable-memory or wasm-chunk/<sha256>: %w", text, ErrMalformed)
}

// Validate says whether a manifest may have the section.
func (s Section) Validate() error {
	if !s.Kind.valid() {
		return fmt.Errorf("%w: %v", ErrMalformed, s.Kind)
	}
	if s.Kind != WasmChunk && s.Hash != [32]byte{} {
		return fmt.Errorf("%w: %v with a hash", ErrMalformed, s.Kind)
	}
	return nil
}

// MaxSectionSize bounds the byte length of a section.
const MaxSectionSize = 1 << 50

// SectionRoot is a section's byte length and the root of its page tree: the
// ID of a node, or zero when every page is zero. Comparable.
type SectionRoot struct {
	Section Section
	Root    chunk.ID
	Size    uint64
}

// PageCount is the number of pages that the byte length covers.
func (r SectionRoot) PageCount() uint64 { return pageCount(r.Size) }

func pageCount(size uint64) uint64 {
	n := size / chunk.PageSize
	if size%chunk.PageSize != 0 {
		n++
	}
	return n
}

func (r SectionRoot) validate() error {
	if err := r.Section.Validate(); err != nil {
		return err
	}
	if r.Size > MaxSectionSize {
		return fmt.Errorf("%w: %v of %d bytes, limit %d", ErrMalformed, r.Section, r.Size, uint64(MaxSectionSize))
	}
	if r.Size == 0 && !r.Root.IsZero() {
		return fmt.Errorf("%w: %v has no bytes but a root", ErrMalformed, r.Section)
	}
	return nil
}
