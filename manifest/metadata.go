package manifest

import (
	"encoding/binary"
	"fmt"
)

// The bounds of a metadata record, from the interface of the management canister.
const (
	MaxGlobals       = 1000
	MaxCertifiedData = 32
)

// Source says how a state came to be.
type Source uint8

// The sources. SourceNone is for a live state that nobody took.
const (
	SourceNone     Source = 0
	SourceTaken    Source = 1
	SourceUploaded Source = 2
)

// String names the source.
func (s Source) String() string {
	switch s {
	case SourceNone:
		return "none"
	case SourceTaken:
		return "taken"
	case SourceUploaded:
		return "uploaded"
	}
	return fmt.Sprintf("source-%d", uint8(s))
}

// ParseSource parses what String prints for a valid source.
func ParseSource(text string) (Source, error) {
	for s := SourceNone; s <= SourceUploaded; s++ {
		if text == s.String() {
			return s, nil
		}
	}
	return 0, fmt.Errorf("manifest: source %.40q: want none, taken or uploaded", text)
}

// GlobalKind is the type of a Wasm global.
type GlobalKind uint8

// The kinds of globals.
const (
	GlobalI32  GlobalKind = 1
	GlobalI64  GlobalKind = 2
	GlobalF32  GlobalKind = 3
	GlobalF64  GlobalKind = 4
	GlobalV128 GlobalKind = 5
)

// String returns the type's name in Wasm text.
func (k GlobalKind) String() string {
	switch k {
	case GlobalI32:
		return "i32"
	case GlobalI64:
		return "i64"
	case GlobalF32:
		return "f32"
	case GlobalF64:
		return "f64"
	case GlobalV128:
		return "v128"
	}
	return fmt.Sprintf("global-kind-%d", uint8(k))
}

// ParseGlobalKind parses what String prints for a valid kind.
func ParseGlobalKind(text string) (GlobalKind, error) {
	for k := GlobalI32; k <= GlobalV128; k++ {
		if text == k.String() {
			return k, nil
		}
	}
	return 0, fmt.Errorf("manifest: global kind %.40q: want i32, i64, f32, f64 or v128", text)
}

// width is the number of bytes of a value in the encoding; 0 for no such kind.
func (k GlobalKind) width() int {
	switch k {
	case GlobalI32, GlobalF32:
		return 4
	case GlobalI64, GlobalF64:
		return 8
	case GlobalV128:
		return 16
	}
	return 0
}

// Global is the value of a Wasm global, as bits: floats by their IEEE 754
// pattern, so that every NaN survives.
type Global struct {
	Kind   GlobalKind
	Lo, Hi uint64 // Hi only for v128; the upper half of Lo is zero for i32, f32
}

func (g Global) validate() error {
	w := g.Kind.width()
	if w == 0 {
		return fmt.Errorf("%w: %v", ErrMalformed, g.Kind)
	}
	if (w < 16 && g.Hi != 0) || (w < 8 && g.Lo>>32 != 0) {
		return fmt.Errorf("%w: %v wider than its type", ErrMalformed, g.Kind)
	}
	return nil
}

// Timer is the global timer: absent, inactive, or active with a deadline.
type Timer struct {
	Present, Active bool
	Deadline        uint64 // nanoseconds since 1970, only when active
}

func (t Timer) validate() error {
	if (t.Active && !t.Present) || (!t.Active && t.Deadline != 0) {
		return fmt.Errorf("%w: timer %+v", ErrMalformed, t)
	}
	return nil
}

// HookStatus is the state of the low-wasm-memory hook.
type HookStatus uint8

// The hook's states.
const (
	HookAbsent                HookStatus = 0
	HookConditionNotSatisfied HookStatus = 1
	HookReady                 HookStatus = 2
	HookExecuted              HookStatus = 3
)

// String returns the name that the Candid interface uses.
func (h HookStatus) String() string {
	switch h {
	case HookAbsent:
		return "absent"
	case HookConditionNotSatisfied:
		return "condition_not_satisfied"
	case HookReady:
		return "ready"
	case HookExecuted:
		return "executed"
	}
	return fmt.Sprintf("hook-status-%d", uint8(h))
}

// ParseHookStatus parses what String prints for a valid status.
func ParseHookStatus(text string) (HookStatus, error) {
	for h := HookAbsent; h <= HookExecuted; h++ {
		if text == h.String() {
			return h, nil
		}
	}
	return 0, fmt.Errorf("manifest: hook status %.40q: want absent, condition_not_satisfied, ready or executed", text)
}

// Metadata is what a state holds beside its sections. The list of stored wasm
// chunks is not here: it is the WasmChunk sections.
type Metadata struct {
	Source          Source
	TakenAt         uint64 // nanoseconds since 1970
	CanisterVersion uint64
	CertifiedData   []byte // at most MaxCertifiedData
	Globals         []Global
	GlobalTimer     Timer
	HookStatus      HookStatus
}

// Validate says what of m could not be encoded.
func (m *Metadata) Validate() error {
	if m.Source > SourceUploaded {
		return fmt.Errorf("%w: %v", ErrMalformed, m.Source)
	}
	if n := len(m.CertifiedData); n > MaxCertifiedData {
		return fmt.Errorf("%w: %d bytes of certified data, limit %d", ErrMalformed, n, MaxCertifiedData)
	}
	if n := len(m.Globals); n > MaxGlobals {
		return fmt.Errorf("%w: %d globals, limit %d", ErrMalformed, n, MaxGlobals)
	}
	for i, g := range m.Globals {
		if err := g.validate(); err != nil {
			return fmt.Errorf("global %d: %w", i, err)
		}
	}
	if m.HookStatus > HookExecuted {
		return fmt.Errorf("%w: %v", ErrMalformed, m.HookStatus)
	}
	return m.GlobalTimer.validate()
}

// maxMetadataSize bounds an encoded Metadata.
const maxMetadataSize = 1 + 8 + 8 + 1 + MaxCertifiedData + 2 + MaxGlobals*(1+16) + 1 + 8 + 1

const (
	timerAbsent   = 0
	timerInactive = 1
	timerActive   = 2
)

func (m *Metadata) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, byte(m.Source))
	b = le.AppendUint64(b, m.TakenAt)
	b = le.AppendUint64(b, m.CanisterVersion)
	b = append(b, byte(len(m.CertifiedData)))
	b = append(b, m.CertifiedData...)
	b = le.AppendUint16(b, uint16(len(m.Globals)))
	for _, g := range m.Globals {
		b = append(b, byte(g.Kind))
		switch g.Kind.width() {
		case 4:
			b = le.AppendUint32(b, uint32(g.Lo))
		case 8:
			b = le.AppendUint64(b, g.Lo)
		case 16:
			b = le.AppendUint64(le.AppendUint64(b, g.Lo), g.Hi)
		}
	}
	switch {
	case m.GlobalTimer.Active:
		b = le.AppendUint64(append(b, timerActive), m.GlobalTimer.Deadline)
	case m.GlobalTimer.Present:
		b = append(b, timerInactive)
	default:
		b = append(b, timerAbsent)
	}
	return append(b, byte(m.HookStatus))
}

func (m *Metadata) read(r *reader) {
	m.Source = Source(r.byte())
	m.TakenAt = r.uint64()
	m.CanisterVersion = r.uint64()
	if n := int(r.byte()); n > 0 {
		m.CertifiedData = append([]byte(nil), r.take(n)...)
	}
	n := int(r.uint16())
	if n > MaxGlobals || n > r.left() {
		r.fail()
		return
	}
	if n > 0 {
		m.Globals = make([]Global, n)
	}
	for i := range m.Globals {
		g := &m.Globals[i]
		g.Kind = GlobalKind(r.byte())
		switch g.Kind.width() {
		case 4:
			g.Lo = uint64(r.uint32())
		case 8:
			g.Lo = r.uint64()
		case 16:
			g.Lo, g.Hi = r.uint64(), r.uint64()
		default:
			r.fail()
			return
		}
	}
	switch r.byte() {
	case timerAbsent:
	case timerInactive:
		m.GlobalTimer.Present = true
	case timerActive:
		m.GlobalTimer = Timer{Present: true, Active: true, Deadline: r.uint64()}
	default:
		r.fail()
	}
	m.HookStatus = HookStatus(r.byte())
}
