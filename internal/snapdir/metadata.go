package snapdir

import (
	"fmt"
	"math"
	"slices"
)

// The limits of a canister's state on the public network. Nothing beyond them
// can have been downloaded, and nothing beyond them can be uploaded.
const (
	MaxWasmModule    = 100 << 20
	MaxWasmMemory    = 6 << 30
	MaxStableMemory  = 500 << 30
	MaxChunk         = 1 << 20
	MaxChunks        = 100
	MaxGlobals       = 1000
	MaxCertifiedData = 32

	wasmPage = 64 << 10
)

// Metadata is what metadata.json holds.
type Metadata struct {
	Source          Source
	TakenAt         uint64 // nanoseconds since 1970
	CanisterVersion uint64

	WasmModuleSize   uint64
	WasmMemorySize   uint64
	StableMemorySize uint64

	Globals       []Global
	WasmChunks    [][32]byte // SHA-256 of each entry of the chunk store, no two the same
	CertifiedData []byte
	GlobalTimer   Timer
	HookStatus    HookStatus
}

// Source says how a snapshot came to be. The numbers are those of a manifest.
type Source uint8

// The sources; absent in snapshots older than the field.
const (
	SourceAbsent   Source = 0
	SourceTaken    Source = 1
	SourceUploaded Source = 2
)

// HookStatus is the state of the low-wasm-memory hook. The numbers are those
// of a manifest.
type HookStatus uint8

// The hook's states; absent in snapshots older than the field.
const (
	HookAbsent                HookStatus = 0
	HookConditionNotSatisfied HookStatus = 1
	HookReady                 HookStatus = 2
	HookExecuted              HookStatus = 3
)

// Timer is the global timer: absent, inactive, or active with a deadline.
type Timer struct {
	Present, Active bool
	Deadline        uint64 // nanoseconds since 1970, only when active
}

// GlobalKind is the type of a Wasm global. The numbers are those of a manifest.
type GlobalKind uint8

// The types of globals.
const (
	GlobalI32  GlobalKind = 1
	GlobalI64  GlobalKind = 2
	GlobalF32  GlobalKind = 3
	GlobalF64  GlobalKind = 4
	GlobalV128 GlobalKind = 5
)

// The names of variants in metadata.json, by number; empty is no name.
func sourceNames() []string { return []string{"", "taken_from_canister", "metadata_upload"} }
func hookNames() []string   { return []string{"", "condition_not_satisfied", "ready", "executed"} }
func globalNames() []string { return []string{"", "i32", "i64", "f32", "f64", "v128"} }

// String is the name in metadata.json.
func (s Source) String() string { return variantName("source", sourceNames(), uint8(s)) }

// String is the name in metadata.json.
func (h HookStatus) String() string { return variantName("hook-status", hookNames(), uint8(h)) }

// String is the type's name in Wasm text.
func (k GlobalKind) String() string { return variantName("global-kind", globalNames(), uint8(k)) }

func variantName(what string, names []string, n uint8) string {
	if int(n) < len(names) && names[n] != "" {
		return names[n]
	}
	return fmt.Sprintf("%s-%d", what, n)
}

// Global is the value of a Wasm global as bits; floats by their IEEE 754
// pattern, so that every NaN survives.
type Global struct {
	Kind   GlobalKind
	Lo, Hi uint64 // Hi only for v128; the upper half of Lo is zero for i32 and f32
}

// finite tells whether JSON can carry the value.
func (g Global) finite() bool {
	switch g.Kind {
	case GlobalF32:
		v := float64(math.Float32frombits(uint32(g.Lo)))
		return !math.IsNaN(v) && !math.IsInf(v, 0)
	case GlobalF64:
		v := math.Float64frombits(g.Lo)
		return !math.IsNaN(v) && !math.IsInf(v, 0)
	}
	return true
}

func (g Global) validate() error {
	var bits int
	switch g.Kind {
	case GlobalI32, GlobalF32:
		bits = 32
	case GlobalI64, GlobalF64:
		bits = 64
	case GlobalV128:
		return nil
	default:
		return fmt.Errorf("%w: %v", ErrMetadata, g.Kind)
	}
	if g.Hi != 0 || (bits == 32 && g.Lo>>32 != 0) {
		return fmt.Errorf("%w: %v wider than its type", ErrMetadata, g.Kind)
	}
	return nil
}

// Parts lists the data files that belong to m, in the order of the kinds and
// the chunks in the order of the list.
func (m *Metadata) Parts() []Part {
	parts := []Part{{Kind: WasmModule}, {Kind: WasmMemory}, {Kind: StableMemory}}
	for _, h := range m.WasmChunks {
		parts = append(parts, Part{Kind: WasmChunk, Hash: h})
	}
	return parts
}

// size is the declared size of a part; a chunk's is not declared.
func (m *Metadata) size(p Part) (size uint64, declared bool) {
	switch p.Kind {
	case WasmModule:
		return m.WasmModuleSize, true
	case WasmMemory:
		return m.WasmMemorySize, true
	case StableMemory:
		return m.StableMemorySize, true
	}
	return 0, false
}

// Validate checks m against the limits of a canister.
func (m *Metadata) Validate() error {
	for _, p := range m.Parts()[:3] {
		size, _ := m.size(p)
		if err := validSize(p.Kind, size); err != nil {
			return err
		}
	}
	if n := len(m.WasmChunks); n > MaxChunks {
		return fmt.Errorf("%w: %d wasm chunks, at most %d", ErrLimit, n, MaxChunks)
	}
	sorted := slices.SortedFunc(slices.Values(m.WasmChunks), compareHash)
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			return fmt.Errorf("%w: wasm chunk %x is listed twice", ErrMetadata, sorted[i])
		}
	}
	if n := len(m.Globals); n > MaxGlobals {
		return fmt.Errorf("%w: %d globals, at most %d", ErrLimit, n, MaxGlobals)
	}
	for i, g := range m.Globals {
		if err := g.validate(); err != nil {
			return fmt.Errorf("global %d: %w", i, err)
		}
	}
	if n := len(m.CertifiedData); n > MaxCertifiedData {
		return fmt.Errorf("%w: certified data of %d bytes, at most %d", ErrLimit, n, MaxCertifiedData)
	}
	if t := m.GlobalTimer; (t.Active && !t.Present) || (!t.Active && t.Deadline != 0) {
		return fmt.Errorf("%w: timer %+v", ErrMetadata, t)
	}
	if m.Source > SourceUploaded {
		return fmt.Errorf("%w: %v", ErrMetadata, m.Source)
	}
	if m.HookStatus > HookExecuted {
		return fmt.Errorf("%w: %v", ErrMetadata, m.HookStatus)
	}
	return nil
}

// validSize checks the size of a part.
func validSize(k Kind, size uint64) error {
	limit := uint64(MaxChunk)
	switch k {
	case WasmModule:
		limit = MaxWasmModule
	case WasmMemory:
		limit = MaxWasmMemory
	case StableMemory:
		limit = MaxStableMemory
	}
	if size > limit {
		return fmt.Errorf("%w: %v of %d bytes, at most %d", ErrLimit, k, size, limit)
	}
	if (k == WasmMemory || k == StableMemory) && size%wasmPage != 0 {
		return fmt.Errorf("%w: %v of %d bytes is not a multiple of 64 KiB", ErrSize, k, size)
	}
	return nil
}

func compareHash(a, b [32]byte) int { return slices.Compare(a[:], b[:]) }
