package gc

import "time"

// Debt is what deleting has left to do.
type Debt struct {
	Backlog Backlog
	// Bytes that cleaning and dropping could give back now.
	Bytes int64
	// LogBytes and LiveBytes of the whole log.
	LogBytes, LiveBytes int64
	// HeldBytes are in segments that do not go; see Counter.Partial.
	HeldBytes int64
}

// Debt measures; it costs a look at every segment.
func (g *Collector) Debt() Debt {
	z := g.look()
	return Debt{Backlog: g.counter.Backlog(g.o.Reading), Bytes: z.debt, LogBytes: z.log, LiveBytes: z.live, HeldBytes: z.held}
}

// RecentDebt is Debt.Bytes as it was a few moments ago at most. It waits for
// nothing.
func (g *Collector) RecentDebt() int64 {
	z := g.sizes.Load()
	if z == nil || time.Since(z.at) > sizesAge {
		z = g.look()
	}
	return z.debt
}

func (g *Collector) look() *sizes {
	z := &sizes{at: time.Now()}
	live := g.idx.Live()
	for _, s := range g.log.Segments() {
		l := live[uint64(s.ID)]
		z.log += s.Size
		z.live += l
		if s.ID < g.counter.Partial() {
			z.held += s.Size - l
		} else if s.Sealed && !s.Busy && g.under(l, s.Size) {
			z.debt += s.Size - l
		}
	}
	g.sizes.Store(z)
	return z
}

func (g *Collector) snapshotTotals() Report {
	t := &g.totals
	return Report{
		VersionsDropped: t.dropped.Load(), ChunksDestroyed: t.destroyed.Load(), SegmentsDropped: t.segments.Load(),
		SegmentsCleaned: t.cleaned.Load(), Quarantined: t.quarantined.Load(), BytesReclaimed: t.reclaimed.Load(), BytesWritten: t.written.Load(),
	}
}

// Totals returns what has been done since the store was opened.
func (g *Collector) Totals() Report { return g.report(Report{}) }

func (g *Collector) report(before Report) Report {
	r := g.snapshotTotals()
	r.VersionsDropped -= before.VersionsDropped
	r.ChunksDestroyed -= before.ChunksDestroyed
	r.SegmentsDropped -= before.SegmentsDropped
	r.SegmentsCleaned -= before.SegmentsCleaned
	r.Quarantined -= before.Quarantined
	r.BytesReclaimed -= before.BytesReclaimed
	r.BytesWritten -= before.BytesWritten
	d := g.Debt()
	r.LogBytes, r.LiveBytes, r.Held, r.HeldBytes = d.LogBytes, d.LiveBytes, d.Backlog.Held, d.HeldBytes
	return r
}
