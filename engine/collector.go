package engine

import "github.com/prometheus/client_golang/prometheus"

// Collector gives the engine's metrics. The host registers it, with labels of
// its own if it has several engines; nothing is registered by the engine, and
// no canister or snapshot is ever a label. It is safe after Close.
func (e *Engine) Collector() prometheus.Collector { return &collector{e} }

type collector struct{ e *Engine }

// metric is one value read from Stats at a scrape.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(Stats) float64
}

func gauge(name, help string, f func(Stats) float64) metric {
	return metric{prometheus.NewDesc("snapstore_"+name, help, nil, nil), prometheus.GaugeValue, f}
}

func total(name, help string, f func(Stats) float64) metric {
	return metric{prometheus.NewDesc("snapstore_"+name+"_total", help, nil, nil), prometheus.CounterValue, f}
}

func metrics() []metric {
	return []metric{
		gauge("canisters", "Canisters that exist.", func(s Stats) float64 { return float64(s.Canisters) }),
		gauge("damaged_canisters", "Canisters whose newest record can not be read.", func(s Stats) float64 { return float64(s.DamagedCanisters) }),
		gauge("snapshots", "Snapshots that exist.", func(s Stats) float64 { return float64(s.Snapshots) }),
		gauge("logical_bytes", "Logical size of all snapshots, as tenants are charged.", func(s Stats) float64 { return float64(s.LogicalBytes) }),
		gauge("charged_bytes", "Logical size of live states and snapshots, which counts against the quota of the store.", func(s Stats) float64 { return float64(s.ChargedBytes) }),
		gauge("reserved_bytes", "Logical size that operations under way have asked for.", func(s Stats) float64 { return float64(s.ReservedBytes) }),
		gauge("canister_quota_bytes", "The most that one canister may be charged for; 0 is no limit.", func(s Stats) float64 { return float64(s.CanisterQuota) }),
		gauge("store_quota_bytes", "The most that all canisters may be charged for; 0 is no limit.", func(s Stats) float64 { return float64(s.StoreQuota) }),
		gauge("live_dirty_bytes", "Memory written and not durable yet.", func(s Stats) float64 { return float64(s.DirtyPages) * PageSize }),
		gauge("live_lent_bytes", "Memory of sections that are lent and held whole.", func(s Stats) float64 { return float64(s.LentBytes) }),
		gauge("log_bytes", "Size of the log.", func(s Stats) float64 { return float64(s.LogBytes) }),
		gauge("live_bytes", "Bytes of the log that something names.", func(s Stats) float64 { return float64(s.LiveBytes) }),
		gauge("cache_bytes", "Memory of decoded pages and nodes.", func(s Stats) float64 { return float64(s.CacheBytes) }),
		gauge("memtable_bytes", "Memory of what is not yet written of the index.", func(s Stats) float64 { return float64(s.MemTableBytes) }),
		gauge("index_bytes", "Size of the index on disk.", func(s Stats) float64 { return float64(s.IndexBytes) }),
		gauge("segments", "Segments of the log.", func(s Stats) float64 { return float64(s.Segments) }),
		gauge("gc_debt_bytes", "Garbage that cleaning could give back now.", func(s Stats) float64 { return float64(s.DebtBytes) }),
		gauge("gc_pending_drops", "Deleted versions that wait for gc.", func(s Stats) float64 { return float64(s.PendingDrops) }),
		gauge("gc_held_drops", "Deleted versions that readers hold.", func(s Stats) float64 { return float64(s.HeldDrops) }),
		gauge("gc_held_bytes", "Bytes that gc keeps since something that could not be read may name them.", func(s Stats) float64 { return float64(s.GC.HeldBytes) }),
		gauge("gc_halted", "1 when the index is not trusted and gc stands still until the next open.", func(s Stats) float64 {
			if s.IndexUntrusted != "" {
				return 1
			}
			return 0
		}),
		gauge("readers", "Open snapshot readers.", func(s Stats) float64 { return float64(s.Readers) }),
		gauge("index_lag_batches", "Synced batches that the index has not applied yet.", func(s Stats) float64 { return float64(s.WaitingBatches) }),
		gauge("sequence", "Sequence of the newest durable batch.", func(s Stats) float64 { return float64(s.Sequence) }),
		gauge("open_duration_seconds", "Time the last open took.", func(s Stats) float64 { return s.OpenSeconds }),
		total("gc_versions_dropped", "Versions dropped.", func(s Stats) float64 { return float64(s.GC.VersionsDropped) }),
		total("gc_chunks_destroyed", "Chunks destroyed.", func(s Stats) float64 { return float64(s.GC.ChunksDestroyed) }),
		total("gc_segments_dropped", "Segments dropped.", func(s Stats) float64 { return float64(s.GC.SegmentsDropped) }),
		total("gc_reclaimed_bytes", "Bytes of segments given back.", func(s Stats) float64 { return float64(s.GC.BytesReclaimed) }),
		total("gc_written_bytes", "Bytes written by cleaning.", func(s Stats) float64 { return float64(s.GC.BytesWritten) }),
		total("pages_hashed", "Dirty pages hashed.", func(s Stats) float64 { return float64(s.PagesHashed) }),
		total("pages_new", "Dirty pages that were stored.", func(s Stats) float64 { return float64(s.PagesNew) }),
		total("pages_shared", "Dirty pages that were stored already.", func(s Stats) float64 { return float64(s.PagesShared) }),
		total("pages_zero", "Dirty pages that were all zeros.", func(s Stats) float64 { return float64(s.PagesZero) }),
		total("count_changes", "Reference counts changed.", func(s Stats) float64 { return float64(s.CountChanges) }),
		total("lost_chunks", "Chunks found damaged.", func(s Stats) float64 { return float64(s.LostChunks) }),
		total("log_damage", "Damaged places met in the log.", func(s Stats) float64 { return float64(s.LogDamage) }),
		total("scrub_read_bytes", "Bytes of the log read by the scrubber.", func(s Stats) float64 { return float64(s.Scrub.Bytes) }),
		total("scrub_problems", "Damaged frames met by the scrubber.", func(s Stats) float64 { return float64(s.Scrub.Problems) }),
		total("scrub_passes", "Times the scrubber has read the whole log.", func(s Stats) float64 { return float64(s.Scrub.Passes) }),
		gauge("scrub_oldest_seconds", "Everything older was read by the scrubber since then; before its first whole pass, how long it has been at that. 0 when it is off.", func(s Stats) float64 { return s.Scrub.OldestSeconds }),
		total("log_written_bytes", "Bytes written to the log.", func(s Stats) float64 { return float64(s.BytesWritten) }),
		gauge("log_syncing_seconds", "How long the oldest sync under way has taken: a stall of the disk shows here first.", func(s Stats) float64 { return s.SyncingSeconds }),
		gauge("log_slowest_sync_seconds", "The longest that a sync has taken since the store was opened.", func(s Stats) float64 { return s.SlowestSyncSeconds }),
		total("log_syncs", "Syncs of log segments.", func(s Stats) float64 { return float64(s.Syncs) }),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range metrics() {
		ch <- m.desc
	}
	c.e.counters.durations.Describe(ch)
	c.e.counters.pauses.Describe(ch)
	c.e.counters.results.Describe(ch)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	if !c.e.closing.Load() {
		s := c.e.Stats()
		for _, m := range metrics() {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(s))
		}
	}
	c.e.counters.durations.Collect(ch)
	c.e.counters.pauses.Collect(ch)
	c.e.counters.results.Collect(ch)
}
