package gc

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/internal/seglog"
)

// What the index writes rests beside operations, and not when somebody waits.
func TestPaceRestsBesideOperations(t *testing.T) {
	fs := vfs.NewMem()
	if err := seglog.Create(seglog.CreateOptions{FS: fs, Dir: "store"}); err != nil {
		t.Fatal(err)
	}
	log, err := seglog.Open(seglog.Options{FS: fs, Dir: "store"})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var tickets Tickets
	p := NewPace(log, &tickets)
	expect := func(when string, want bool) {
		t.Helper()
		if got := p.beside(); got != want {
			t.Errorf("%s: rests %t", when, got)
		}
	}
	expect("alone", false)
	end := tickets.Begin()
	expect("beside an operation", true)
	done := p.Hurry()
	expect("waited for", false)
	done()
	p.relief.Add(1)
	expect("its room is wanted", false)
	p.relief.Add(-1)
	expect("waited for no more", true)
	end()
	expect("alone again", false)
}

// Who works rests as long as it has worked, and no sooner than after a stint.
func TestBreath(t *testing.T) {
	asked := 0
	always := func() bool { asked++; return true }
	b := breath{began: time.Now().Add(time.Hour)}
	if b.take(always); asked > 0 || b.rested > 0 {
		t.Error("it rests before it has worked")
	}
	before := time.Now()
	b.began = before.Add(-10 * stint)
	if b.take(always); asked == 0 || b.rested < 10*stint {
		t.Errorf("it rests %v after %v", b.rested, 10*stint)
	}
	if b.began.Before(before) {
		t.Error("its work does not begin anew")
	}
}
