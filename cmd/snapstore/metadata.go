package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/ui"
	"github.com/snapstore/snapstore/manifest"
)

// metadataResult is what a state holds beside its sections, in JSON.
type metadataResult struct {
	CanisterVersion uint64         `json:"canister_version"`
	CertifiedData   string         `json:"certified_data"` // hex
	Globals         []globalResult `json:"globals"`
	GlobalTimer     string         `json:"global_timer"` // absent, inactive, active
	TimerDeadline   uint64         `json:"timer_deadline,omitempty"`
	HookStatus      string         `json:"on_low_wasm_memory_hook_status"`
}

// globalResult is a Wasm global: its bits are exact, the value is for eyes.
type globalResult struct {
	Kind  string `json:"kind"`
	Bits  string `json:"bits"` // hex, highest first
	Value string `json:"value"`
}

func toMetadata(m engine.Metadata) metadataResult {
	r := metadataResult{
		CanisterVersion: m.CanisterVersion, CertifiedData: hex.EncodeToString(m.CertifiedData), Globals: []globalResult{},
		GlobalTimer: "absent", HookStatus: m.HookStatus.String(),
	}
	for _, g := range m.Globals {
		r.Globals = append(r.Globals, toGlobal(g))
	}
	switch {
	case m.GlobalTimer.Active:
		r.GlobalTimer, r.TimerDeadline = "active", m.GlobalTimer.Deadline
	case m.GlobalTimer.Present:
		r.GlobalTimer = "inactive"
	}
	return r
}

func toGlobal(g manifest.Global) globalResult {
	r := globalResult{Kind: g.Kind.String()}
	switch g.Kind {
	case manifest.GlobalI32:
		r.Bits, r.Value = fmt.Sprintf("%08x", g.Lo), strconv.FormatInt(int64(int32(g.Lo)), 10)
	case manifest.GlobalF32:
		r.Bits, r.Value = fmt.Sprintf("%08x", g.Lo), strconv.FormatFloat(float64(math.Float32frombits(uint32(g.Lo))), 'g', -1, 32)
	case manifest.GlobalI64:
		r.Bits, r.Value = fmt.Sprintf("%016x", g.Lo), strconv.FormatInt(int64(g.Lo), 10)
	case manifest.GlobalF64:
		r.Bits, r.Value = fmt.Sprintf("%016x", g.Lo), strconv.FormatFloat(math.Float64frombits(g.Lo), 'g', -1, 64)
	default:
		n := new(big.Int).SetUint64(g.Hi)
		n.Or(n.Lsh(n, 64), new(big.Int).SetUint64(g.Lo))
		r.Bits, r.Value = fmt.Sprintf("%016x%016x", g.Hi, g.Lo), n.String()
	}
	return r
}

// facts are the pairs that stand under those of a state.
func (m metadataResult) facts() []string {
	timer := m.GlobalTimer
	if timer == "active" {
		timer += " until " + strconv.FormatUint(m.TimerDeadline, 10) + " ns"
	}
	data := m.CertifiedData
	if data == "" {
		data = "none"
	}
	return []string{
		"canister version", strconv.FormatUint(m.CanisterVersion, 10),
		"certified data", data,
		"global timer", timer,
		"low memory hook", m.HookStatus,
		"globals", ui.Count(uint64(len(m.Globals))),
	}
}

// globalTable writes the globals, if there are any.
func (m metadataResult) globalTable(w io.Writer) {
	var rows [][]string
	for i, g := range m.Globals {
		rows = append(rows, []string{strconv.Itoa(i), g.Kind, g.Value, g.Bits})
	}
	if len(rows) > 0 {
		table(w, []string{">GLOBAL", "TYPE", ">VALUE", "BITS"}, rows)
	}
}
