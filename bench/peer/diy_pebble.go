package peer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// The first byte of a key says what it is.
const (
	listKey = 'l' // and the name of a version
	pageKey = 'p' // and the name of a page
)

// pebbleDB is the design on Pebble.
type pebbleDB struct{ db *pebble.DB }

func openPebble(dir string) (database, error) {
	o := &pebble.Options{
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      quiet{},
		MemTableSize:                64 << 20,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		LBaseMaxBytes:               64 << 20,
		BytesPerSync:                1 << 20,
		MaxOpenFiles:                1000,
		CompactionConcurrencyRange:  func() (int, int) { return 1, max(1, runtime.GOMAXPROCS(0)) },
	}
	o.CacheSize = 128 << 20
	for i := range o.Levels {
		// Pages are compressed already.
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		// A page is looked for alone; in larger blocks it brought neighbours by
		// name, which nobody wants.
		o.Levels[i].BlockSize = 4 << 10
	}
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = 32 << 20
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, err
	}
	return &pebbleDB{db}, nil
}

// quiet drops what Pebble logs; what is fatal to it stays fatal to a benchmark.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("pebble: "+format, args...))
}

func (p *pebbleDB) missing(ids []pageID) ([]bool, error) {
	miss := make([]bool, len(ids))
	key := make([]byte, 0, 1+len(pageID{}))
	for i := range ids {
		key = append(append(key[:0], pageKey), ids[i][:]...)
		_, c, err := p.db.Get(key)
		switch {
		case errors.Is(err, pebble.ErrNotFound):
			miss[i] = true
		case err != nil:
			return nil, err
		default:
			if err := c.Close(); err != nil {
				return nil, err
			}
		}
	}
	return miss, nil
}

func (p *pebbleDB) add(pages []packedPage) error {
	b := p.db.NewBatch()
	key := make([]byte, 0, 1+len(pageID{}))
	for i := range pages {
		key = append(append(key[:0], pageKey), pages[i].id[:]...)
		if err := b.Set(key, pages[i].data, nil); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	return errors.Join(b.Commit(pebble.NoSync), b.Close())
}

// putList syncs the log, which holds the pages' batches before this one.
func (p *pebbleDB) putList(name string, list []byte) error {
	return p.db.Set(append([]byte{listKey}, name...), list, pebble.Sync)
}

func (p *pebbleDB) list(name string) ([]byte, error) {
	list, c, err := p.db.Get(append([]byte{listKey}, name...))
	if err != nil {
		return nil, err
	}
	list = slices.Clone(list)
	return list, c.Close()
}

func (p *pebbleDB) pages(ids []pageID, each func(i int, packed []byte) error) error {
	key := make([]byte, 0, 1+len(pageID{}))
	for i := range ids {
		key = append(append(key[:0], pageKey), ids[i][:]...)
		packed, c, err := p.db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			return fmt.Errorf("%w: %x", errStray, ids[i])
		}
		if err != nil {
			return err
		}
		if err := errors.Join(each(i, packed), c.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (p *pebbleDB) remove(ctx context.Context, name string, pages []pageID) error {
	b := p.db.NewBatch()
	key := append([]byte{listKey}, name...)
	err := b.Delete(key, nil)
	for i := 0; err == nil && i < len(pages); i++ {
		key = append(append(key[:0], pageKey), pages[i][:]...)
		err = b.Delete(key, nil)
	}
	if err == nil {
		err = b.Commit(pebble.Sync)
	}
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	if err := p.db.Compact(ctx, []byte{listKey}, []byte{pageKey + 1}, true); err != nil {
		return err
	}
	// Files that are not needed any more are removed in the background.
	for p.db.Metrics().Table.ObsoleteCount > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

func (p *pebbleDB) settle() error { return p.db.Flush() }

func (p *pebbleDB) close() error { return p.db.Close() }
