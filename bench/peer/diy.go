package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/s2"
	"github.com/zeebo/blake3"
	"golang.org/x/sync/errgroup"
)

const pageSize = 4096

// pageID names a page; zeros name the page of zeros, which is never stored.
type pageID [32]byte

func pageCount(n int) int { return (n + pageSize - 1) / pageSize }

// page is page i of an image, shorter at its end.
func page(mem []byte, i uint64) []byte {
	from := i * pageSize
	return mem[from:min(from+pageSize, uint64(len(mem)))]
}

func isZero(p []byte) bool {
	var zeros [pageSize]byte
	return bytes.Equal(p, zeros[:len(p)])
}

// design is a database under a store of pages.
type design string

const (
	pebbleDesign design = "pebble"
	bboltDesign  design = "bbolt"
)

// diy is what a reader would build in an afternoon from the same libraries: a
// database with one key for each page and one for each version's list of them.
type diy struct{ design }

func (d diy) Name() string { return string(d.design) }

func (d diy) Features() Features {
	f := Features{
		Dedup: true, Compress: true, Checksums: true, Durable: true,
		Note: "BLAKE3 of a page -> the page in s2, a flat list of hashes for each version, the dirty pages given, all cores; " +
			"no counts: a delete reads the lists of all versions, removes what none names, ",
	}
	switch d.design {
	case pebbleDesign:
		f.Note += "and compacts everything; WAL on, one sync a put, no value separation"
	case bboltDesign:
		f.Checksums = false
		f.Note += "and copies the database, as its files never shrink; one transaction a put; only its two headers have checksums"
	}
	return f
}

// Probe gives the version of the library, which is always there.
func (d diy) Probe(context.Context) (string, error) {
	return d.design.module(), nil
}

func (d diy) Create(ctx context.Context, dir string) (Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	repo := filepath.Join(dir, "repo")
	if err := os.Mkdir(repo, 0o700); err != nil {
		return nil, err
	}
	db, err := d.open(repo)
	if err != nil {
		return nil, err
	}
	return &pageStore{db: db, versions: versions{}, repo: repo}, nil
}

// database is what a design asks of its library.
type database interface {
	// missing tells which of the pages are not stored. It may be called from
	// many goroutines, as may add and pages.
	missing(ids []pageID) ([]bool, error)
	// add stores pages. They are durable when a list that was put later is.
	add(pages []packedPage) error
	// putList makes a version durable, with all pages added before.
	putList(name string, list []byte) error
	// list gives what putList got, in memory that is the caller's.
	list(name string) ([]byte, error)
	// pages calls each with the bytes of every page, in the order of ids; they
	// are valid only during the call.
	pages(ids []pageID, each func(i int, packed []byte) error) error
	// remove takes out a list and pages, and gives their space back.
	remove(ctx context.Context, name string, pages []pageID) error
	// settle writes what is only in a log to where it belongs.
	settle() error
	close() error
}

// packedPage is a page as it is stored.
type packedPage struct {
	id   pageID
	data []byte
}

// pageStore is the store over either database.
type pageStore struct {
	db       database
	versions // with nothing beside their names
	repo     string

	// head is what the last put listed; nil when there is nothing to start from.
	head   []pageID
	length int
}

// run is how many pages a worker takes at a time.
const run = 256

func (s *pageStore) Put(ctx context.Context, v Version) error {
	if err := s.free(v.Name); err != nil {
		return err
	}
	n := pageCount(len(v.Mem))
	ids := make([]pageID, n)
	dirty := v.Dirty
	if dirty == nil || s.head == nil || s.length != len(v.Mem) {
		dirty = make([]uint64, n)
		for i := range dirty {
			dirty[i] = uint64(i)
		}
	} else {
		copy(ids, s.head)
	}
	s.head = nil // should this fail, the next put looks at every page
	if err := s.store(ctx, v.Mem, dirty, ids); err != nil {
		return err
	}
	if err := s.db.putList(v.Name, encodeList(len(v.Mem), ids)); err != nil {
		return err
	}
	s.versions[v.Name] = v.Name
	s.head, s.length = ids, len(v.Mem)
	return nil
}

// store names the pages and stores those that are new.
func (s *pageStore) store(ctx context.Context, mem []byte, pages []uint64, ids []pageID) error {
	claimed := claims{ids: make(map[pageID]struct{}, len(pages))}
	return parallel(ctx, len(pages), func(from, to int) error {
		fresh := make([]pageID, 0, to-from)
		where := make([]uint64, 0, to-from)
		for _, i := range pages[from:to] {
			p := page(mem, i)
			if isZero(p) {
				ids[i] = pageID{}
				continue
			}
			ids[i] = blake3.Sum256(p)
			fresh = append(fresh, ids[i])
			where = append(where, i)
		}
		first := claimed.claim(fresh)
		k := 0
		for j, ok := range first {
			if ok {
				fresh[k], where[k] = fresh[j], where[j]
				k++
			}
		}
		fresh, where = fresh[:k], where[:k]
		miss, err := s.db.missing(fresh)
		if err != nil {
			return err
		}
		// One allocation for all that this run stores.
		packed := make([]packedPage, 0, k)
		buf := make([]byte, 0, k*s2.MaxEncodedLen(pageSize))
		for j, id := range fresh {
			if !miss[j] {
				continue
			}
			data := s2.Encode(buf[len(buf):cap(buf)], page(mem, where[j]))
			buf = buf[:len(buf)+len(data)]
			packed = append(packed, packedPage{id, data})
		}
		if len(packed) == 0 {
			return nil
		}
		return s.db.add(packed)
	})
}

// claims are the pages that a put has met.
type claims struct {
	mu  sync.Mutex
	ids map[pageID]struct{}
}

// claim tells for which of the pages the caller is the first.
func (c *claims) claim(ids []pageID) []bool {
	first := make([]bool, len(ids))
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, id := range ids {
		if _, ok := c.ids[id]; !ok {
			c.ids[id] = struct{}{}
			first[i] = true
		}
	}
	return first
}

func (s *pageStore) Get(ctx context.Context, name, dst string) error {
	if _, err := s.find(name); err != nil {
		return err
	}
	list, err := s.db.list(name)
	if err != nil {
		return err
	}
	length, ids, err := decodeList(list)
	if err != nil {
		return fmt.Errorf("version %s: %w", name, err)
	}
	f, err := os.Create(dst)
	if err != nil {
		return err
	}
	err = f.Truncate(int64(length)) // pages of zeros stay holes
	if err == nil {
		err = s.restore(ctx, f, length, ids)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(dst))
	}
	return nil
}

func (s *pageStore) restore(ctx context.Context, f *os.File, length int, ids []pageID) error {
	return parallel(ctx, len(ids), func(from, to int) error {
		stored := make([]pageID, 0, to-from)
		where := make([]int, 0, to-from)
		for i := from; i < to; i++ {
			if ids[i] != (pageID{}) {
				stored = append(stored, ids[i])
				where = append(where, i)
			}
		}
		if len(stored) == 0 {
			return nil
		}
		buf := make([]byte, (to-from)*pageSize)
		err := s.db.pages(stored, func(j int, packed []byte) error {
			at := (where[j] - from) * pageSize
			want := min(pageSize, length-where[j]*pageSize)
			p, err := s2.Decode(buf[at:at+pageSize:at+pageSize], packed)
			if err == nil && len(p) != want {
				err = errPage
			}
			return err
		})
		if err != nil {
			return err
		}
		buf = buf[:min(len(buf), length-from*pageSize)]
		_, err = f.WriteAt(buf, int64(from)*pageSize)
		return err
	})
}

func (s *pageStore) Delete(ctx context.Context, name string) error {
	if _, err := s.find(name); err != nil {
		return err
	}
	dead := make(map[pageID]struct{})
	if err := s.eachID(name, func(id pageID) { dead[id] = struct{}{} }); err != nil {
		return err
	}
	for other := range s.versions {
		if err := ctx.Err(); err != nil {
			return err
		}
		if other == name {
			continue
		}
		if err := s.eachID(other, func(id pageID) { delete(dead, id) }); err != nil {
			return err
		}
	}
	ids := make([]pageID, 0, len(dead))
	for id := range dead {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, comparePages)
	// Pages that only the head named may go, and it must not name them again.
	s.head = nil
	if err := s.db.remove(ctx, name, ids); err != nil {
		return err
	}
	delete(s.versions, name)
	return nil
}

// eachID calls f with every page that a version lists but the page of zeros.
func (s *pageStore) eachID(name string, f func(pageID)) error {
	list, err := s.db.list(name)
	if err != nil {
		return err
	}
	_, ids, err := decodeList(list)
	if err != nil {
		return fmt.Errorf("version %s: %w", name, err)
	}
	for _, id := range ids {
		if id != (pageID{}) {
			f(id)
		}
	}
	return nil
}

func comparePages(a, b pageID) int { return bytes.Compare(a[:], b[:]) }

// Size leaves out Pebble's log: once settled it is only room that was
// allocated ahead and will be used again.
func (s *pageStore) Size(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := s.db.settle(); err != nil {
		return 0, err
	}
	return usage(ctx, s.repo, ".log")
}

func (s *pageStore) Close() error { return s.db.close() }

var (
	errList  = errors.New("its list of pages is damaged")
	errPage  = errors.New("a page decompresses to another length")
	errStray = errors.New("a page that is listed is not stored")
)

// encodeList is the length of the image and then every page's name.
func encodeList(length int, ids []pageID) []byte {
	list := make([]byte, 8, 8+len(ids)*len(pageID{}))
	binary.LittleEndian.PutUint64(list, uint64(length))
	for i := range ids {
		list = append(list, ids[i][:]...)
	}
	return list
}

func decodeList(list []byte) (length int, ids []pageID, err error) {
	if len(list) < 8 {
		return 0, nil, errList
	}
	length = int(binary.LittleEndian.Uint64(list))
	list = list[8:]
	if length < 0 || len(list)%len(pageID{}) != 0 || pageCount(length) != len(list)/len(pageID{}) {
		return 0, nil, errList
	}
	ids = make([]pageID, len(list)/len(pageID{}))
	for i := range ids {
		copy(ids[i][:], list[i*len(pageID{}):])
	}
	return length, ids, nil
}

// parallel calls f for runs of n items on all cores until one fails.
func parallel(ctx context.Context, n int, f func(from, to int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), max(1, n/run+1)) {
		g.Go(func() error {
			for {
				if err := ctx.Err(); err != nil {
					return err
				}
				from := int(next.Add(run)) - run
				if from >= n {
					return nil
				}
				if err := f(from, min(from+run, n)); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}
