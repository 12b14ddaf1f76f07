package index

import (
	"strings"

	"github.com/snapstore/snapstore/internal/osfs"
)

// Warm asks the system to have all tables at hand soon, if together they have at most so
// many bytes. Who reads much of a store wants most of them, and would wait for each
// block: 11,000 of them for an image of 1 GiB that the system does not have in memory.
// It is asked once for each opening, waits for nothing, and reports no error.
func (x *Index) Warm(most int64) {
	if x.warmed.Load() || x.enter() != nil {
		return
	}
	defer x.leave()
	dir := x.o.FS.PathJoin(x.o.Dir, pebbleDir)
	names, err := x.gate.List(dir)
	if err != nil {
		return
	}
	type table struct {
		path string
		size int64
	}
	var tables []table
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		path := x.o.FS.PathJoin(dir, name)
		st, err := x.gate.Stat(path)
		if err != nil {
			continue // merged away
		}
		if most -= st.Size(); most < 0 {
			return
		}
		tables = append(tables, table{path, st.Size()})
	}
	if len(tables) == 0 || x.warmed.Swap(true) {
		return
	}
	x.builder.Go(func() {
		for _, t := range tables {
			select {
			case <-x.closing:
				return
			default:
			}
			f, err := x.gate.Open(t.path)
			if err != nil {
				continue
			}
			_ = osfs.Prefetch(f, 0, t.size)
			_ = f.Close()
		}
	})
}
