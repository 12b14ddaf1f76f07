package testkit

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/zeebo/blake3"
)

// Section names an address space of a canister in the model: 1 module, 2 wasm
// memory, 3 stable memory, and 4 a stored chunk, told apart by Chunk.
type Section struct {
	Kind  uint8
	Chunk uint8
}

func (s Section) String() string {
	if s.Kind == 4 {
		return fmt.Sprintf("chunk%d", s.Chunk)
	}
	return [...]string{"?", "module", "wasm", "stable"}[s.Kind]
}

// Compare orders sections.
func (s Section) Compare(t Section) int {
	return cmp.Or(cmp.Compare(s.Kind, t.Kind), cmp.Compare(s.Chunk, t.Chunk))
}

// Image is the content of a section. Immutable: changes give a new one.
type Image struct {
	Size  uint64
	Pages map[uint64]*Page // those that are not zero
	sum   atomic.Pointer[[32]byte]
}

func (m *Image) page(i uint64) [PageSize]byte {
	if m != nil {
		if p := m.Pages[i]; p != nil {
			return p.Data
		}
	}
	return [PageSize]byte{}
}

// ReadAt fills p with what is there, zeros beyond the end.
func (m *Image) ReadAt(p []byte, off uint64) {
	for n := 0; n < len(p); {
		at := off + uint64(n)
		page := m.page(at / PageSize)
		n += copy(p[n:], page[at%PageSize:])
	}
}

func (m *Image) clone() *Image {
	if m == nil {
		return &Image{Pages: map[uint64]*Page{}}
	}
	return &Image{Size: m.Size, Pages: maps.Clone(m.Pages)}
}

func (m *Image) with(p []byte, off uint64) *Image {
	c := m.clone()
	for len(p) > 0 {
		i, in := off/PageSize, off%PageSize
		page := c.page(i)
		n := copy(page[in:], p)
		if q := NewPage(&page); q != nil {
			c.Pages[i] = q
		} else {
			delete(c.Pages, i)
		}
		p, off = p[n:], off+uint64(n)
	}
	return c
}

func (m *Image) resized(size uint64) *Image {
	c := m.clone()
	if size < c.Size {
		for i := range c.Pages {
			if i*PageSize >= size {
				delete(c.Pages, i)
			}
		}
		if in := size % PageSize; in != 0 {
			page := c.page(size / PageSize)
			clear(page[in:])
			if q := NewPage(&page); q != nil {
				c.Pages[size/PageSize] = q
			} else {
				delete(c.Pages, size/PageSize)
			}
		}
	}
	c.Size = size
	return c
}

// Sum stands for size and content.
func (m *Image) Sum() [32]byte {
	sum := m.sum.Load()
	if sum == nil {
		h := blake3.New()
		h.Write(binary.LittleEndian.AppendUint64(nil, m.Size))
		for _, i := range slices.Sorted(maps.Keys(m.Pages)) {
			h.Write(binary.LittleEndian.AppendUint64(nil, i))
			h.Write(m.Pages[i].ID[:])
		}
		sum = (*[32]byte)(h.Sum(nil))
		m.sum.Store(sum)
	}
	return *sum
}

// State is the content of a canister or of a snapshot. Immutable.
type State struct {
	Sections map[Section]*Image // without empty ones
	Version  uint64             // stands for the metadata
}

func (s State) with(sec Section, m *Image) State {
	c := State{Sections: maps.Clone(s.Sections), Version: s.Version}
	if c.Sections == nil {
		c.Sections = map[Section]*Image{}
	}
	if m == nil || m.Size == 0 {
		delete(c.Sections, sec)
	} else {
		c.Sections[sec] = m
	}
	return c
}

// Names lists the sections in order.
func (s State) Names() []Section {
	return slices.SortedFunc(maps.Keys(s.Sections), Section.Compare)
}

// Equal compares contents.
func (s State) Equal(t State) bool {
	return s.Version == t.Version && maps.EqualFunc(s.Sections, t.Sections, func(a, b *Image) bool {
		return a == b || a.Sum() == b.Sum()
	})
}

// Logical is what the state is charged for, in bytes.
func (s State) Logical() uint64 {
	var n uint64
	for sec, m := range s.Sections {
		if sec.Kind == 4 {
			n += 1 << 20
		} else {
			n += m.Size
		}
	}
	return n
}

// Snapshot of a canister in the model.
type Snapshot struct {
	Local   uint64
	TakenAt int64
	Upload  bool
	Mutable bool
	// State is durable; Pending, of an upload, is what was written since.
	State, Pending State
}

// Canister in the model. Immutable, like all that a Model points to.
type Canister struct {
	Exists    bool
	Live      State // in memory
	Head      State // durable
	HasHead   bool
	Snapshots []Snapshot
	Next      uint64 // local id of the next snapshot
	Host      []byte
}

// Find gives a snapshot's index, -1 when it is not there.
func (c *Canister) Find(local uint64) int {
	return slices.IndexFunc(c.Snapshots, func(s Snapshot) bool { return s.Local == local })
}

func (c *Canister) clone() *Canister {
	d := *c
	d.Snapshots = slices.Clone(c.Snapshots)
	return &d
}

// commit makes the live state durable, and open uploads with it.
func (c *Canister) commit() {
	c.Head, c.HasHead = c.Live, true
	c.flushUploads()
}

func (c *Canister) flushUploads() {
	for i := range c.Snapshots {
		if c.Snapshots[i].Mutable {
			c.Snapshots[i].State = c.Snapshots[i].Pending
		}
	}
}

// Model is what a store must hold. Immutable: Apply gives new ones.
type Model struct {
	Limit     int // snapshots a canister may have
	Canisters []*Canister
}

// NewModel has canisters by number, none of which exists yet.
func NewModel(canisters, limit int) *Model {
	m := &Model{Limit: limit}
	for range canisters {
		m.Canisters = append(m.Canisters, &Canister{})
	}
	return m
}

func (m *Model) clone() *Model {
	return &Model{Limit: m.Limit, Canisters: slices.Clone(m.Canisters)}
}

// edit gives a copy of m and, in it, a copy of one canister.
func (m *Model) edit(i int) (*Model, *Canister) {
	n := m.clone()
	n.Canisters[i] = m.Canisters[i].clone()
	return n, n.Canisters[i]
}

// Reopened is m after the process ended: what was not durable is gone.
func (m *Model) Reopened() *Model {
	n := m.clone()
	for i, c := range n.Canisters {
		d := c.clone()
		d.Live = d.Head
		for j := range d.Snapshots {
			d.Snapshots[j].Pending = d.Snapshots[j].State
		}
		n.Canisters[i] = d
	}
	return n
}

// Durable tells whether two models hold the same once reopened.
func (m *Model) Durable(o *Model) bool {
	return slices.EqualFunc(m.Canisters, o.Canisters, func(a, b *Canister) bool {
		return a == b || a.Exists == b.Exists && a.Next == b.Next && a.HasHead == b.HasHead && a.Head.Equal(b.Head) && bytes.Equal(a.Host, b.Host) &&
			slices.EqualFunc(a.Snapshots, b.Snapshots, func(s, t Snapshot) bool {
				return s.Local == t.Local && s.Upload == t.Upload && s.Mutable == t.Mutable && s.TakenAt == t.TakenAt && s.State.Equal(t.State)
			})
	})
}

// Pages is how many different pages the store must hold once gc is done. With
// apart each canister has its own.
func (m *Model) Pages(apart bool) int {
	type key struct {
		canister int
		id       [32]byte
	}
	ids := map[key]struct{}{}
	for i, c := range m.Canisters {
		if !apart {
			i = 0
		}
		add := func(s State) {
			for _, im := range s.Sections {
				for _, p := range im.Pages {
					ids[key{i, p.ID}] = struct{}{}
				}
			}
		}
		add(c.Head)
		for _, s := range c.Snapshots {
			add(s.State)
		}
	}
	return len(ids)
}

// Snapshots is how many there are.
func (m *Model) Snapshots() int {
	n := 0
	for _, c := range m.Canisters {
		n += len(c.Snapshots)
	}
	return n
}
