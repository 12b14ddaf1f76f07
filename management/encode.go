package management

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/snapstore/snapstore/manifest"
)

// The encoding of a state in the engine's host blob. Little-endian. Decoding
// accepts only what encoding would write.
const (
	stateMagic   = "SMGT"
	stateVersion = 1

	// maxState is what the engine keeps for a canister, in bytes.
	maxState = 64 << 10
)

// Where the fields are, in bytes; the table of docs/format.md is held to what
// encode writes.
const (
	atStateVersion = 4
	atBodyBytes    = 8
	atStatus       = 12
	atPending      = 13
	atFlags        = 14
	atCompute      = 15
	atVersion      = 16
	atBalance      = 24
	atReserved     = 40
	atLimit        = 56
	atMinimum      = 72
	atAllocation   = 88
	atFreezing     = 96
	atWasmLimit    = 104
	atWasmThresh   = 112
	atLogLimit     = 120
	atInstalled    = 128
	atCustom       = 136
	atChanges      = 144
	atTimer        = 152
	atHook         = 160
	atModuleHash   = 164
	atLists        = 196
)

const (
	flagModule  = 1 << 0
	flagWasm64  = 1 << 1
	flagLowHook = 1 << 2
	flagTimer   = 1 << 3
	flagsAll    = flagModule | flagWasm64 | flagLowHook | flagTimer
)

var errState = errors.New("malformed canister state")

// validate says what of s no decoder would take.
func (s *state) validate() error {
	switch {
	case s.status < Running || s.status > Stopped, s.pending&^pendingAll != 0, s.set.compute > 100,
		s.hook < manifest.HookConditionNotSatisfied || s.hook > manifest.HookExecuted,
		!s.timer.Active && s.timer.Deadline != 0:
		return fmt.Errorf("%w: fields", errState)
	}
	return nil
}

func (s *state) encode() ([]byte, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	b := make([]byte, 0, 1024)
	b = append(b, stateMagic...)
	b = le.AppendUint16(b, stateVersion)
	b = append(b, 0, 0)
	b = le.AppendUint32(b, 0)
	flags := byte(0)
	for i, f := range []bool{s.hasModule, s.wasm64, s.lowHook, s.timer.Active} {
		if f {
			flags |= 1 << i
		}
	}
	b = append(b, byte(s.status), byte(s.pending), flags, s.set.compute)
	b = le.AppendUint64(b, s.version)
	for _, c := range []Cycles{s.balance, s.reserved, s.set.reservedLimit, s.set.minimumIncoming} {
		b = le.AppendUint64(le.AppendUint64(b, c.lo), c.hi)
	}
	for _, v := range []uint64{
		s.set.memoryAllocation, s.set.freezingThreshold, s.set.wasmMemoryLimit, s.set.wasmMemoryThreshold,
		s.set.logMemoryLimit, s.lastInstall, s.custom, s.totalChanges, s.timer.Deadline,
	} {
		b = le.AppendUint64(b, v)
	}
	b = append(b, byte(s.hook), 0, 0, 0)
	b = append(b, s.moduleHash[:]...)
	b = appendList(b, s.set.controllers)
	for _, v := range []visibility{s.set.log, s.set.snapshot, s.set.stat} {
		b = append(b, byte(v.kind))
		b = appendList(b, v.viewers)
	}
	b = append(b, byte(len(s.set.environment)))
	for _, v := range s.set.environment {
		b = appendText(appendText(b, v.name), v.value)
	}
	b = append(b, byte(len(s.history)))
	for i := range s.history {
		b = s.history[i].append(b)
	}
	le.PutUint32(b[atBodyBytes:], uint32(len(b)-atStatus))
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli()))
	if len(b) > maxState {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errState, len(b), maxState)
	}
	return b, nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// appendText writes a length in a byte and the bytes; longer ones can not be,
// by Limits.
func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	return append(append(b, byte(len(s))), s...)
}

func appendList(b []byte, list []string) []byte {
	b = append(b, byte(len(list)))
	for _, s := range list {
		b = appendText(b, s)
	}
	return b
}

func appendFlag(b []byte, f bool) []byte {
	if f {
		return append(b, 1)
	}
	return append(b, 0)
}

func (c *change) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(le.AppendUint64(b, c.at), c.version)
	b = appendFlag(appendFlag(b, c.origin.canister), c.origin.hasVersion)
	b = le.AppendUint64(b, c.origin.version)
	b = appendText(b, c.origin.principal)
	b = append(b, byte(c.kind))
	switch c.kind {
	case changeCreation:
		b = appendList(append(b, c.environment[:]...), c.controllers)
	case changeDeployment:
		b = append(append(b, byte(c.mode)), c.module[:]...)
	case changeLoad:
		b = le.AppendUint64(le.AppendUint64(b, c.snapVer), c.taken)
		b = appendText(appendText(appendFlag(b, c.uploaded), c.from), string(c.snapshot))
	case changeControllers:
		b = appendList(b, c.controllers)
	}
	return b
}

// decodeState reads what encode wrote. It keeps no part of b.
func decodeState(b []byte) (*state, error) {
	le := binary.LittleEndian
	if len(b) > maxState || len(b) < atLists+4 || string(b[:4]) != stateMagic {
		return nil, fmt.Errorf("%w: %d bytes that do not begin as one", errState, len(b))
	}
	if v := le.Uint16(b[atStateVersion:]); v != stateVersion {
		return nil, fmt.Errorf("%w: version %d, this program knows %d", errState, v, stateVersion)
	}
	body := b[:len(b)-4]
	if b[6] != 0 || b[7] != 0 || uint64(le.Uint32(b[atBodyBytes:])) != uint64(len(body)-atStatus) {
		return nil, fmt.Errorf("%w: length", errState)
	}
	if le.Uint32(b[len(body):]) != crc32.Checksum(body, castagnoli()) {
		return nil, fmt.Errorf("%w: checksum", errState)
	}
	r := &stateReader{b: body[atStatus:]}
	s := &state{status: CanisterStatus(r.byte()), pending: pending(r.byte())}
	flags := r.byte()
	s.hasModule, s.wasm64, s.lowHook = flags&flagModule != 0, flags&flagWasm64 != 0, flags&flagLowHook != 0
	s.timer = Timer{Present: true, Active: flags&flagTimer != 0}
	s.set.compute = r.byte()
	s.version = r.uint64()
	for _, c := range []*Cycles{&s.balance, &s.reserved, &s.set.reservedLimit, &s.set.minimumIncoming} {
		c.lo, c.hi = r.uint64(), r.uint64()
	}
	for _, v := range []*uint64{
		&s.set.memoryAllocation, &s.set.freezingThreshold, &s.set.wasmMemoryLimit, &s.set.wasmMemoryThreshold,
		&s.set.logMemoryLimit, &s.lastInstall, &s.custom, &s.totalChanges, &s.timer.Deadline,
	} {
		*v = r.uint64()
	}
	s.hook = HookStatus(r.byte())
	if zero := r.take(3); len(zero) == 3 && zero[0]|zero[1]|zero[2] != 0 {
		r.fail()
	}
	copy(s.moduleHash[:], r.take(32))
	s.set.controllers = r.list()
	for _, v := range []*visibility{&s.set.log, &s.set.snapshot, &s.set.stat} {
		v.kind, v.viewers = visibilityKind(r.byte()), r.list()
		if v.kind > visibleToViewers || v.kind != visibleToViewers && len(v.viewers) > 0 {
			r.fail()
		}
	}
	for range r.byte() {
		s.set.environment = append(s.set.environment, variable{r.text(), r.text()})
	}
	for range r.byte() {
		s.history = append(s.history, r.change())
	}
	if r.bad || len(r.b) > 0 || flags&^flagsAll != 0 {
		return nil, fmt.Errorf("%w: fields", errState)
	}
	return s, s.validate()
}

// stateReader reads from the front of b; once bad, all it gives is zero.
type stateReader struct {
	b   []byte
	bad bool
}

func (r *stateReader) fail() { r.bad, r.b = true, nil }

func (r *stateReader) take(n int) []byte {
	if n > len(r.b) {
		r.fail()
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *stateReader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *stateReader) flag() bool {
	f := r.byte()
	if f > 1 {
		r.fail()
	}
	return f == 1
}

func (r *stateReader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *stateReader) text() string { return string(r.take(int(r.byte()))) }

func (r *stateReader) list() []string {
	var out []string
	for range r.byte() {
		out = append(out, r.text())
	}
	return out
}

func (r *stateReader) change() change {
	c := change{at: r.uint64(), version: r.uint64()}
	c.origin = origin{canister: r.flag(), hasVersion: r.flag(), version: r.uint64(), principal: r.text()}
	switch c.kind = changeKind(r.byte()); c.kind {
	case changeCreation:
		copy(c.environment[:], r.take(32))
		c.controllers = r.list()
	case changeUninstall:
	case changeDeployment:
		c.mode = InstallKind(r.byte())
		copy(c.module[:], r.take(32))
		if c.mode < Install || c.mode > Upgrade {
			r.fail()
		}
	case changeLoad:
		c.snapVer, c.taken, c.uploaded, c.from = r.uint64(), r.uint64(), r.flag(), r.text()
		c.snapshot = []byte(r.text())
	case changeControllers:
		c.controllers = r.list()
	default:
		r.fail()
	}
	return c
}
