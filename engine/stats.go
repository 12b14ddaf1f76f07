package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/snapstore/snapstore/gc"
)

// Stats is a moment of the engine. Bytes are bytes, durations seconds.
type Stats struct {
	Canisters        int    `json:"canisters"`
	DamagedCanisters int    `json:"damaged_canisters"`
	Snapshots        int    `json:"snapshots"`
	LogicalBytes     uint64 `json:"logical_bytes"` // of all snapshots, as tenants are charged
	HeadLogicalBytes uint64 `json:"head_logical_bytes"`
	DirtyPages       int    `json:"dirty_pages"` // of open canisters, not durable yet
	// DedupDomain is among whom equal content is stored once.
	DedupDomain string `json:"dedup_domain"`
	// ChargedBytes count against StoreQuota: live states and snapshots. Reserved
	// is what operations under way have asked for. A quota of 0 is none.
	ChargedBytes  uint64 `json:"charged_bytes"`
	ReservedBytes uint64 `json:"reserved_bytes"`
	CanisterQuota uint64 `json:"canister_quota_bytes"`
	StoreQuota    uint64 `json:"store_quota_bytes"`

	// LentBytes is of sections that are all in memory, Tracking how writes to
	// them are noticed, and TrackingReason why so. A process that lends nothing
	// has no use for them, so they are not in the command's output.
	LentBytes      uint64 `json:"-"`
	Tracking       string `json:"-"`
	TrackingReason string `json:"-"`

	LogBytes     int64 `json:"log_bytes"`
	LiveBytes    int64 `json:"live_bytes"`
	GarbageBytes int64 `json:"garbage_bytes"`
	DebtBytes    int64 `json:"debt_bytes"` // garbage that cleaning could give back now
	Segments     int   `json:"segments"`
	IndexBytes   int64 `json:"index_bytes"`
	// CacheBytes is what decoded pages and nodes take in memory, MemTableBytes what of
	// the index is not written yet: see Options.
	CacheBytes    int64 `json:"cache_bytes"`
	MemTableBytes int64 `json:"memtable_bytes"`

	PendingDrops   int    `json:"pending_drops"`
	HeldDrops      int    `json:"held_drops"`
	Readers        int64  `json:"readers"`
	WaitingBatches int    `json:"waiting_batches"`
	Sequence       uint64 `json:"sequence"`
	DurableIndex   uint64 `json:"durable_index_sequence"`
	Epoch          uint64 `json:"epoch"`

	IndexUntrusted string  `json:"index_untrusted,omitempty"`
	Rebuilt        string  `json:"rebuilt,omitempty"` // why Open built the index anew
	ReplayedBatch  int     `json:"replayed_batches"`
	OpenSeconds    float64 `json:"open_seconds"`
	LogDamage      uint64  `json:"log_damage"`
	Quarantined    uint64  `json:"quarantined_bytes"`

	// Scrub is zero when nothing is scrubbed.
	Scrub ScrubStats `json:"scrub"`

	PagesHashed  uint64 `json:"pages_hashed"`
	PagesNew     uint64 `json:"pages_new"`
	PagesShared  uint64 `json:"pages_shared"`
	PagesZero    uint64 `json:"pages_zero"`
	CountChanges uint64 `json:"count_changes"`
	Births       uint64 `json:"births"`
	Deaths       uint64 `json:"deaths"`
	LostChunks   uint64 `json:"lost_chunks"`
	BytesWritten uint64 `json:"bytes_written"`
	Syncs        uint64 `json:"syncs"`
	// SyncingSeconds is how long the oldest sync under way has taken, 0 if there
	// is none; SlowestSyncSeconds the longest that any took, with that.
	SyncingSeconds     float64 `json:"syncing_seconds"`
	SlowestSyncSeconds float64 `json:"slowest_sync_seconds"`

	GC gc.Report `json:"gc"`
}

// Stats looks at everything that is counted anyway; it reads no page.
func (e *Engine) Stats() Stats {
	var s Stats
	if e.closing.Load() {
		return s
	}
	s.Scrub = e.scrub.stats()
	var entries []*entry
	e.mu.RLock()
	for _, ent := range e.table {
		entries = append(entries, ent)
		switch {
		case ent.damaged != nil:
			s.DamagedCanisters++
			s.Canisters++
		case ent.rec != nil && !ent.rec.Deleted:
			s.Canisters++
			s.Snapshots += len(ent.rec.Snapshots)
			s.LogicalBytes += ent.rec.Logical()
			s.HeadLogicalBytes += ent.rec.HeadLogical
		}
	}
	s.ChargedBytes, s.ReservedBytes = e.accounts.used.capped(), e.accounts.reserved.capped()
	e.mu.RUnlock()
	s.DedupDomain, s.CanisterQuota, s.StoreQuota = e.dedup.String(), e.o.CanisterQuota, e.o.StoreQuota
	for _, ent := range entries {
		c := e.opened(ent)
		if c == nil {
			continue
		}
		if !c.gate.TryRLock() {
			continue // a load or a seal is under way: not worth waiting for
		}
		for _, m := range c.sections {
			s.DirtyPages += m.DirtyPages()
			s.LentBytes += m.lentBytes()
		}
		c.gate.RUnlock()
	}
	s.Tracking, s.TrackingReason = e.tracker.Mode().String(), e.tracker.Reason()
	d := e.gc.Debt()
	s.LogBytes, s.LiveBytes, s.GarbageBytes, s.DebtBytes = d.LogBytes, d.LiveBytes, d.LogBytes-d.LiveBytes, d.Bytes
	s.PendingDrops, s.HeldDrops = d.Backlog.Versions, d.Backlog.Held
	l := e.log.Stats()
	s.Segments, s.Epoch, s.Sequence = l.Segments, uint64(l.Epoch), uint64(l.LastSequence)
	s.LogDamage, s.Quarantined, s.Syncs = l.DamageCount, l.QuarantinedBytes, l.Syncs
	s.SyncingSeconds, s.SlowestSyncSeconds = l.Syncing.Seconds(), l.SlowestSync.Seconds()
	s.BytesWritten = l.CommitBytes + l.BulkBytes + l.MovedBytes
	im, cm := e.idx.Metrics(), e.store.Stats()
	s.IndexBytes, s.MemTableBytes = int64(im.DiskBytes), int64(im.Unflushed)
	s.CacheBytes = cm.PageCacheBytes + cm.NodeCacheBytes
	s.DurableIndex = e.idx.DurableWatermark()
	if err := e.idx.Untrusted(); err != nil {
		s.IndexUntrusted = err.Error()
	}
	s.WaitingBatches = e.applier.Waiting()
	s.Rebuilt, s.ReplayedBatch, s.OpenSeconds = e.recovery.rebuilt, e.recovery.batches, e.recovery.duration.Seconds()
	c := e.counters
	s.Readers = c.readers.Load()
	s.PagesHashed, s.PagesNew, s.PagesShared, s.PagesZero = c.hashed.Load(), c.fresh.Load(), c.shared.Load(), c.zero.Load()
	cs := e.counter.Stats()
	s.CountChanges, s.Births, s.Deaths, s.LostChunks = cs.Changes, cs.Births, cs.Deaths, cs.Lost
	s.GC = e.gc.Totals()
	return s
}

// Usage is what the store holds, page by page.
type Usage struct {
	Pages       uint64 `json:"pages"`        // distinct, with a count above zero
	Nodes       uint64 `json:"nodes"`        // distinct tree nodes and manifests
	UniqueBytes uint64 `json:"unique_bytes"` // Pages, uncompressed
	Limbo       uint64 `json:"limbo"`        // chunks that wait to be destroyed
	Lost        uint64 `json:"lost"`         // chunks that could not be read, or lie in damaged frames
}

// Usage counts every entry of the index; it takes a second per few million.
func (e *Engine) Usage(ctx context.Context) (Usage, error) {
	var u Usage
	if e.closing.Load() {
		return u, ErrClosed
	}
	for en, err := range e.idx.Entries(ctx) {
		if err != nil {
			return u, translate(err)
		}
		switch {
		case en.Count == 0:
			u.Limbo++
		case en.Node:
			u.Nodes++
		default:
			u.Pages++
		}
		if en.Lost {
			u.Lost++
		}
	}
	u.UniqueBytes = u.Pages * PageSize
	return u, errors.Join(ctx.Err(), e.idx.Untrusted())
}

// operationKind labels metrics.
type operationKind string

const (
	opTake       operationKind = "take"
	opCheckpoint operationKind = "checkpoint"
	opLoad       operationKind = "load"
	opUpload     operationKind = "upload"
	opDelete     operationKind = "delete"
	opVerify     operationKind = "verify"
)

// counters are what the engine counts as it goes.
type counters struct {
	hashed, fresh, shared, zero atomic.Uint64
	deletes, lost, problems     atomic.Uint64
	readers                     atomic.Int64

	durations *prometheus.HistogramVec
	pauses    prometheus.Histogram
	results   *prometheus.CounterVec
}

func newCounters() *counters {
	return &counters{
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "snapstore_operation_duration_seconds", Help: "Time of operations, from call to durable.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 16), NativeHistogramBucketFactor: 1.1,
		}, []string{"op"}),
		pauses: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "snapstore_take_pause_seconds", Help: "How long takes held writers off.",
			Buckets: prometheus.ExponentialBuckets(0.000001, 4, 12), NativeHistogramBucketFactor: 1.1,
		}),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "snapstore_operations_total", Help: "Operations by result.",
		}, []string{"op", "result"}),
	}
}

func (c *counters) observe(op operationKind, began time.Time, err error) {
	result := "ok"
	switch {
	case err == nil:
		c.durations.WithLabelValues(string(op)).Observe(time.Since(began).Seconds())
	case errors.Is(err, ErrSnapshotLimit):
		result = "limit"
	case errors.Is(err, ErrQuota):
		result = "quota"
	case errors.Is(err, ErrCollision):
		result = "collision"
	case errors.Is(err, ErrNotFound):
		result = "not_found"
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrDamaged):
		result = "corrupt"
	case errors.Is(err, ErrNoSpace):
		result = "no_space"
	case errors.Is(err, ErrDebt):
		result = "debt"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		result = "canceled"
	default:
		result = "error"
	}
	c.results.WithLabelValues(string(op), result).Inc()
}

func (c *counters) pause(d time.Duration) { c.pauses.Observe(d.Seconds()) }

func (c *counters) pages(s PageStats) {
	c.hashed.Add(s.Pages)
	c.fresh.Add(s.New)
	c.shared.Add(s.Shared)
	c.zero.Add(s.Zero)
}
