package index

import "sync/atomic"

type counters struct {
	gets, filtered, misses   atomic.Uint64
	backgroundErrors, stalls atomic.Uint64
	filterBuilds, flushes    atomic.Uint64
}

// Metrics is a moment of an index. Counters start at Open.
type Metrics struct {
	// Applied and Durable are watermarks.
	Applied, Durable uint64
	// Unflushed is about how much memory the batches take that are not yet in
	// tables.
	Unflushed uint64

	// Gets counts calls of Get; Filtered those that the filter answered;
	// FalsePositives those that it let through for nothing.
	Gets, Filtered, FalsePositives uint64

	// FilterReady: the filter covers the applied state.
	FilterReady  bool
	FilterBytes  uint64
	FilterIDs    uint64
	FilterLayers int
	FilterBuilds uint64

	// DiskBytes is the size of all tables; Flushed and Compacted count the bytes
	// written to make them.
	DiskBytes, Flushed, Compacted uint64
	CacheHits, CacheMisses        int64
	ReadAmplification             int

	Flushes          uint64
	BackgroundErrors uint64
	// Stalls counts commits that had to wait for a flush.
	Stalls    uint64
	Untrusted bool
}

// Metrics returns the counters of the index. A closed index returns those that
// need no Pebble.
func (x *Index) Metrics() Metrics {
	m := Metrics{
		Applied:          x.applied.Load().seq,
		Durable:          x.DurableWatermark(),
		Gets:             x.counters.gets.Load(),
		Filtered:         x.counters.filtered.Load(),
		FalsePositives:   x.counters.misses.Load(),
		FilterBuilds:     x.counters.filterBuilds.Load(),
		Flushes:          x.counters.flushes.Load(),
		BackgroundErrors: x.counters.backgroundErrors.Load(),
		Stalls:           x.counters.stalls.Load(),
		Untrusted:        x.trust.err() != nil,
	}
	m.Unflushed = x.unflushed()
	if f := x.filter.Load(); f != nil {
		m.FilterReady = true
		m.FilterBytes, m.FilterIDs, m.FilterLayers = f.bytes(), f.added(), len(*f.layers.Load())
	}
	_ = x.pebbleMetrics(&m)
	return m
}

func (x *Index) pebbleMetrics(m *Metrics) (err error) {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	defer x.trust.caught("metrics", &err)
	p := x.db.Metrics()
	total := p.Total()
	m.DiskBytes = uint64(total.TablesSize)
	m.Flushed = total.TableBytesIngested
	m.Compacted = total.TableBytesCompacted
	m.CacheHits, m.CacheMisses = p.BlockCache.Hits, p.BlockCache.Misses
	m.ReadAmplification = p.ReadAmp()
	return nil
}
