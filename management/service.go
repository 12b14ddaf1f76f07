package management

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/manifest"
)

// Caller made a call.
type Caller struct {
	// Principal of a user or a canister.
	Principal []byte
	// Canister tells a call of a canister from an ingress message.
	Canister bool
	// Version is the calling canister's, against which sender_canister_version
	// is held.
	Version uint64
	// Cycles came with the call. A call that succeeds and takes cycles takes
	// all of them; any other leaves them to the host to refund.
	Cycles Cycles
}

// Service answers calls of the management canister for the canisters of one
// engine. It owns their host blobs.
type Service struct {
	e    *engine.Engine
	host Host
	cfg  Config

	mu    sync.Mutex
	table map[engine.CanisterID]*canister
	// creating counts canisters that are on their way into the table, adopting
	// names those that Adopt brings.
	creating int
	adopting map[engine.CanisterID]bool
	// allocated is the sum of what canisters have of the subnet's memory, with
	// what changes under way hold.
	allocated uint64
	// heapDelta is what changed since the replica's last checkpoint, in bytes.
	heapDelta uint64
	// minted and burned are of this Service since New; what canisters had then
	// counts as minted.
	minted, burned Cycles

	modules moduleCache
}

// canister is an entry of the Service's table.
type canister struct {
	id   engine.CanisterID
	live *engine.Canister
	// op admits one call at a time.
	op chan struct{}
	st atomic.Pointer[state]
	// revert says that a change failed half way in memory and could not be
	// undone yet. Guarded by op.
	revert bool
	// gone is set once the canister is deleted. Guarded by op.
	gone bool
	// counted and held are what the canister has in Service.allocated: measured,
	// and for the change under way. debit is what it changed in this round. All
	// in bytes, guarded by Service.mu.
	counted, held, debit uint64
}

func (c *canister) state() *state { return c.st.Load() }

// New makes a Service for an engine, with the canisters in it that have a
// state of this package; Adopt takes in others. A nil host is a DefaultHost, a
// nil cfg all defaults. It finishes what a crash left half done, as far as the
// disk lets it. The engine stays the caller's to close, after the last call.
func New(ctx context.Context, e *engine.Engine, host Host, cfg *Config) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("management: %w", err)
	}
	if host == nil {
		host = new(DefaultHost)
	}
	s := &Service{e: e, host: host, cfg: cfg.withDefaults(), table: map[engine.CanisterID]*canister{}, adopting: map[engine.CanisterID]bool{}}
	for info, err := range e.Canisters() {
		// One whose live state can not be read opens, to load a snapshot.
		if err != nil && (info.HostBytes == 0 || !errors.Is(err, engine.ErrCorrupt)) {
			return nil, fmt.Errorf("management: %w", err)
		}
		if info.Damaged || info.HostBytes == 0 {
			continue
		}
		if err := s.open(ctx, info.ID); err != nil {
			return nil, fmt.Errorf("management: canister %s: %w", info.ID, err)
		}
	}
	return s, nil
}

// open enters a canister that has a state.
func (s *Service) open(ctx context.Context, id engine.CanisterID) error {
	live, err := s.e.Canister(id)
	if err != nil {
		return err
	}
	blob, err := live.Host()
	if err != nil {
		return err
	}
	st, err := decodeState(blob)
	if err != nil {
		return err
	}
	c := s.enter(id, live, st, st.balance.Add(st.reserved))
	defer c.unlock()
	// What can not be finished now is finished by the next call, or refuses it.
	if err := s.settle(ctx, c); err != nil && ctx.Err() != nil {
		return err
	}
	return s.account(c)
}

// enter puts a canister into the table, locked.
func (s *Service) enter(id engine.CanisterID, live *engine.Canister, st *state, minted Cycles) *canister {
	c := &canister{id: id, live: live, op: make(chan struct{}, 1)}
	c.st.Store(st)
	c.op <- struct{}{}
	s.mu.Lock()
	s.table[id] = c
	s.minted = s.minted.Add(minted)
	s.mu.Unlock()
	return c
}

// Adopt takes in a canister of the engine that has no state here yet, with the
// default settings, no cycles, and the controllers given.
func (s *Service) Adopt(ctx context.Context, id engine.CanisterID, controllers ...[]byte) error {
	s.mu.Lock()
	taken := s.table[id] != nil || s.adopting[id]
	if !taken {
		s.adopting[id] = true
	}
	s.mu.Unlock()
	if taken {
		return fmt.Errorf("management: canister %s has a state: %w", id, engine.ErrExists)
	}
	defer func() {
		s.mu.Lock()
		delete(s.adopting, id)
		s.mu.Unlock()
	}()
	live, err := s.e.Canister(id)
	if err != nil {
		return err
	}
	if blob, err := live.Host(); err != nil {
		return err
	} else if len(blob) > 0 {
		return fmt.Errorf("management: canister %s has a host blob of another program: %w", id, engine.ErrExists)
	}
	st := s.newState()
	for _, p := range controllers {
		st.set.controllers = append(st.set.controllers, string(p))
	}
	if wasm, err := s.liveModule(live); err != nil {
		return err
	} else if len(wasm) > 0 {
		m, err := s.host.Compile(ctx, wasm)
		if err != nil {
			return err
		}
		st.use(&compiled{m, hashOf(wasm)})
	}
	blob, err := st.encode()
	if err != nil {
		return err
	}
	if _, err := live.CheckpointHost(ctx, blob); err != nil {
		return err
	}
	c := s.enter(id, live, st, Cycles{})
	defer c.unlock()
	return s.account(c)
}

// newState is that of a canister that was just created.
func (s *Service) newState() *state {
	f := &s.cfg.Fees
	return &state{status: Running, timer: Timer{Present: true}, hook: manifest.HookConditionNotSatisfied, set: settings{
		freezingThreshold: f.FreezingThreshold, reservedLimit: NewCycles(f.ReservedCyclesLimit),
		minimumIncoming: NewCycles(f.MinimumIncomingCycles), logMemoryLimit: f.DefaultLogMemory,
	}}
}

func (s *Service) lookup(id engine.CanisterID) *canister {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table[id]
}

func (c *canister) lock(ctx context.Context) error {
	select {
	case c.op <- struct{}{}:
		return nil
	default:
	}
	select {
	case c.op <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *canister) unlock() { <-c.op }

// canisterID reads the canister of an argument; anything that can not be one
// is a canister that is not there.
func canisterID(p []byte) (engine.CanisterID, error) {
	id, err := engine.CanisterIDFromBytes(p)
	if err != nil {
		return id, reject(CodeCanisterNotFound, "Canister %s not found.", text(p))
	}
	return id, nil
}

// with runs a call on one canister, alone, once what earlier calls left to do
// is done, and brings the ledger of memory up to date after it.
func (s *Service) with(ctx context.Context, p []byte, f func(c *canister, st *state) error) error {
	id, err := canisterID(p)
	if err != nil {
		return err
	}
	c, err := s.hold(ctx, id)
	if err != nil {
		return err
	}
	defer c.unlock()
	err = f(c, c.state())
	if !c.gone {
		if aerr := s.account(c); err == nil && aerr != nil {
			err = storage(aerr)
		}
	}
	return err
}

// hold waits for a canister, and does what earlier calls left to do. No other
// call on it is under way until it is unlocked.
func (s *Service) hold(ctx context.Context, id engine.CanisterID) (*canister, error) {
	c := s.lookup(id)
	if c == nil {
		return nil, notFound(id)
	}
	if err := c.lock(ctx); err != nil {
		return nil, storage(err)
	}
	err := error(notFound(id))
	if !c.gone {
		if err = s.settle(ctx, c); err == nil {
			err = s.account(c)
		}
	}
	if err != nil {
		c.unlock()
		return nil, storage(err)
	}
	return c, nil
}

// account makes the ledger say what the canister has of the subnet's memory.
func (s *Service) account(c *canister) error {
	st := c.state()
	u, err := s.usageOf(c, st)
	if err != nil {
		return err
	}
	n := allocated(st.set.memoryAllocation, u.total())
	s.mu.Lock()
	s.allocated = s.allocated - c.counted - c.held + n
	c.counted, c.held = n, 0
	s.mu.Unlock()
	return nil
}

// commit makes the state that a change led to the canister's, with the live
// state as it is in memory, in one atomic step.
func (s *Service) commit(ctx context.Context, c *canister, next *state) error {
	blob, err := next.encode()
	if err != nil {
		return err
	}
	if _, err := c.live.CheckpointHost(ctx, blob); err != nil {
		return err
	}
	c.st.Store(next)
	return nil
}

// replace changes the live state and commits it with next, or neither. What
// guests wrote before becomes durable first, so that a change that fails can be
// undone by going back to what is durable.
func (s *Service) replace(ctx context.Context, c *canister, next *state, f func(live *engine.Canister) error) error {
	if _, err := c.live.Checkpoint(ctx); err != nil {
		return err
	}
	err := f(c.live)
	if err == nil {
		err = s.commit(ctx, c, next)
	}
	if err == nil {
		return nil
	}
	if rerr := c.live.Revert(context.WithoutCancel(ctx)); rerr != nil {
		c.revert = true
		err = errors.Join(err, rerr)
	}
	return err
}

// publish makes a state the canister's, and books what was paid. A step of the
// engine made it durable, or the canister's next change will.
func (s *Service) publish(c *canister, next *state, fee Cycles) {
	c.st.Store(next)
	s.burn(fee)
}

func (s *Service) burn(fee Cycles) {
	s.mu.Lock()
	s.burned = s.burned.Add(fee)
	s.mu.Unlock()
}

func (s *Service) mint(amount Cycles) {
	s.mu.Lock()
	s.minted = s.minted.Add(amount)
	s.mu.Unlock()
}

// Flush makes what reads and uploads of a canister left in memory durable.
func (s *Service) Flush(ctx context.Context, id engine.CanisterID) error {
	return s.with(ctx, id.Bytes(), func(c *canister, st *state) error {
		return storage(s.commit(ctx, c, st))
	})
}

// settle finishes what a change in more than one step has left to do, and
// undoes what one left in memory that failed. Nothing of it can be refused, so
// it is tried until the disk lets it.
func (s *Service) settle(ctx context.Context, c *canister) error {
	if c.revert {
		if err := c.live.Revert(ctx); err != nil {
			return err
		}
		c.revert = false
	}
	st := c.state()
	if st.pending == 0 {
		return nil
	}
	if st.pending&pendingUninstall != 0 {
		if err := clearLive(c.live, true); err != nil {
			return err
		}
	}
	if st.pending&pendingPurge != 0 {
		var ids []engine.SnapshotID
		for snap, err := range s.e.Snapshots(c.id) {
			if err != nil {
				return err
			}
			ids = append(ids, snap.ID)
		}
		for _, id := range ids {
			if err := s.e.Delete(ctx, id); err != nil {
				return err
			}
		}
	}
	next := st.clone()
	next.pending = 0
	return s.commit(ctx, c, next)
}

// clearLive empties the live state, in memory, with or without the chunk store.
func clearLive(live *engine.Canister, chunks bool) error {
	for _, sec := range live.Sections() {
		if sec.Kind == manifest.WasmChunk && !chunks {
			continue
		}
		if err := live.RemoveSection(sec); err != nil {
			return err
		}
	}
	return live.SetMetadata(engine.Metadata{})
}

// storage words an error of the engine as a reject. Nil and rejects stay.
func storage(err error) error {
	var have *Reject
	switch {
	case err == nil:
		return nil
	case errors.As(err, &have):
		return err
	}
	code, text := CodeStorage, "The canister's storage failed; the call had no effect."
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, engine.ErrDebt), errors.Is(err, engine.ErrNoSpace), errors.Is(err, engine.ErrQuota):
		code, text = CodeStorageBusy, "The canister's storage is busy or full; the call had no effect. Try again later."
	}
	r := reject(code, "%s", text)
	r.Err = err
	return r
}

// Round begins a new round of execution: what canisters owe for changes of
// their heap falls by the limit of a round.
func (s *Service) Round() {
	limit := s.heapDeltaLimit(s.prices())
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.table {
		c.debit = subBytes(c.debit, limit)
	}
}

// Checkpointed tells that the replica wrote a checkpoint: the heap delta of the
// subnet begins again at zero.
func (s *Service) Checkpointed() {
	s.mu.Lock()
	s.heapDelta = 0
	s.mu.Unlock()
}

// rateLimited refuses a canister that changed too much in this round. The limit
// is soft: a call below it may go far above.
func (s *Service) rateLimited(c *canister) error {
	limit := s.heapDeltaLimit(s.prices())
	s.mu.Lock()
	debit := c.debit
	s.mu.Unlock()
	if debit < limit {
		return nil
	}
	return reject(CodeCanisterHeapDeltaRateLimited,
		"Canister %s is heap delta rate limited: current delta debit is %d, but limit is %d.", c.id, debit, limit)
}

// delta books changed bytes.
func (s *Service) delta(c *canister, bytes uint64) {
	s.mu.Lock()
	c.debit = addBytes(c.debit, bytes)
	s.heapDelta = addBytes(s.heapDelta, bytes)
	s.mu.Unlock()
}

// Ledger is the memory and the cycles of a Service, to check or to export.
type Ledger struct {
	Allocated uint64 // bytes of subnet memory
	HeapDelta uint64 // bytes since the replica's last checkpoint
	Minted    Cycles // with what canisters had when the Service began
	Burned    Cycles
}

// Ledger reads it.
func (s *Service) Ledger() Ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Ledger{s.allocated, s.heapDelta, s.minted, s.burned}
}
