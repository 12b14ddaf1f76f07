package testkit

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	blockSize  = 4096
	sectorSize = 512
)

// Disk is a file system in memory with a page cache over a medium. Sync moves
// a file's content to the medium and the sync of a directory moves its names;
// whatever was not synced may be lost, block by block and name by name, in any
// order, which is all that POSIX promises. Unlike pebble's MemFS it truncates,
// lets removals survive unsynced, keeps a rename from losing both names, loses
// what a failed sync gave up on, can be full, and draws a crash from a seed
// alone. Safe for concurrent use.
type Disk struct {
	mu       sync.Mutex
	root     *inode
	locks    map[string]*FS
	capacity int64 // bytes; 0 = without bound
	used     int64
}

// inode is a file or a directory.
type inode struct {
	dir   bool
	links int // names and open handles, to give space back
	mod   time.Time

	// Of a file: what the page cache shows, and what the medium holds. A block
	// is changed in place only while its token is the inode's: blocks shared
	// with the medium or with another disk are copied first.
	token    *byte
	blocks   []*block
	size     int64
	reserved int64
	synced   []*block
	ssize    int64
	// given up: blocks of a sync that failed. They are clean to the cache, so a
	// later sync does not write them.
	given map[int]bool

	// Of a directory.
	names, snames map[string]*inode
	// from says which name an unsynced rename took a name from.
	from map[string]string
}

type block struct {
	token *byte
	data  [blockSize]byte
}

// NewDisk returns an empty disk.
func NewDisk() *Disk {
	return &Disk{root: newDir(), locks: map[string]*FS{}}
}

func newDir() *inode {
	return &inode{dir: true, links: 1, names: map[string]*inode{}, snames: map[string]*inode{}, from: map[string]string{}}
}

// Mount gives a process's view of the disk.
func (d *Disk) Mount() *FS { return &FS{disk: d} }

// SetCapacity bounds the disk, in bytes; 0 lifts the bound. What is there
// already stays.
func (d *Disk) SetCapacity(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = bytes
}

// Capacity is what SetCapacity set.
func (d *Disk) Capacity() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.capacity
}

// Used is how many bytes files take, with what was reserved for them.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used
}

// Crash gives the disk as it may be after a power loss at this moment: all that
// was synced, and of the rest each block and each name with the given
// probability in percent. At 100 nothing is lost, as when only the process dies
// and all is written back before anything else happens. The result depends on
// nothing but the disk's state, the percentage and the generator.
func (d *Disk) Crash(keep int, rng *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &Disk{locks: map[string]*FS{}, capacity: d.capacity}
	done := map[*inode]*inode{}
	c.root = d.root.crash(keep, rng, done)
	for _, n := range done {
		c.used += n.space()
	}
	return c
}

func survives(keep int, rng *rand.Rand) bool {
	switch {
	case keep <= 0:
		return false
	case keep >= 100:
		return true
	}
	return rng.IntN(100) < keep
}

func (n *inode) crash(keep int, rng *rand.Rand, done map[*inode]*inode) *inode {
	if c, ok := done[n]; ok {
		c.links++
		return c
	}
	c := &inode{dir: n.dir, mod: n.mod, links: 1}
	done[n] = c
	if !n.dir {
		n.crashFile(c, keep, rng)
		return c
	}
	c.names, c.from = map[string]*inode{}, map[string]string{}
	all := maps.Clone(n.snames)
	maps.Copy(all, n.names)
	kept := map[string]bool{} // unsynced names that survive
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if n.names[name] != n.snames[name] && n.names[name] != nil {
			kept[name] = survives(keep, rng)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		now, then := n.names[name], n.snames[name]
		pick := then
		switch {
		case now == then:
		case now != nil:
			if kept[name] {
				pick = now
			}
		default: // removed, or renamed away: never before the new name is there
			gone := survives(keep, rng)
			for to, from := range n.from {
				if from == name && !kept[to] {
					gone = false
				}
			}
			if gone {
				pick = nil
			}
		}
		if pick != nil {
			c.names[name] = pick.crash(keep, rng, done)
		}
	}
	c.snames = maps.Clone(c.names)
	return c
}

func (n *inode) crashFile(c *inode, keep int, rng *rand.Rand) {
	c.token = new(byte)
	n.token = new(byte) // blocks are shared from here on
	if n.size < n.ssize && !survives(keep, rng) {
		// The cut is lost, and with it what was written since.
		c.blocks, c.size = slices.Clone(n.synced), n.ssize
	} else {
		c.blocks, c.size = slices.Clone(n.synced), min(n.ssize, n.size)
		c.blocks = c.blocks[:min(len(c.blocks), blocksOf(c.size))]
		for i, b := range n.blocks {
			if i < len(n.synced) && b == n.synced[i] || n.given[i] || !survives(keep, rng) {
				continue
			}
			for len(c.blocks) <= i {
				c.blocks = append(c.blocks, nil)
			}
			if keep < 100 && rng.IntN(8) == 0 {
				b = torn(c.blocks[i], b, rng)
			}
			c.blocks[i] = b
			c.size = max(c.size, min(n.size, int64(i+1)*blockSize))
		}
		if c.size < n.size && survives(keep, rng) {
			c.size = n.size // the length is there, the data is zeros
		}
	}
	for len(c.blocks) < blocksOf(c.size) {
		c.blocks = append(c.blocks, nil)
	}
	c.synced, c.ssize = slices.Clone(c.blocks), c.size
	c.trim()
}

// torn is a block of which only some sectors were written.
func torn(old, now *block, rng *rand.Rand) *block {
	b := &block{}
	if old != nil {
		b.data = old.data
	}
	if now == nil {
		return b
	}
	n := rng.IntN(blockSize / sectorSize)
	if rng.IntN(2) == 0 {
		copy(b.data[:n*sectorSize], now.data[:])
	} else {
		copy(b.data[n*sectorSize:], now.data[n*sectorSize:])
	}
	return b
}

// trim zeroes what lies behind the end in the last block.
func (n *inode) trim() {
	if in := n.size % blockSize; in != 0 {
		if i := int(n.size / blockSize); i < len(n.blocks) && n.blocks[i] != nil {
			clear(n.own(i).data[in:])
		}
	}
}

func blocksOf(size int64) int { return int((size + blockSize - 1) / blockSize) }

// own gives a block that may be written.
func (n *inode) own(i int) *block {
	for len(n.blocks) <= i {
		n.blocks = append(n.blocks, nil)
	}
	b := n.blocks[i]
	if b == nil {
		b = &block{token: n.token}
		n.blocks[i] = b
	} else if b.token != n.token {
		b = &block{token: n.token, data: b.data}
		n.blocks[i] = b
	}
	delete(n.given, i)
	return b
}

func (n *inode) space() int64 {
	if n.dir {
		return 0
	}
	return int64(blocksOf(max(n.size, n.reserved))) * blockSize
}

// grow accounts for a file that will have size bytes, or says the disk is full.
func (d *Disk) grow(n *inode, size int64) error {
	before := n.space()
	after := int64(blocksOf(max(size, n.size, n.reserved))) * blockSize
	if d.capacity > 0 && after > before && d.used+after-before > d.capacity {
		return syscall.ENOSPC
	}
	d.used += after - before
	return nil
}

func (n *inode) write(p []byte, off int64) {
	for len(p) > 0 {
		i, in := int(off/blockSize), off%blockSize
		k := copy(n.own(i).data[in:], p)
		p, off = p[k:], off+int64(k)
	}
	n.size = max(n.size, off)
	n.mod = time.Now()
}

func (n *inode) readAt(p []byte, off int64) int {
	if off >= n.size {
		return 0
	}
	p = p[:min(int64(len(p)), n.size-off)]
	for done := 0; done < len(p); {
		at := off + int64(done)
		i, in := int(at/blockSize), at%blockSize
		dst := p[done:min(len(p), done+blockSize-int(in))]
		if i < len(n.blocks) && n.blocks[i] != nil {
			copy(dst, n.blocks[i].data[in:])
		} else {
			clear(dst)
		}
		done += len(dst)
	}
	return len(p)
}

func (d *Disk) truncate(n *inode, size int64) error {
	if size > n.size {
		if err := d.grow(n, size); err != nil {
			return err
		}
		n.size = size
		return nil
	}
	before := n.space()
	n.size, n.reserved = size, min(n.reserved, size)
	n.blocks = n.blocks[:min(len(n.blocks), blocksOf(size))]
	for i := range n.given {
		if i >= len(n.blocks) {
			delete(n.given, i)
		}
	}
	n.trim()
	d.used -= before - n.space()
	return nil
}

func (n *inode) sync() {
	if n.dir {
		n.snames = maps.Clone(n.names)
		clear(n.from)
		return
	}
	old := n.synced
	n.synced, n.ssize = slices.Clone(n.blocks), n.size
	for i := range n.given {
		n.synced[i] = nil
		if i < len(old) {
			n.synced[i] = old[i]
		}
	}
	n.token = new(byte)
}

// giveUp is what a failed sync does: the cache counts dirty blocks as clean.
func (n *inode) giveUp() {
	if n.given == nil {
		n.given = map[int]bool{}
	}
	for i, b := range n.blocks {
		if i >= len(n.synced) || n.synced[i] != b {
			n.given[i] = true
		}
	}
	n.token = new(byte)
}

// unlink gives the space back when neither name nor handle is left.
func (d *Disk) unlink(n *inode) {
	if n.links--; n.links == 0 {
		d.used -= n.space()
		for _, c := range n.names {
			d.unlink(c)
		}
	}
}

func split(name string) []string {
	name = strings.Trim(path.Clean("/"+name), "/")
	if name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

// find walks to a node; nil when it is not there.
func (d *Disk) find(name string) *inode {
	n := d.root
	for _, p := range split(name) {
		if n == nil || !n.dir {
			return nil
		}
		n = n.names[p]
	}
	return n
}

// parent walks to the directory that has, or would have, the name.
func (d *Disk) parent(op, name string) (*inode, string, error) {
	p := split(name)
	if len(p) == 0 {
		return nil, "", &os.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	n := d.root
	for _, s := range p[:len(p)-1] {
		if n = n.names[s]; n == nil {
			return nil, "", &os.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		if !n.dir {
			return nil, "", &os.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
	}
	return n, p[len(p)-1], nil
}

// Files lists every file below dir, in order, with directories left out.
func (d *Disk) Files(dir string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	var walk func(n *inode, at string)
	walk = func(n *inode, at string) {
		if !n.dir {
			out = append(out, at)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(n.names)) {
			walk(n.names[name], path.Join(at, name))
		}
	}
	if n := d.find(dir); n != nil {
		walk(n, strings.Trim(path.Clean("/"+dir), "/"))
	}
	return out
}

// Bytes copies what a file shows.
func (d *Disk) Bytes(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(name)
	if n == nil || n.dir {
		return nil, fmt.Errorf("no file %s: %w", name, fs.ErrNotExist)
	}
	p := make([]byte, n.size)
	n.readAt(p, 0)
	return p, nil
}

// Edit changes a file behind everybody's back, cache and medium alike, as rot
// does. The function may change the bytes but not their number.
func (d *Disk) Edit(name string, f func(p []byte)) error {
	p, err := d.Bytes(name)
	if err != nil {
		return err
	}
	f(p)
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(name)
	if n == nil {
		return fmt.Errorf("no file %s: %w", name, fs.ErrNotExist)
	}
	dirty := !slices.Equal(n.blocks, n.synced) || n.size != n.ssize
	n.write(p, 0)
	if !dirty {
		n.sync()
	}
	return nil
}

// Copy puts a copy of what is below dir in another disk at the same place,
// replacing what is there: an older state put back.
func (d *Disk) Copy(to *Disk, dir string) error {
	view, other := d.Mount(), to.Mount()
	if err := other.RemoveAll(dir); err != nil {
		return err
	}
	for _, name := range d.Files(dir) {
		p, err := d.Bytes(name)
		if err != nil {
			return err
		}
		if err := other.MkdirAll(view.PathDir(name), 0o700); err != nil {
			return err
		}
		f, err := other.Create(name, "")
		if err != nil {
			return err
		}
		if _, err := f.Write(p); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	to.SyncAll()
	return nil
}

// SyncAll makes the medium what the cache shows.
func (d *Disk) SyncAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	var walk func(n *inode)
	walk = func(n *inode) {
		n.given = nil
		n.sync()
		for _, c := range n.names {
			walk(c)
		}
	}
	walk(d.root)
}

// Export writes what the disk shows to a directory of the operating system, to
// look at a store that a test found wanting.
func (d *Disk) Export(dir string) error {
	for _, name := range d.Files("") {
		p, err := d.Bytes(name)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(to, p, 0o600); err != nil {
			return err
		}
	}
	return nil
}
