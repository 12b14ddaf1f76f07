package management

import (
	"slices"

	"github.com/snapstore/snapstore/engine"
)

func (by Caller) origin() origin {
	return origin{canister: by.Canister, principal: string(by.Principal), version: by.versionIfAny(), hasVersion: by.Canister}
}

func (by Caller) versionIfAny() uint64 {
	if by.Canister {
		return by.Version
	}
	return 0
}

// sender holds the version that a canister says it has against the one that it
// has. Users have none, so what they say counts nothing.
func sender(by Caller, said *uint64) error {
	if said == nil || !by.Canister || *said == by.Version {
		return nil
	}
	return reject(CodeCanisterContractViolation,
		"Management canister call payload includes sender canister version %d that does not match the actual sender canister version %d.", *said, by.Version)
}

// controller refuses callers who do not control the canister.
func controller(c *canister, st *state, by Caller) error {
	if st.controls(string(by.Principal)) {
		return nil
	}
	return notController(c.id, st, by)
}

func notController(id engine.CanisterID, st *state, by Caller) *Reject {
	var names []string
	for _, p := range st.set.controllers {
		names = append(names, text([]byte(p)))
	}
	slices.Sort(names)
	return reject(CodeCanisterInvalidController,
		"Only the controllers of the canister %s can control it.\nCanister's controllers: %v\nSender's ID: %s", id, names, text(by.Principal))
}

// viewer refuses callers who may not look.
func viewer(c *canister, st *state, v visibility, by Caller) error {
	if st.controls(string(by.Principal)) || v.allows(string(by.Principal)) {
		return nil
	}
	return notController(c.id, st, by)
}

// snapshotID reads a snapshot id of an argument.
func snapshotID(b []byte) (engine.SnapshotID, error) {
	id, err := engine.SnapshotIDFromBytes(b)
	if err != nil {
		return id, undecodable(err)
	}
	return id, nil
}

func optSnapshotID(b *[]byte) (engine.SnapshotID, error) {
	if b == nil {
		return engine.SnapshotID{}, nil
	}
	return snapshotID(*b)
}
