package snapdir

import (
	"encoding/hex"
	"fmt"
)

// Names in the directory.
const (
	metadataName = "metadata.json"
	sumsName     = "snapstore.sums.json"
	chunkDirName = "wasm_chunk_store"
	lockName     = ".lock"
)

// Kind says what a Part is. The numbers are those of a manifest's sections.
type Kind uint8

// The kinds of parts.
const (
	WasmModule   Kind = 1
	WasmMemory   Kind = 2
	StableMemory Kind = 3
	WasmChunk    Kind = 4
)

// String is the word that the tools use.
func (k Kind) String() string {
	switch k {
	case WasmModule:
		return "wasm_module"
	case WasmMemory:
		return "wasm_memory"
	case StableMemory:
		return "stable_memory"
	case WasmChunk:
		return "wasm_chunk"
	}
	return fmt.Sprintf("part-kind-%d", uint8(k))
}

// Part is one of the data files of a snapshot. Comparable.
type Part struct {
	Kind Kind
	// Hash is the SHA-256 of a wasm chunk; zero for the other kinds.
	Hash [32]byte
}

// Path is where the part is in the directory, with slashes.
func (p Part) Path() string {
	if p.Kind == WasmChunk {
		return chunkDirName + "/" + hex.EncodeToString(p.Hash[:]) + ".bin"
	}
	return p.Kind.String() + ".bin"
}

// String is Path.
func (p Part) String() string { return p.Path() }

func (p Part) validate() error {
	switch p.Kind {
	case WasmModule, WasmMemory, StableMemory:
		if p.Hash != [32]byte{} {
			return fmt.Errorf("%w: %v with a chunk hash", ErrMetadata, p.Kind)
		}
		return nil
	case WasmChunk:
		return nil
	}
	return fmt.Errorf("%w: %v", ErrMetadata, p.Kind)
}
