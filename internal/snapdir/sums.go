package snapdir

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/zeebo/blake3"
)

const (
	sumsFormat  = "snapstore-sums"
	sumsVersion = 1
)

// Sums is what snapstore.sums.json holds: what the tools' format can not say.
type Sums struct {
	// Root is the snapshot's root in the store it was exported from; zero when
	// unknown.
	Root [32]byte
	// Floats holds the bits of the float globals that are null in
	// metadata.json, by ascending index.
	Floats []FloatBits
	// Files are metadata.json and every part, in the order of Metadata.Parts.
	Files []FileSum
}

// FloatBits is the exact value of a NaN or infinite global.
type FloatBits struct {
	Index int
	Global
}

// FileSum is the size and the BLAKE3 hash of a file. Comparable.
type FileSum struct {
	Path   string
	Size   int64
	BLAKE3 [32]byte
}

// The JSON form. Hashes and bits are fixed-length lower-case hex.
type (
	sumsJSON struct {
		Format  string      `json:"format"`
		Version int         `json:"version"`
		Root    string      `json:"snapshot_root,omitempty"`
		Floats  []floatJSON `json:"float_globals,omitempty"`
		Files   []fileJSON  `json:"files"`
		// Self is the BLAKE3 of this file with an empty Self.
		Self string `json:"self"`
	}
	floatJSON struct {
		Index int    `json:"index"`
		Kind  string `json:"kind"`
		Bits  string `json:"bits"`
	}
	fileJSON struct {
		Path   string `json:"path"`
		Size   int64  `json:"size"`
		BLAKE3 string `json:"blake3"`
	}
)

// Encode writes the one text that stands for s.
func (s *Sums) Encode() ([]byte, error) {
	j := sumsJSON{Format: sumsFormat, Version: sumsVersion, Files: []fileJSON{}}
	if s.Root != [32]byte{} {
		j.Root = hex.EncodeToString(s.Root[:])
	}
	for _, f := range s.Floats {
		digits := 16
		if f.Kind == GlobalF32 {
			digits = 8
		}
		j.Floats = append(j.Floats, floatJSON{f.Index, f.Kind.String(), fmt.Sprintf("%0*x", digits, f.Lo)})
	}
	for _, f := range s.Files {
		j.Files = append(j.Files, fileJSON{f.Path, f.Size, hex.EncodeToString(f.BLAKE3[:])})
	}
	open, err := encodeJSON(&j)
	if err != nil {
		return nil, err
	}
	self := blake3.Sum256(open)
	j.Self = hex.EncodeToString(self[:])
	return encodeJSON(&j)
}

func encodeJSON(j *sumsJSON) ([]byte, error) {
	b, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// ParseSums reads what Encode wrote, byte for byte; anything else is ErrSums,
// and what a newer version wrote is ErrNewerFormat.
func ParseSums(data []byte) (*Sums, error) {
	refuse := func(err error) (*Sums, error) {
		return nil, fileError(sumsName, fmt.Errorf("%w: %w", ErrSums, err))
	}
	if len(data) > maxJSON {
		return refuse(fmt.Errorf("more than %d bytes", maxJSON))
	}
	var j sumsJSON
	err := json.Unmarshal(data, &j)
	// A newer version may have other fields of other types; its number says so.
	if j.Format == sumsFormat && j.Version > sumsVersion {
		return nil, fileError(sumsName, fmt.Errorf("version %d: %w", j.Version, ErrNewerFormat))
	}
	if err != nil {
		return refuse(err)
	}
	if j.Format != sumsFormat || j.Version != sumsVersion {
		return refuse(fmt.Errorf("format %.40q version %d", j.Format, j.Version))
	}
	if len(j.Files) > 4+MaxChunks || len(j.Floats) > MaxGlobals {
		return refuse(fmt.Errorf("%d files and %d globals", len(j.Files), len(j.Floats)))
	}
	s := &Sums{}
	if j.Root != "" {
		if s.Root, err = parseHash(j.Root); err != nil {
			return refuse(err)
		}
	}
	for i, f := range j.Floats {
		if f.Index < 0 || f.Index >= MaxGlobals || (i > 0 && f.Index <= j.Floats[i-1].Index) {
			return refuse(fmt.Errorf("global %d is out of order", f.Index))
		}
		kind, err := variantNumber(globalNames(), f.Kind)
		if err != nil {
			return refuse(err)
		}
		g := Global{Kind: GlobalKind(kind)}
		if g.Lo, err = strconv.ParseUint(f.Bits, 16, 64); err != nil {
			return refuse(err)
		}
		if g.validate() != nil || g.finite() {
			return refuse(fmt.Errorf("global %d: %.40q is not a NaN or infinite float", f.Index, f.Bits))
		}
		s.Floats = append(s.Floats, FloatBits{f.Index, g})
	}
	for _, f := range j.Files {
		sum, err := parseHash(f.BLAKE3)
		if err != nil {
			return refuse(err)
		}
		s.Files = append(s.Files, FileSum{f.Path, f.Size, sum})
	}
	again, err := s.Encode()
	if err != nil {
		return refuse(err)
	}
	if !bytes.Equal(again, data) {
		return refuse(fmt.Errorf("it was changed after it was written"))
	}
	return s, nil
}

func parseHash(text string) (h [32]byte, err error) {
	if len(text) != 64 {
		return h, fmt.Errorf("hash of %d digits, want 64", len(text))
	}
	_, err = hex.Decode(h[:], []byte(text))
	return h, err
}

// apply checks that s is of the snapshot that m and files describe, and puts
// the exact floats into m. Of files the first, metadata.json, has its hash.
func (s *Sums) apply(m *Metadata, lost []int, files []FileSum) error {
	refuse := func(format string, args ...any) error {
		return fileError(sumsName, fmt.Errorf("%w: "+format, append([]any{ErrSums}, args...)...))
	}
	if len(s.Files) != len(files) {
		return refuse("%d files, the metadata calls for %d", len(s.Files), len(files))
	}
	for i, f := range s.Files {
		if f.Path != files[i].Path {
			return refuse("file %.80q where %q belongs", f.Path, files[i].Path)
		}
		if f.Size != files[i].Size {
			return fileError(f.Path, fmt.Errorf("%w: %d bytes, the sums say %d", ErrSize, files[i].Size, f.Size))
		}
	}
	if len(files) > 0 && s.Files[0].BLAKE3 != files[0].BLAKE3 {
		return fileError(metadataName, ErrSumMismatch)
	}
	exact := make(map[int]Global, len(s.Floats))
	for _, f := range s.Floats {
		exact[f.Index] = f.Global
	}
	for _, i := range lost {
		g, ok := exact[i]
		if !ok || (m.Globals[i].Kind != g.Kind) {
			return lostError(i)
		}
		m.Globals[i] = g
		delete(exact, i)
	}
	if len(exact) > 0 {
		return refuse("values for globals that are not null")
	}
	return nil
}
