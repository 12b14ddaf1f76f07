package record

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/snapstore/snapstore/chunk"
)

func full() *Record {
	return &Record{
		Seq: 7, Incarnation: 2, NextLocal: 9, Head: chunk.ID{1}, HeadLogical: 4096,
		Snapshots: []Snapshot{
			{Local: 3, Root: chunk.ID{2}, Logical: 10, TakenAt: 1, Source: Taken},
			{Local: 8, Root: chunk.ID{3}, Logical: 20, TakenAt: 2, Source: Uploaded, Mutable: true},
		},
		Host: []byte("host"),
	}
}

func TestRoundTrip(t *testing.T) {
	for _, r := range []*Record{full(), {Seq: 1, Incarnation: 1}, {Seq: 9, Incarnation: 3, NextLocal: 4, Deleted: true}} {
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, r) {
			t.Fatalf("got %+v, want %+v", got, r)
		}
		for cut := range b {
			if _, err := Decode(b[:cut]); err == nil {
				t.Fatalf("accepted %d of %d bytes", cut, len(b))
			}
		}
		if _, err := Decode(append(b, 0)); err == nil {
			t.Fatal("accepted a byte too many")
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, spoil := range map[string]func(*Record){
		"no sequence":        func(r *Record) { r.Seq = 0 },
		"no incarnation":     func(r *Record) { r.Incarnation = 0 },
		"order":              func(r *Record) { r.Snapshots[1].Local = 3 },
		"above the counter":  func(r *Record) { r.NextLocal = 8 },
		"no root":            func(r *Record) { r.Snapshots[0].Root = chunk.ID{} },
		"no source":          func(r *Record) { r.Snapshots[0].Source = 0 },
		"mutable and taken":  func(r *Record) { r.Snapshots[0].Mutable = true },
		"large host blob":    func(r *Record) { r.Host = make([]byte, MaxHost+1) },
		"tombstone and head": func(r *Record) { r.Deleted, r.Snapshots, r.Host = true, nil, nil },
		"too many snapshots": func(r *Record) { r.Snapshots = make([]Snapshot, MaxSnapshots+1) },
	} {
		r := full()
		spoil(r)
		if _, err := r.Encode(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLogicalSaturates(t *testing.T) {
	r := &Record{Snapshots: []Snapshot{{Logical: 1 << 63}, {Logical: 1 << 63}, {Logical: 5}}}
	if got := r.Logical(); got != 1<<64-1 {
		t.Fatal(got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range []*Record{full(), {Seq: 1, Incarnation: 1}, {Seq: 9, Incarnation: 3, NextLocal: 4, Deleted: true}} {
		b, err := r.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		again, err := r.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x decodes and encodes as %x (%v)", b, again, err)
		}
	})
}
