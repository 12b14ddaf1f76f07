package testkit

import (
	"fmt"
	"strings"
)

// OpName names what can be done with a store.
type OpName string

// The operations of histories.
const (
	Create       OpName = "create"        // a canister
	Destroy      OpName = "destroy"       // a canister, with all it has
	Write        OpName = "write"         // to live memory
	Resize       OpName = "resize"        // a section of live memory
	SetVersion   OpName = "set-version"   // metadata of live memory
	Checkpoint   OpName = "checkpoint"    // make live memory durable
	Take         OpName = "take"          // a snapshot
	Load         OpName = "load"          // a snapshot, also another canister's
	Delete       OpName = "delete"        // a snapshot
	BeginUpload  OpName = "begin-upload"  // of a snapshot
	WriteUpload  OpName = "write-upload"  //
	FlushUpload  OpName = "flush-upload"  //
	Copy         OpName = "copy"          // a snapshot, out of the store and in again as an upload
	OpenReader   OpName = "open-reader"   // of a snapshot, and hold it
	CloseReaders OpName = "close-readers" // after reading all of them
	ReadLive     OpName = "read-live"     // and compare
	GC           OpName = "gc"            //
	Verify       OpName = "verify"        //
	Compare      OpName = "compare"       // everything with the model
	Reopen       OpName = "reopen"        // after a clean close
	Kill         OpName = "kill"          // the process, and open again
	KillSoon     OpName = "kill-soon"     // before its Size-th change of a file from now on
	PowerLoss    OpName = "power-loss"    // and open again
	DropIndex    OpName = "drop-index"    // throw it away and open again
	FlushIndex   OpName = "flush-index"   // while the next operation goes on
	Break        OpName = "break"         // the disk: Fault
	Mend         OpName = "mend"          // the disk
)

// Span is bytes to be written.
type Span struct {
	Off     uint64
	Len     int
	Content Content
	Data    []byte // instead of the content, when not nil
}

// Bytes are those of the span.
func (s Span) Bytes() []byte {
	if s.Data != nil {
		return s.Data[:s.Len]
	}
	return s.Content.Bytes(s.Len)
}

// Op is one operation. What a field means depends on the name.
type Op struct {
	Name    OpName
	C       int    // canister
	Local   uint64 // snapshot
	From    int    // canister of the snapshot, for Load
	Replace uint64 // for Take and BeginUpload; NoSnapshot for none
	Section Section
	Size    uint64
	Sizes   map[Section]uint64
	Spans   []Span
	Version uint64
	At      int64  // time taken, nanoseconds
	Host    []byte // nil leaves the host blob
	Seed    uint64 // for what the operation leaves to chance
	Fault   Fault  // for Break
}

// NoSnapshot stands for no snapshot where a local id is asked for.
const NoSnapshot = ^uint64(0)

func (o Op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", o.Name)
	switch o.Name {
	case GC, Verify, Compare, Reopen, Kill, CloseReaders, DropIndex, FlushIndex, Mend:
		return b.String()
	case Break:
		fmt.Fprintf(&b, " %v", &o.Fault)
		return b.String()
	case KillSoon:
		fmt.Fprintf(&b, " in %d", o.Size)
		return b.String()
	case PowerLoss:
		fmt.Fprintf(&b, " seed=%d", o.Seed)
		return b.String()
	}
	fmt.Fprintf(&b, " c%d", o.C)
	switch o.Name {
	case Load, Copy:
		fmt.Fprintf(&b, " from c%d/%d", o.From, o.Local)
	case Delete, OpenReader, WriteUpload, FlushUpload:
		fmt.Fprintf(&b, "/%d", o.Local)
	case Resize:
		fmt.Fprintf(&b, " %s to %d", o.Section, o.Size)
	case SetVersion:
		fmt.Fprintf(&b, " %d", o.Version)
	case BeginUpload:
		fmt.Fprintf(&b, " %v", o.Sizes)
	}
	if o.Replace != NoSnapshot && (o.Name == Take || o.Name == BeginUpload || o.Name == Copy) {
		fmt.Fprintf(&b, " replace %d", o.Replace)
	}
	if o.Name == Write || o.Name == WriteUpload {
		fmt.Fprintf(&b, " %s", o.Section)
		for i, s := range o.Spans {
			if i == 6 {
				fmt.Fprintf(&b, " and %d more", len(o.Spans)-i)
				break
			}
			fmt.Fprintf(&b, " [%d+%d=%d]", s.Off, s.Len, s.Content)
		}
	}
	return b.String()
}

// Refusal says why an operation is refused.
type Refusal string

// The refusals the model knows.
const (
	OK        Refusal = ""
	NotFound  Refusal = "not found"
	Exists    Refusal = "already exists"
	Limit     Refusal = "snapshot limit"
	Immutable Refusal = "immutable"
	Invalid   Refusal = "invalid"
)

// Outcome is what an operation must lead to.
type Outcome struct {
	Refused Refusal
	// Next is the model after it.
	Next *Model
	// Between are states that a crash may leave besides the one before and the
	// one after: those of an operation that commits twice.
	Between []*Model
}

// Apply says what an operation must lead to.
func (m *Model) Apply(o Op) Outcome {
	refuse := func(r Refusal) Outcome { return Outcome{Refused: r, Next: m} }
	switch o.Name {
	case GC, Verify, Compare, CloseReaders, KillSoon, FlushIndex, Break, Mend:
		return Outcome{Next: m}
	case Reopen, Kill, PowerLoss, DropIndex:
		return Outcome{Next: m.Reopened()}
	}
	n, c := m.edit(o.C)
	done := Outcome{Next: n}
	if o.Name == Create {
		if c.Exists {
			return refuse(Exists)
		}
		*c = Canister{Exists: true, Next: c.Next}
		return done
	}
	if !c.Exists {
		return refuse(NotFound)
	}
	at := c.Find(o.Local)
	switch o.Name {
	case Destroy:
		*c = Canister{Next: c.Next}
	case ReadLive:
	case Write:
		im := c.Live.Sections[o.Section]
		for _, s := range o.Spans {
			if im == nil || s.Off+uint64(s.Len) > im.Size {
				return refuse(Invalid)
			}
			im = im.with(s.Bytes(), s.Off)
		}
		c.Live = c.Live.with(o.Section, im)
	case Resize:
		c.Live = c.Live.with(o.Section, c.Live.Sections[o.Section].resized(o.Size))
	case SetVersion:
		c.Live = State{Sections: c.Live.Sections, Version: o.Version}
	case Checkpoint:
		c.commit()
		if o.Host != nil {
			c.Host = o.Host
		}
	case Take:
		if r := m.admit(c, o.Replace); r != OK {
			return refuse(r)
		}
		c.commit()
		c.Snapshots = append(c.Snapshots, Snapshot{Local: c.Next, TakenAt: o.At, State: c.Live, Pending: c.Live})
		c.Next++
		if o.Host != nil {
			c.Host = o.Host
		}
	case Delete:
		if at < 0 {
			return refuse(NotFound)
		}
		c.Snapshots = append(c.Snapshots[:at], c.Snapshots[at+1:]...)
	case OpenReader:
		if at < 0 {
			return refuse(NotFound)
		}
	case BeginUpload:
		if r := m.admit(c, o.Replace); r != OK {
			return refuse(r)
		}
		st := State{Version: o.Version}
		for sec, size := range o.Sizes {
			st = st.with(sec, (*Image)(nil).resized(size))
		}
		c.Snapshots = append(c.Snapshots, Snapshot{Local: c.Next, TakenAt: o.At, Upload: true, Mutable: true, State: st, Pending: st})
		c.Next++
		if o.Host != nil {
			c.Host = o.Host
		}
	case Copy:
		src := m.Canisters[o.From]
		if at = src.Find(o.Local); !src.Exists || at < 0 {
			return refuse(NotFound)
		}
		if r := m.admit(c, o.Replace); r != OK {
			return refuse(r)
		}
		// Begun and not filled, it is there already.
		st := src.Snapshots[at].State
		empty := State{Version: st.Version}
		for sec, im := range st.Sections {
			empty = empty.with(sec, (*Image)(nil).resized(im.Size))
		}
		c.Snapshots = append(c.Snapshots, Snapshot{Local: c.Next, TakenAt: o.At, Upload: true, Mutable: true, State: empty, Pending: empty})
		c.Next++
		full, f := n.edit(o.C)
		last := &f.Snapshots[len(f.Snapshots)-1]
		last.State, last.Pending = st, st
		return Outcome{Next: full, Between: []*Model{n}}
	case WriteUpload, FlushUpload:
		if at < 0 {
			return refuse(NotFound)
		}
		s := &c.Snapshots[at]
		if !s.Mutable {
			return refuse(Immutable)
		}
		if o.Name == FlushUpload {
			s.State = s.Pending
			break
		}
		im := s.Pending.Sections[o.Section]
		if im == nil {
			return refuse(NotFound)
		}
		for _, sp := range o.Spans {
			if sp.Off+uint64(sp.Len) > im.Size {
				return refuse(Invalid)
			}
			im = im.with(sp.Bytes(), sp.Off)
		}
		s.Pending = s.Pending.with(o.Section, im)
	case Load:
		if o.From != o.C {
			return m.cross(o)
		}
		if at < 0 {
			return refuse(NotFound)
		}
		// What was uploaded is flushed first, in a step of its own.
		mid, s := m.edit(o.C)
		s.Snapshots[at].State = s.Snapshots[at].Pending
		done.Between = []*Model{mid}
		c.load(c.freeze(at))
		if o.Host != nil {
			c.Host = o.Host
		}
	default:
		return refuse(Invalid)
	}
	return done
}

// admit checks limit and replacement, and takes the replaced one out.
func (m *Model) admit(c *Canister, replace uint64) Refusal {
	if replace != NoSnapshot {
		i := c.Find(replace)
		if i < 0 {
			return NotFound
		}
		c.Snapshots = append(c.Snapshots[:i], c.Snapshots[i+1:]...)
	}
	if len(c.Snapshots) >= m.Limit {
		return Limit
	}
	return OK
}

// freeze makes a snapshot unchangeable, with all that was uploaded.
func (c *Canister) freeze(at int) State {
	s := &c.Snapshots[at]
	if s.Mutable {
		s.State, s.Mutable = s.Pending, false
	}
	return s.State
}

func (c *Canister) load(s State) {
	c.Live, c.Head, c.HasHead = s, s, true
}

// cross loads a snapshot of another canister: the source is frozen first, in a
// step of its own.
func (m *Model) cross(o Op) Outcome {
	src := m.Canisters[o.From]
	if !src.Exists {
		return Outcome{Refused: NotFound, Next: m}
	}
	at := src.Find(o.Local)
	if at < 0 {
		return Outcome{Refused: NotFound, Next: m}
	}
	mid, s := m.edit(o.From)
	st := s.freeze(at)
	n, c := mid.edit(o.C)
	c.load(st)
	if o.Host != nil {
		c.Host = o.Host
	}
	return Outcome{Next: n, Between: []*Model{mid}}
}
