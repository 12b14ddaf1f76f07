package snapdir

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

// Encode writes m as the tools do. A float global that is NaN or infinite
// becomes null, which JSON can not do better; see Sums.Floats.
func (m *Metadata) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, fileError(metadataName, err)
	}
	var b bytes.Buffer
	b.WriteString(`{"source":`)
	if m.Source == SourceAbsent {
		b.WriteString("null")
	} else {
		b.WriteString(`{"` + m.Source.String() + `":null}`)
	}
	number := func(key string, n uint64) {
		b.WriteString(`,"` + key + `":` + strconv.FormatUint(n, 10))
	}
	number("taken_at_timestamp", m.TakenAt)
	number("wasm_module_size", m.WasmModuleSize)
	b.WriteString(`,"globals":[`)
	for i, g := range m.Globals {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"` + g.Kind.String() + `":` + g.jsonValue() + `}`)
	}
	b.WriteByte(']')
	number("wasm_memory_size", m.WasmMemorySize)
	number("stable_memory_size", m.StableMemorySize)
	b.WriteString(`,"wasm_chunk_store":[`)
	for i, h := range m.WasmChunks {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"hash":` + jsonList(h[:]) + `}`)
	}
	b.WriteByte(']')
	number("canister_version", m.CanisterVersion)
	b.WriteString(`,"certified_data":` + jsonList(m.CertifiedData))
	b.WriteString(`,"global_timer":`)
	switch {
	case !m.GlobalTimer.Present:
		b.WriteString("null")
	case !m.GlobalTimer.Active:
		b.WriteString(`"inactive"`)
	default:
		b.WriteString(`{"active":` + strconv.FormatUint(m.GlobalTimer.Deadline, 10) + `}`)
	}
	b.WriteString(`,"on_low_wasm_memory_hook_status":`)
	if m.HookStatus == HookAbsent {
		b.WriteString("null")
	} else {
		b.WriteString(`"` + m.HookStatus.String() + `"`)
	}
	b.WriteByte('}')
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, b.Bytes(), "", "  "); err != nil {
		return nil, fileError(metadataName, err)
	}
	return pretty.Bytes(), nil
}

func (g Global) jsonValue() string {
	switch g.Kind {
	case GlobalI32:
		return strconv.FormatInt(int64(int32(uint32(g.Lo))), 10)
	case GlobalI64:
		return strconv.FormatInt(int64(g.Lo), 10)
	case GlobalV128:
		digits := []uint64{g.Lo & math.MaxUint32, g.Lo >> 32, g.Hi & math.MaxUint32, g.Hi >> 32}
		for len(digits) > 0 && digits[len(digits)-1] == 0 {
			digits = digits[:len(digits)-1]
		}
		return jsonList(digits)
	}
	if !g.finite() {
		return "null"
	}
	var s string
	if g.Kind == GlobalF32 {
		s = strconv.FormatFloat(float64(math.Float32frombits(uint32(g.Lo))), 'g', -1, 32)
	} else {
		s = strconv.FormatFloat(math.Float64frombits(g.Lo), 'g', -1, 64)
	}
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}

// jsonList writes numbers; of bytes too, which the standard encoder would
// write as base64.
func jsonList[T byte | uint64](list []T) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, n := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(uint64(n), 10))
	}
	b.WriteByte(']')
	return b.String()
}
