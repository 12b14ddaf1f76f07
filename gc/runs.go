package gc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/manifest"
)

// headLocal stands for the live state where a version's counter is asked for:
// no snapshot ever has it.
const headLocal = ^uint64(0)

// version is one state in a run.
type version struct {
	local uint64 // snapshot counter, or headLocal
	root  chunk.ID
	dying bool // no record names it; waits for its drop
}

// run is a list of versions counted against each other.
type run struct {
	incarnation uint64
	// detached: an upload. Its newest version is the last one; those before it
	// were flushed earlier and wait for their drop, which readers may hold up.
	detached bool
	versions []version
	// dropping is the version whose drop is under way, -1 for none. Places
	// before cursor have lost it already.
	dropping int
	cursor   manifest.Place
}

// progress is how far a large record has been applied: its deltas go into the
// index in bounded steps, each atomic with this.
type progress struct {
	recordSeq uint64
	op        int
	place     manifest.Place
}

// runs is everything that counting knows of one canister. It is stored in the
// index beside the counts it explains.
type runs struct {
	recordSeq uint64 // of the last record applied in full
	// damaged is the sequence of a newer record that can not be read, 0 if there
	// is none. Until a newer one comes the canister is not served.
	damaged uint64
	partial *progress
	list    []run
}

func (rs *runs) clone() *runs {
	c := &runs{recordSeq: rs.recordSeq, damaged: rs.damaged, list: make([]run, len(rs.list))}
	for i, r := range rs.list {
		r.versions = append([]version(nil), r.versions...)
		c.list[i] = r
	}
	return c
}

// pred gives what the version at index i of r is counted against: the one
// before it, spliced with the one before that while a drop is between them.
func (r *run) pred(i int) (chunk.ID, manifest.Splice) {
	at := func(j int) chunk.ID {
		if j < 0 {
			return chunk.ID{}
		}
		return r.versions[j].root
	}
	if r.dropping >= 0 && r.dropping == i-1 {
		return at(i - 2), manifest.Splice{D: at(i - 1), Cursor: r.cursor}
	}
	return at(i - 1), manifest.Splice{}
}

var errPlan = errors.New("record does not follow from the one before it")

// plan gives the runs after rec, and the changes of counts that lead there.
// It depends on nothing but its arguments, so that a replay plans the same.
func plan(have *runs, rec *record.Record) (*runs, []manifest.Change, error) {
	next := have.clone()
	next.recordSeq = rec.Seq
	if rec.Seq > next.damaged {
		next.damaged = 0
	}
	var changes []manifest.Change

	named := map[uint64]record.Snapshot{}
	for _, s := range rec.Snapshots {
		named[s.Local] = s
	}
	main := -1
	known := map[uint64]bool{}
	for i := range next.list {
		r := &next.list[i]
		current := !rec.Deleted && r.incarnation == rec.Incarnation
		if current && !r.detached {
			main = i
		}
		for j := range r.versions {
			v := &r.versions[j]
			if v.dying {
				continue
			}
			if v.local == headLocal {
				v.dying = !current
				continue
			}
			_, alive := named[v.local]
			v.dying = !current || !alive
			known[v.local] = known[v.local] || !v.dying
		}
	}
	if rec.Deleted {
		return next, nil, nil
	}
	if main < 0 {
		next.list = append(next.list, run{incarnation: rec.Incarnation, dropping: -1, versions: []version{{local: headLocal}}})
		main = len(next.list) - 1
	}

	r := &next.list[main]
	head := len(r.versions) - 1
	if h := &r.versions[head]; h.root != rec.Head {
		p, splice := r.pred(head)
		changes = append(changes, manifest.Change{P: p, V: h.root, V2: rec.Head, Splice: splice})
		h.root = rec.Head
	}
	for _, s := range rec.Snapshots {
		switch {
		case s.Source == record.Taken && !known[s.Local]:
			// A take makes its snapshot and the head equal in one record, so
			// inserting it before the head moves no count.
			if s.Root != rec.Head {
				return nil, nil, fmt.Errorf("%w: new snapshot %d is not the head", errPlan, s.Local)
			}
			last := len(r.versions) - 1
			r.versions = append(r.versions[:last:last], version{local: s.Local, root: s.Root}, r.versions[last])
		case s.Source == record.Taken:
			if i := r.index(s.Local); i < 0 || r.versions[i].root != s.Root {
				return nil, nil, fmt.Errorf("%w: snapshot %d changed", errPlan, s.Local)
			}
		default:
			if c, changed := next.detached(rec.Incarnation, s.Local).flush(s.Root); changed {
				changes = append(changes, c)
			}
			r = &next.list[main] // detached may have grown the list
		}
	}
	return next, changes, nil
}

func (r *run) index(local uint64) int {
	for i, v := range r.versions {
		if v.local == local {
			return i
		}
	}
	return -1
}

// flush makes root what the upload r is now. Who reads it as it was goes on:
// like a snapshot that is taken, what it was stays as a version before it, and
// that moves no count.
func (r *run) flush(root chunk.ID) (c manifest.Change, changed bool) {
	last := len(r.versions) - 1
	v := r.versions[last]
	if v.root == root {
		return c, false
	}
	if v.root.IsZero() {
		r.versions[last].root = root
		return manifest.Change{V2: root}, true
	}
	before := v
	before.dying = true
	v.root = root
	r.versions = append(r.versions[:last:last], before, v)
	p, splice := r.pred(last + 1)
	return manifest.Change{P: p, V: before.root, V2: root, Splice: splice}, true
}

func (rs *runs) detached(incarnation, local uint64) *run {
	for i := range rs.list {
		r := &rs.list[i]
		if last := r.versions[len(r.versions)-1]; r.detached && r.incarnation == incarnation && last.local == local && !last.dying {
			return r
		}
	}
	rs.list = append(rs.list, run{incarnation: incarnation, detached: true, dropping: -1, versions: []version{{local: local}}})
	return &rs.list[len(rs.list)-1]
}

// fromRecord gives the runs that rec alone explains: those of a recount.
func fromRecord(rec *record.Record) *runs {
	rs := &runs{recordSeq: rec.Seq}
	if rec.Deleted {
		return rs
	}
	main := run{incarnation: rec.Incarnation, dropping: -1}
	for _, s := range rec.Snapshots {
		if s.Source == record.Taken {
			main.versions = append(main.versions, version{local: s.Local, root: s.Root})
		}
	}
	main.versions = append(main.versions, version{local: headLocal, root: rec.Head})
	rs.list = append(rs.list, main)
	for _, s := range rec.Snapshots {
		if s.Source != record.Taken {
			rs.list = append(rs.list, run{incarnation: rec.Incarnation, detached: true, dropping: -1, versions: []version{{local: s.Local, root: s.Root}}})
		}
	}
	return rs
}

// nextDrop picks a version to drop and marks it under way: the one that is
// under way already, else a dying one that nobody reads and that is wanted; nil
// when there is none.
func (rs *runs) nextDrop(read func(local uint64) bool, wanted func(version) bool) *run {
	for i := range rs.list {
		if rs.list[i].dropping >= 0 {
			return &rs.list[i]
		}
	}
	for i := range rs.list {
		r := &rs.list[i]
		for j, v := range r.versions {
			if v.dying && wanted(v) && !(v.local != headLocal && read(v.local)) {
				r.dropping, r.cursor = j, manifest.Place{}
				return r
			}
		}
	}
	return nil
}

// dying counts the versions that wait for their drop, and those of them that
// can not start because somebody reads them.
func (rs *runs) dying(read func(local uint64) bool) (waiting, blocked int) {
	for _, r := range rs.list {
		for j, v := range r.versions {
			if !v.dying {
				continue
			}
			waiting++
			if j != r.dropping && v.local != headLocal && read(v.local) {
				blocked++
			}
		}
	}
	return waiting, blocked
}

// empty tells whether there is nothing to remember of the canister.
func (rs *runs) empty() bool { return len(rs.list) == 0 && rs.damaged == 0 }

// waiting counts the versions that wait for their drop.
func (rs *runs) waiting() int {
	n, _ := rs.dying(func(uint64) bool { return false })
	return n
}

// drop is the change that takes the version under way out of r.
func (r *run) drop() manifest.Change {
	i := r.dropping
	c := manifest.Change{V: r.versions[i].root}
	if i > 0 {
		c.P, c.V2 = r.versions[i-1].root, r.versions[i-1].root
	}
	if i+1 < len(r.versions) {
		c.N = r.versions[i+1].root
	}
	return c
}

// remove takes the version under way out once its drop is done, and r out of
// rs when nothing is left of it.
func (rs *runs) remove(r *run) {
	r.versions = append(r.versions[:r.dropping:r.dropping], r.versions[r.dropping+1:]...)
	r.dropping, r.cursor = -1, manifest.Place{}
	kept := rs.list[:0]
	for _, q := range rs.list {
		if len(q.versions) > 0 {
			kept = append(kept, q)
		}
	}
	rs.list = kept
}

const runsVersion = 1

var errRuns = errors.New("malformed counting state")

// encode gives the canonical bytes.
func (rs *runs) encode() []byte {
	b := []byte{runsVersion}
	b = binary.AppendUvarint(b, rs.recordSeq)
	b = binary.AppendUvarint(b, rs.damaged)
	if rs.partial == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = binary.AppendUvarint(b, rs.partial.recordSeq)
		b = binary.AppendUvarint(b, uint64(rs.partial.op))
		b = appendPlace(b, rs.partial.place)
	}
	b = binary.AppendUvarint(b, uint64(len(rs.list)))
	for _, r := range rs.list {
		b = binary.AppendUvarint(b, r.incarnation)
		b = append(b, boolByte(r.detached))
		b = binary.AppendUvarint(b, uint64(r.dropping+1))
		b = appendPlace(b, r.cursor)
		b = binary.AppendUvarint(b, uint64(len(r.versions)))
		for _, v := range r.versions {
			b = binary.BigEndian.AppendUint64(b, v.local)
			b = append(b, v.root[:]...)
			b = append(b, boolByte(v.dying))
		}
	}
	return b
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func appendPlace(b []byte, p manifest.Place) []byte {
	e := p.Encode()
	return append(binary.AppendUvarint(b, uint64(len(e))), e...)
}

// decodeRuns reads what encode wrote and nothing else.
func decodeRuns(in []byte) (*runs, error) {
	d := decoder{b: in}
	if d.byte() != runsVersion {
		return nil, fmt.Errorf("%w: version", errRuns)
	}
	rs := &runs{recordSeq: d.uvarint(), damaged: d.uvarint()}
	if d.byte() == 1 {
		rs.partial = &progress{recordSeq: d.uvarint(), op: int(d.uvarint()), place: d.place()}
	}
	const versionSize = 8 + chunk.IDSize + 1
	n := d.uvarint()
	for i := uint64(0); i < n && d.err == nil; i++ {
		r := run{incarnation: d.uvarint(), detached: d.byte() == 1, dropping: int(d.uvarint()) - 1, cursor: d.place()}
		m := d.uvarint()
		if m > uint64(len(d.b)/versionSize) {
			return nil, fmt.Errorf("%w: %d versions in %d bytes", errRuns, m, len(d.b))
		}
		for j := uint64(0); j < m && d.err == nil; j++ {
			var v version
			if raw := d.take(versionSize); raw != nil {
				v.local = binary.BigEndian.Uint64(raw)
				copy(v.root[:], raw[8:])
				v.dying = raw[versionSize-1] == 1
			}
			r.versions = append(r.versions, v)
		}
		if r.dropping >= len(r.versions) || len(r.versions) == 0 {
			return nil, fmt.Errorf("%w: drop of version %d of %d", errRuns, r.dropping, len(r.versions))
		}
		rs.list = append(rs.list, r)
	}
	if d.err != nil {
		return nil, d.err
	}
	if !bytes.Equal(rs.encode(), in) {
		return nil, fmt.Errorf("%w: not canonical", errRuns)
	}
	return rs, nil
}

// decoder reads forward; after the first error it gives zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n > len(d.b) {
		if d.err == nil {
			d.err = fmt.Errorf("%w: cut short", errRuns)
		}
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) byte() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.take(len(d.b) + 1)
		return 0
	}
	d.take(n)
	return v
}

func (d *decoder) place() manifest.Place {
	n := d.uvarint()
	if n > 64 {
		d.take(len(d.b) + 1)
		return manifest.Place{}
	}
	p, err := manifest.DecodePlace(d.take(int(n)))
	if err != nil && d.err == nil {
		d.err = fmt.Errorf("%w: %w", errRuns, err)
	}
	return p
}
