package ui

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	drawEvery = 200 * time.Millisecond
	// The rate shown is that of the last samples*drawEvery or so: long enough
	// to be calm, short enough to show a stall.
	samples = 16
)

// Progress draws one line with bytes, rate and time left on a terminal, at
// most five times a second, in place. It is drawn by whoever calls Update; no
// goroutine runs behind it. A nil Progress is silent, and so is one whose
// file is not a terminal. Safe for concurrent use.
type Progress struct {
	out   io.Writer // nil: silent
	width func() int
	now   func() time.Time
	label string

	mu    sync.Mutex
	ring  [samples]sample
	drawn int // lines drawn so far
}

type sample struct {
	at   time.Time
	done int64
}

// NewProgress makes a progress line on f, usually os.Stderr.
func NewProgress(f *os.File, label string) *Progress {
	if !IsTerminal(f) {
		return nil
	}
	return newProgress(f, label, func() int { return terminalWidth(f) }, time.Now)
}

func newProgress(out io.Writer, label string, width func() int, now func() time.Time) *Progress {
	p := &Progress{out: out, width: width, now: now, label: label}
	p.ring[0] = sample{at: now()}
	return p
}

// Update says how far the work is; total 0 is unknown. It fits where a
// func(done, total int64) is asked for.
func (p *Progress) Update(done, total int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	newest := p.ring[p.drawn%samples]
	if now.Sub(newest.at) < drawEvery {
		return
	}
	p.drawn++
	oldest := p.ring[0]
	if p.drawn >= samples {
		oldest = p.ring[p.drawn%samples]
	}
	p.ring[p.drawn%samples] = sample{now, done}
	p.draw(line(p.label, done, total, done-oldest.done, now.Sub(oldest.at)))
}

// Show draws a line of the caller's making instead, as often as Update does.
func (p *Progress) Show(text string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if now.Sub(p.ring[p.drawn%samples].at) < drawEvery {
		return
	}
	p.drawn++
	p.ring[p.drawn%samples] = sample{at: now}
	p.draw(text)
}

// Clear takes the line off the screen, before other output and at the end.
func (p *Progress) Clear() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn > 0 {
		p.draw("")
	}
}

// draw replaces the line. A failed write is ignored: work does not stop
// because nobody can watch it.
func (p *Progress) draw(text string) {
	if limit := p.width() - 1; limit > 0 && utf8.RuneCountInString(text) > limit {
		text = string([]rune(text)[:limit])
	}
	// Carriage return, text, erase to the end of the line.
	_, _ = io.WriteString(p.out, "\r"+text+"\x1b[K")
}

func line(label string, done, total, recent int64, span time.Duration) string {
	done, recent = max(done, 0), max(recent, 0)
	rate := Rate(uint64(recent), span)
	if total <= 0 {
		return fmt.Sprintf("%s  %s  %s", label, Bytes(uint64(done)), rate)
	}
	done = min(done, total)
	left := "time left unknown"
	if recent > 0 {
		seconds := float64(total-done) * span.Seconds() / float64(recent)
		if seconds < 100*3600 {
			left = Duration(time.Duration(seconds)*time.Second) + " left"
		}
	}
	return fmt.Sprintf("%s  %s of %s  %s  %s  %s", label, Bytes(uint64(done)), Bytes(uint64(total)),
		Percent(uint64(done), uint64(total)), rate, left)
}
