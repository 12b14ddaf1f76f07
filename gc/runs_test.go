package gc

import (
	"bytes"
	"errors"
	"testing"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/internal/record"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/manifest"
)

func id(b byte) chunk.ID { return chunk.ID{b} }

func snap(local uint64, root byte) record.Snapshot {
	return record.Snapshot{Local: local, Root: id(root), Source: record.Taken}
}

// step plans one record and fails the test where it may not be refused.
func step(t *testing.T, have *runs, rec *record.Record, want ...manifest.Change) *runs {
	t.Helper()
	next, changes, err := plan(have, rec)
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) != len(want) {
		t.Fatalf("%d changes %+v, want %d", len(changes), changes, len(want))
	}
	for i := range want {
		if changes[i] != want[i] {
			t.Fatalf("change %d is %+v, want %+v", i, changes[i], want[i])
		}
	}
	return next
}

func nobody(uint64) bool { return false }

func all(version) bool { return true }

func TestPlanFollowsALife(t *testing.T) {
	rs := step(t, &runs{}, &record.Record{Seq: 1, Incarnation: 1})
	rs = step(t, rs, &record.Record{Seq: 2, Incarnation: 1, Head: id(1)}, manifest.Change{V2: id(1)})
	// A take: snapshot and head are the same, so only the head counts.
	rs = step(t, rs, &record.Record{Seq: 3, Incarnation: 1, NextLocal: 1, Head: id(2), Snapshots: []record.Snapshot{snap(0, 2)}},
		manifest.Change{V: id(1), V2: id(2)})
	rs = step(t, rs, &record.Record{Seq: 4, Incarnation: 1, NextLocal: 2, Head: id(3), Snapshots: []record.Snapshot{snap(0, 2), snap(1, 3)}},
		manifest.Change{P: id(2), V: id(2), V2: id(3)})
	// Replace: the first leaves and a third comes, in one record. The drop of
	// the first is not begun, so it still stands in the run.
	rs = step(t, rs, &record.Record{Seq: 5, Incarnation: 1, NextLocal: 3, Head: id(4), Snapshots: []record.Snapshot{snap(1, 3), snap(2, 4)}},
		manifest.Change{P: id(3), V: id(3), V2: id(4)})
	if w, _ := rs.dying(nobody); w != 1 {
		t.Fatalf("%d versions wait", w)
	}
	r := rs.nextDrop(nobody, all)
	if want := (manifest.Change{V: id(2), N: id(3)}); r.drop() != want {
		t.Fatalf("drop is %+v", r.drop())
	}
	rs.remove(r)
	// While the newest snapshot is being dropped, the head's predecessor is spliced.
	rs = step(t, rs, &record.Record{Seq: 6, Incarnation: 1, NextLocal: 3, Head: id(4), Snapshots: []record.Snapshot{snap(1, 3)}})
	r = rs.nextDrop(nobody, all)
	r.cursor = manifest.PagePlace(manifest.Section{Kind: manifest.WasmMemory}, 5)
	cursor := r.cursor
	rs = step(t, rs, &record.Record{Seq: 7, Incarnation: 1, NextLocal: 3, Head: id(5), Snapshots: []record.Snapshot{snap(1, 3)}},
		manifest.Change{P: id(3), V: id(4), V2: id(5), Splice: manifest.Splice{D: id(4), Cursor: cursor}})
	// An upload is a run of its own.
	up := record.Snapshot{Local: 3, Root: id(9), Source: record.Uploaded, Mutable: true}
	rs = step(t, rs, &record.Record{Seq: 8, Incarnation: 1, NextLocal: 4, Head: id(5), Snapshots: []record.Snapshot{snap(1, 3), up}},
		manifest.Change{V2: id(9)})
	up.Root = id(10)
	rs = step(t, rs, &record.Record{Seq: 9, Incarnation: 1, NextLocal: 4, Head: id(5), Snapshots: []record.Snapshot{snap(1, 3), up}},
		manifest.Change{P: id(9), V: id(9), V2: id(10)})
	// Deleted: everything dies, and a new incarnation counts against nothing.
	rs = step(t, rs, &record.Record{Seq: 10, Incarnation: 1, NextLocal: 4, Deleted: true})
	rs = step(t, rs, &record.Record{Seq: 11, Incarnation: 2, NextLocal: 4})
	rs = step(t, rs, &record.Record{Seq: 12, Incarnation: 2, NextLocal: 4, Head: id(5)}, manifest.Change{V2: id(5)})
	waiting, _ := rs.dying(nobody)
	if waiting != 5 {
		t.Fatalf("%d versions wait, want 5", waiting)
	}
	for n := 0; ; n++ {
		r := rs.nextDrop(nobody, all)
		if r == nil {
			if n != waiting {
				t.Fatalf("%d drops, want %d", n, waiting)
			}
			break
		}
		rs.remove(r)
	}
	if len(rs.list) != 1 || len(rs.list[0].versions) != 1 || rs.list[0].versions[0].root != id(5) {
		t.Fatalf("left: %+v", rs.list)
	}
}

func TestPlanRefusesATakeThatIsNotTheHead(t *testing.T) {
	_, _, err := plan(&runs{}, &record.Record{Seq: 1, Incarnation: 1, NextLocal: 1, Head: id(1), Snapshots: []record.Snapshot{snap(0, 2)}})
	if !errors.Is(err, errPlan) {
		t.Fatal(err)
	}
}

func TestReadersHoldDrops(t *testing.T) {
	rs := fromRecord(&record.Record{Seq: 1, Incarnation: 1, NextLocal: 2, Head: id(2), Snapshots: []record.Snapshot{snap(0, 1), snap(1, 2)}})
	rs = step(t, rs, &record.Record{Seq: 2, Incarnation: 1, NextLocal: 2, Head: id(2)})
	zero := func(local uint64) bool { return local == 0 }
	r := rs.nextDrop(zero, all)
	if r == nil || r.versions[r.dropping].local != 1 {
		t.Fatalf("%+v", r)
	}
	if w, held := rs.dying(zero); w != 2 || held != 1 {
		t.Fatal(w, held)
	}
	rs.remove(r)
	if rs.nextDrop(zero, all) != nil {
		t.Fatal("dropped what is read")
	}
	if rs.nextDrop(nobody, all) == nil {
		t.Fatal("nothing to drop once the reader is gone")
	}
}

// What an upload was before a flush stays for those who read it.
func TestReadersHoldWhatAnUploadWas(t *testing.T) {
	up := func(root byte) *record.Record {
		return &record.Record{Seq: uint64(root), Incarnation: 1, NextLocal: 1, Snapshots: []record.Snapshot{{Local: 0, Root: id(root), Source: record.Uploaded, Mutable: true}}}
	}
	rs := step(t, &runs{}, up(1), manifest.Change{V2: id(1)})
	rs = step(t, rs, up(2), manifest.Change{P: id(1), V: id(1), V2: id(2)})
	rs = step(t, rs, up(3), manifest.Change{P: id(2), V: id(2), V2: id(3)})
	zero := func(local uint64) bool { return local == 0 }
	if r := rs.nextDrop(zero, all); r != nil {
		t.Fatalf("dropped what is read: %+v", r)
	}
	r := rs.nextDrop(nobody, all)
	if want := (manifest.Change{V: id(1), N: id(2)}); r == nil || r.drop() != want {
		t.Fatalf("drop is %+v", r)
	}
	rs.remove(r)
	if w, _ := rs.dying(nobody); w != 1 {
		t.Fatalf("%d versions wait", w)
	}
	rs.remove(rs.nextDrop(nobody, all))
	if rs.nextDrop(nobody, all) != nil || len(rs.list) != 2 || rs.list[1].versions[0].root != id(3) {
		t.Fatalf("left: %+v", rs.list)
	}
}

func someRuns() []*runs {
	a := fromRecord(&record.Record{Seq: 3, Incarnation: 1, NextLocal: 2, Head: id(2), Snapshots: []record.Snapshot{snap(0, 1), {Local: 1, Root: id(7), Source: record.Uploaded}}})
	b := a.clone()
	b.list[0].versions[0].dying = true
	b.nextDrop(nobody, all).cursor = manifest.PagePlace(manifest.Section{Kind: manifest.StableMemory}, 77)
	b.partial = &progress{recordSeq: 4, op: 1, place: b.list[0].cursor}
	return []*runs{{}, {recordSeq: 1}, a, b}
}

func TestRunsRoundTrip(t *testing.T) {
	for _, rs := range someRuns() {
		b := rs.encode()
		got, err := decodeRuns(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.encode(), b) {
			t.Fatalf("%x", b)
		}
		for cut := range b {
			if _, err := decodeRuns(b[:cut]); err == nil {
				t.Fatalf("accepted %d of %d bytes", cut, len(b))
			}
		}
	}
}

func FuzzDecodeRuns(f *testing.F) {
	for _, rs := range someRuns() {
		f.Add(rs.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if rs, err := decodeRuns(b); err == nil && !bytes.Equal(rs.encode(), b) {
			t.Fatalf("%x", b)
		}
	})
}

func FuzzDecodeMove(f *testing.F) {
	f.Add(encodeMove(7, nil))
	f.Add(encodeMove(7, []seglog.Loc{{Segment: 1, Offset: 64, Length: 99}, {Segment: 2, Offset: 128, Length: 70}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if victim, locs, err := DecodeMove(b); err == nil && !bytes.Equal(encodeMove(victim, locs), b) {
			t.Fatalf("%x", b)
		}
	})
}

func TestTickets(t *testing.T) {
	var tk Tickets
	ends := 0
	tk.OnEnd(func() { ends++ })
	a := tk.Begin()
	now := tk.Now()
	b := tk.Begin()
	if tk.Passed(now) {
		t.Fatal("passed while one is under way")
	}
	a()
	a()
	if !tk.Passed(now) || tk.Passed(tk.Now()) || tk.Active() != 1 {
		t.Fatal("a later operation holds an earlier ticket, or none holds a later one")
	}
	b()
	if ends != 2 {
		t.Fatal(ends)
	}
}
