package engine_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/engine"
)

// tableFS counts the tables of the index that are asked for ahead.
type tableFS struct {
	vfs.FS
	asked atomic.Int64
}

func (t *tableFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := t.FS.Open(name, opts...)
	if err != nil || !strings.HasSuffix(name, ".sst") {
		return f, err
	}
	return &tableFile{f, t}, nil
}

type tableFile struct {
	vfs.File
	fs *tableFS
}

func (t *tableFile) Prefetch(off, n int64) error {
	t.fs.asked.Add(1)
	return t.File.Prefetch(off, n)
}

// Who reads much has the index asked for ahead, and who reads little has not.
func TestReadingMuchWarmsTheIndex(t *testing.T) {
	t.Parallel()
	fs := &tableFS{FS: vfs.NewMem()}
	e, reopen := memStore(t, engine.Options{FS: fs, NoBackground: true})
	c := must(e.CreateCanister(bg, canisterID(t, 1)))
	mem := must(c.Memory(engine.StableMemory))
	const size = 40 << 20
	if err := mem.Resize(size); err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < size; at += 1 << 20 {
		must(mem.WriteAt([]byte{1, byte(at >> 20)}, at))
	}
	id := must(c.Take(bg, engine.TakeOptions{})).ID
	if err := e.FlushIndex(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, size)
	for _, read := range []struct {
		name string
		do   func(*engine.SectionReader)
		want bool
	}{
		{"a page", func(sec *engine.SectionReader) { must(sec.ReadAt(buf[:engine.PageSize], 0)) }, false},
		{"all at once", func(sec *engine.SectionReader) { must(sec.ReadAt(buf, 0)) }, true},
		{"all in pieces", func(sec *engine.SectionReader) { must(sec.WriteTo(discard{})) }, true},
	} {
		e = reopen() // it may have been closed
		snap := must(e.Snapshot(bg, id))
		fs.asked.Store(0)
		read.do(must(snap.Section(engine.StableMemory)))
		snap.Close()
		if err := e.Close(); err != nil { // nothing is asked for any more
			t.Fatal(err)
		}
		if got := fs.asked.Load() > 0; got != read.want {
			t.Errorf("%s: asked for tables %d times", read.name, fs.asked.Load())
		}
	}
}

// discard is io.Discard without its ways around.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
