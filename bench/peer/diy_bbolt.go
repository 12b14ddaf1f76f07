package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
)

// boltDB is the design on bbolt.
type boltDB struct {
	db   *bbolt.DB
	path string

	mu      sync.Mutex
	pending []packedPage // what the next list names, to be stored with it
}

// The two buckets.
func pagesBucket() []byte { return []byte("pages") }
func listsBucket() []byte { return []byte("lists") }

const (
	// boltMap is mapped at once, so that growing never waits for readers.
	boltMap = 1 << 35
	// boltFill: keys come sorted, and in random places later.
	boltFill = 0.9
)

// boltOptions leaves the tree's pages at 4 KiB: larger ones hold a page that
// does not compress with less waste, but a small put then writes more.
func boltOptions() *bbolt.Options {
	o := *bbolt.DefaultOptions
	o.InitialMmapSize = boltMap
	o.NoFreelistSync = true // found anew when it is opened
	o.FreelistType = bbolt.FreelistMapType
	return &o
}

func openBolt(dir string) (database, error) {
	path := filepath.Join(dir, "pages.db")
	db, err := bbolt.Open(path, 0o600, boltOptions())
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(pagesBucket())
		_, err2 := tx.CreateBucketIfNotExists(listsBucket())
		return errors.Join(err, err2)
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &boltDB{db: db, path: path}, nil
}

func (b *boltDB) missing(ids []pageID) ([]bool, error) {
	miss := make([]bool, len(ids))
	err := b.db.View(func(tx *bbolt.Tx) error {
		pages := tx.Bucket(pagesBucket())
		for i := range ids {
			miss[i] = pages.Get(ids[i][:]) == nil
		}
		return nil
	})
	return miss, err
}

// add keeps the pages until the list comes: each transaction syncs twice, and
// sorted keys write each page of the tree once.
func (b *boltDB) add(pages []packedPage) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending = append(b.pending, pages...)
	return nil
}

func (b *boltDB) putList(name string, list []byte) error {
	b.mu.Lock()
	pending := b.pending
	b.pending = nil
	b.mu.Unlock()
	slices.SortFunc(pending, func(x, y packedPage) int { return comparePages(x.id, y.id) })
	return b.db.Update(func(tx *bbolt.Tx) error {
		pages := tx.Bucket(pagesBucket())
		pages.FillPercent = boltFill
		for i := range pending {
			if err := pages.Put(pending[i].id[:], pending[i].data); err != nil {
				return err
			}
		}
		return tx.Bucket(listsBucket()).Put([]byte(name), list)
	})
}

func (b *boltDB) list(name string) (list []byte, err error) {
	err = b.db.View(func(tx *bbolt.Tx) error {
		list = bytes.Clone(tx.Bucket(listsBucket()).Get([]byte(name)))
		return nil
	})
	return list, err
}

func (b *boltDB) pages(ids []pageID, each func(i int, packed []byte) error) error {
	return b.db.View(func(tx *bbolt.Tx) error {
		pages := tx.Bucket(pagesBucket())
		for i := range ids {
			packed := pages.Get(ids[i][:])
			if packed == nil {
				return fmt.Errorf("%w: %x", errStray, ids[i])
			}
			if err := each(i, packed); err != nil {
				return err
			}
		}
		return nil
	})
}

// remove ends with a copy that takes the place of the database.
func (b *boltDB) remove(ctx context.Context, name string, pages []pageID) error {
	err := b.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(pagesBucket())
		for i := range pages {
			if err := bucket.Delete(pages[i][:]); err != nil {
				return err
			}
		}
		return tx.Bucket(listsBucket()).Delete([]byte(name))
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	return b.compact()
}

// compactTx bounds what a transaction of the copy holds in memory.
const compactTx = 64 << 20

func (b *boltDB) compact() error {
	tmp := b.path + ".new"
	dst, err := bbolt.Open(tmp, 0o600, boltOptions())
	if err != nil {
		return err
	}
	if err := errors.Join(bbolt.Compact(dst, b.db, compactTx), dst.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := b.db.Close(); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(tmp, b.path), syncPath(filepath.Dir(b.path))); err != nil {
		return err
	}
	b.db, err = bbolt.Open(b.path, 0o600, boltOptions())
	return err
}

// settle: there is no log.
func (b *boltDB) settle() error { return nil }

func (b *boltDB) close() error { return b.db.Close() }
