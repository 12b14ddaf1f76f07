package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/principal"
	"github.com/snapstore/snapstore/manifest"
)

// parseCanister reads a canister id. There are no prefixes: the checksum in it
// is what keeps a slip of the finger from another tenant's canister.
func parseCanister(text string) (engine.CanisterID, error) {
	id, err := engine.ParseCanisterID(text)
	if err == nil {
		return id, nil
	}
	// The words of the package that reads principals are the clearest.
	var why *principal.Error
	if !errors.As(err, &why) {
		return id, usageError(wholeCanister, "canister id %q: %w", clip(text), err)
	}
	return id, usageError(wholeCanister, "canister id %q: %w", clip(text), why)
}

const wholeCanister = `give the whole id as "snapstore canister ls" prints it, such as ryjl3-tyaaa-aaaaa-aaaba-cai`

func parseSection(text string) (engine.Section, error) {
	if text == "" {
		return engine.Section{}, usageError("pass --section "+strings.Join(sectionNames(), "|"), "no section was named")
	}
	s, err := manifest.ParseSection(text)
	if err != nil {
		return s, usageError("pass --section "+strings.Join(sectionNames(), "|"), "no section is called %q", clip(text))
	}
	return s, nil
}

func sectionNames() []string {
	return []string{engine.WasmModule.String(), engine.WasmMemory.String(), engine.StableMemory.String()}
}

func parseChunk(text string) (engine.Root, error) {
	id, err := chunk.ParseID(text)
	if err != nil || id.IsZero() {
		return id, usageError(`give 64 digits of lower-case hex; "snapstore snapshot show" and "snapstore inspect node" print such ids`, "%q is no id of a node or chunk", clip(text))
	}
	return id, nil
}

// snapshotPrefix is a snapshot id, or the beginning of one, in lower-case hex.
type snapshotPrefix string

func parseSnapshot(text string) (snapshotPrefix, error) {
	const longest = 2 * (8 + engine.MaxCanisterID)
	if text == "" || len(text) > longest || strings.Trim(text, "0123456789abcdef") != "" {
		return "", usageError(`give an id as "snapstore snapshot ls" prints it, or its beginning`,
			"snapshot id %q: want 1 to %d digits of lower-case hex", clip(text), longest)
	}
	return snapshotPrefix(text), nil
}

// resolve finds the one snapshot that p names, among those of one canister, or
// of the whole store where of is zero.
func (p snapshotPrefix) resolve(e *engine.Engine, of engine.CanisterID) (engine.SnapshotID, error) {
	// A whole id of a canister that is there is never taken for a prefix.
	if id, err := engine.ParseSnapshotID(string(p)); err == nil {
		if _, err := e.Canister(id.Canister); !errors.Is(err, engine.ErrNotFound) {
			return id, nil
		}
	}
	var found []engine.SnapshotID
	look := func(c engine.CanisterID) error {
		for info, err := range e.Snapshots(c) {
			if err != nil {
				return err
			}
			if strings.HasPrefix(info.ID.String(), string(p)) {
				found = append(found, info.ID)
			}
		}
		return nil
	}
	where := "the store"
	if !of.IsZero() {
		where = "canister " + of.String()
		if err := look(of); err != nil {
			return engine.SnapshotID{}, err
		}
	} else {
		for c, err := range e.Canisters() {
			if c.ID.IsZero() && err != nil {
				return engine.SnapshotID{}, err
			}
			if c.Damaged {
				continue // its snapshots can not be known; a whole id says so
			}
			if err := look(c.ID); err != nil {
				return engine.SnapshotID{}, err
			}
		}
	}
	switch len(found) {
	case 0:
		return engine.SnapshotID{}, fail(exitNotFound, `"snapstore snapshot ls" lists what is there`, "snapshot %s: not found in %s", p, where)
	case 1:
		return found[0], nil
	}
	const most = 8
	var names []string
	for _, id := range found[:min(len(found), most)] {
		names = append(names, id.String())
	}
	if len(found) > most {
		names = append(names, fmt.Sprintf("and %d more", len(found)-most))
	}
	return engine.SnapshotID{}, usageError("give more digits of the one you mean", "snapshot %s matches %d snapshots of %s: %s", p, len(found), where, strings.Join(names, ", "))
}

// bytesValue is a flag that takes a number of bytes, with an optional unit.
type bytesValue struct {
	n   uint64
	set bool
}

func (v *bytesValue) Type() string { return "BYTES" }

func (v *bytesValue) String() string {
	if !v.set {
		return ""
	}
	return strconv.FormatUint(v.n, 10)
}

// Set reads "4096", "64KiB", "1GiB".
func (v *bytesValue) Set(text string) error {
	digits, unit := text, uint64(1)
	for i, suffix := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if d, ok := strings.CutSuffix(text, suffix); ok {
			digits, unit = strings.TrimSpace(d), 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n > math.MaxInt64/unit {
		return fmt.Errorf("want bytes, such as 4096, 64KiB or 1GiB")
	}
	v.n, v.set = n*unit, true
	return nil
}

// clip keeps foreign input out of messages beyond a glance.
func clip(s string) string {
	const most = 90
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
