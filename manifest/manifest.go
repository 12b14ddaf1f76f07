package manifest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/snapstore/snapstore/chunk"
)

// ErrMalformed is behind every refusal to decode or to encode.
var ErrMalformed = errors.New("malformed")

// MaxSections bounds the sections of a manifest: module, two memories, and
// more entries than the wasm chunk store can hold (100).
const MaxSections = 128

const (
	maxSectionRootSize = 1 + 32 + 8 + chunk.IDSize

	// MaxManifestSize bounds an encoded manifest.
	MaxManifestSize = headerSize + 1 + MaxSections*maxSectionRootSize + maxMetadataSize
)

// Manifest is everything a state is. Its ID stands for all of it.
type Manifest struct {
	Sections []SectionRoot // ascending, no section twice
	Meta     Metadata
}

// Section returns the root of a section; a section that is not there has
// size 0.
func (m *Manifest) Section(s Section) (SectionRoot, bool) {
	i, ok := slices.BinarySearchFunc(m.Sections, s, func(r SectionRoot, s Section) int { return r.Section.Compare(s) })
	if !ok {
		return SectionRoot{Section: s}, false
	}
	return m.Sections[i], true
}

// LogicalSize is what a tenant is charged for the state: memories and module
// by their byte length, written or not, a flat MiB for each stored wasm chunk,
// the certified data, and 8 bytes for each global, 16 for a v128. No sharing
// lowers it. A sum beyond 64 bits, which no valid manifest has, saturates.
func (m *Manifest) LogicalSize() uint64 {
	const storedChunk = 1 << 20
	var sum uint64
	add := func(n uint64) {
		if sum += n; sum < n {
			sum = math.MaxUint64
		}
	}
	for _, s := range m.Sections {
		if s.Section.Kind == WasmChunk {
			add(storedChunk)
		} else {
			add(s.Size)
		}
		if sum == math.MaxUint64 {
			return sum
		}
	}
	add(uint64(len(m.Meta.CertifiedData)))
	for _, g := range m.Meta.Globals {
		if g.Kind == GlobalV128 {
			add(16)
		} else {
			add(8)
		}
	}
	return sum
}

// Validate says what of m could not be encoded.
func (m *Manifest) Validate() error {
	if n := len(m.Sections); n > MaxSections {
		return fmt.Errorf("%w: %d sections, limit %d", ErrMalformed, n, MaxSections)
	}
	for i, s := range m.Sections {
		if err := s.validate(); err != nil {
			return err
		}
		if i > 0 && m.Sections[i-1].Section.Compare(s.Section) >= 0 {
			return fmt.Errorf("%w: %v out of order", ErrMalformed, s.Section)
		}
	}
	return m.Meta.Validate()
}

// Encode gives the canonical bytes, the input of NodeID.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	b := append(make([]byte, 0, 256), byte(KindManifest), manifestVersion, 0, byte(len(m.Sections)))
	for _, s := range m.Sections {
		b = append(b, byte(s.Section.Kind))
		if s.Section.Kind == WasmChunk {
			b = append(b, s.Section.Hash[:]...)
		}
		b = binary.LittleEndian.AppendUint64(b, s.Size)
		b = append(b, s.Root[:]...)
	}
	return m.Meta.append(b), nil
}

// Decode reads what Encode writes and refuses everything else.
func Decode(encoded []byte) (*Manifest, error) {
	r := reader{b: encoded}
	if Kind(r.byte()) != KindManifest || r.byte() != manifestVersion || r.byte() != 0 {
		return nil, fmt.Errorf("manifest: %w: not a manifest of version %d", ErrMalformed, manifestVersion)
	}
	n := int(r.byte())
	if n > MaxSections || n > r.left() {
		return nil, fmt.Errorf("manifest: %w: %d sections in %d bytes", ErrMalformed, n, r.left())
	}
	m := new(Manifest)
	if n > 0 {
		m.Sections = make([]SectionRoot, n)
	}
	for i := range m.Sections {
		s := &m.Sections[i]
		s.Section.Kind = SectionKind(r.byte())
		if s.Section.Kind == WasmChunk {
			copy(s.Section.Hash[:], r.take(len(s.Section.Hash)))
		}
		s.Size = r.uint64()
		copy(s.Root[:], r.take(chunk.IDSize))
	}
	m.Meta.read(&r)
	if r.bad || r.left() != 0 {
		return nil, fmt.Errorf("manifest: %w: cut short or too long", ErrMalformed)
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
}

// Load reads a manifest. The zero ID is the state of nothing: no sections.
func Load(ctx context.Context, g Getter, id chunk.ID) (*Manifest, error) {
	if id.IsZero() {
		return new(Manifest), nil
	}
	b, err := g.Node(ctx, id)
	if err != nil {
		return nil, &NodeError{Place: manifestPlace(), ID: id, Err: err}
	}
	m, err := Decode(b)
	if err != nil {
		return nil, &NodeError{Place: manifestPlace(), ID: id, Err: err}
	}
	return m, nil
}

// reader takes fixed-size fields off a slice; past the end it gives zeros and
// remembers.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) left() int { return len(r.b) }

func (r *reader) fail() { r.bad, r.b = true, nil }

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail()
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if p := r.take(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if p := r.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if p := r.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}
