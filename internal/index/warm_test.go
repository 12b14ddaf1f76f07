package index

import (
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// prefetchFS notes what is asked for ahead.
type prefetchFS struct {
	vfs.FS
	mu    sync.Mutex
	asked map[string]int64 // names, and up to where
}

func (p *prefetchFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := p.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	return &prefetchFile{f, p, path.Base(name)}, nil
}

type prefetchFile struct {
	vfs.File
	fs   *prefetchFS
	name string
}

func (f *prefetchFile) Prefetch(off, n int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.fs.asked[f.name] = max(f.fs.asked[f.name], off+n)
	return f.File.Prefetch(off, n)
}

// take gives what was asked for of tables since the last call.
func (p *prefetchFS) take() map[string]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]int64{}
	for name, n := range p.asked {
		if strings.HasSuffix(name, ".sst") {
			out[name] = n
		}
	}
	clear(p.asked)
	return out
}

func TestWarmAsksForAllTablesOnce(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(t, mem)
	x := create(t, o)
	for i := range uint64(3) {
		commit(t, x, func(b *Batch) {
			for _, id := range testIDs(i, 2000) {
				b.AddEntry(id, Entry{Location: page(1, 0, 0), Count: 1})
			}
		})
		if err := x.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, x)
	fs := &prefetchFS{FS: mem, asked: map[string]int64{}}
	x = mustOpen(t, o.on(fs))
	tables, all := map[string]int64{}, int64(0)
	dir := path.Join(o.Dir, pebbleDir)
	names, err := mem.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			st, err := mem.Stat(path.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			tables[name] = st.Size()
			all += st.Size()
		}
	}
	fs.take()
	x.Warm(all - 1)
	x.builder.Wait()
	if len(fs.take()) > 0 {
		t.Error("it asks for more than it may")
	}
	x.Warm(all)
	x.builder.Wait()
	got := fs.take()
	for name, size := range tables {
		if got[name] != size {
			t.Errorf("%d bytes of %d of %s", got[name], size, name)
		}
	}
	if len(tables) == 0 || len(got) != len(tables) {
		t.Errorf("%d tables of %d", len(got), len(tables))
	}
	x.Warm(all)
	x.builder.Wait()
	if len(fs.take()) > 0 {
		t.Error("it asks again")
	}
	mustClose(t, x)
	x.Warm(all) // and does no harm afterwards
}
