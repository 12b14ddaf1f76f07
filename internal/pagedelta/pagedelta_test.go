package pagedelta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// seeded returns a source of randomness and prints its seed.
func seeded(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func kinds(t testing.TB) []kind {
	if !supported(avx2) {
		t.Log("this machine has no AVX2")
		return []kind{portable}
	}
	return []kind{portable, avx2}
}

// windows are what memory, and those who want to break a codec, are made of.
func windows(r *rand.Rand) map[string][]byte {
	fill := func(f func(i int) byte) []byte {
		b := make([]byte, MaxWindow)
		for i := range b {
			b[i] = f(i)
		}
		return b
	}
	objects := func(size int) []byte {
		b := make([]byte, MaxWindow)
		for i := 0; i+size <= len(b); i += size {
			binary.LittleEndian.PutUint32(b[i:], 0xabcd0000+uint32(r.IntN(4))*64)
			binary.LittleEndian.PutUint32(b[i+4:], uint32(r.IntN(16)))
			if size >= 16 {
				binary.LittleEndian.PutUint64(b[i+8:], 0x7f1200000000+uint64(r.IntN(1<<16)))
			}
		}
		return b
	}
	mixed := make([]byte, 0, MaxWindow)
	for len(mixed) < MaxWindow {
		n := 1 + r.IntN(300)
		switch from := r.IntN(5); {
		case from == 0 || len(mixed) == 0:
			for range n {
				mixed = append(mixed, byte(r.Uint32()))
			}
		case from == 1:
			mixed = append(mixed, make([]byte, n)...)
		default: // what was there before, with a byte changed now and then
			at := r.IntN(len(mixed))
			for i := range n {
				c := mixed[at+i]
				if r.IntN(20) == 0 {
					c ^= byte(r.Uint32())
				}
				mixed = append(mixed, c)
			}
		}
	}
	w := map[string][]byte{
		"zeros":    make([]byte, MaxWindow),
		"ones":     fill(func(int) byte { return 0xff }),
		"random":   fill(func(int) byte { return byte(r.Uint32()) }),
		"counting": fill(func(i int) byte { return byte(i / 4 >> (8 * (i % 4))) }),
		"few":      fill(func(int) byte { return byte(max(0, r.IntN(40)-38)) }),
		"mixed":    mixed[:MaxWindow],
	}
	for _, period := range []int{1, 2, 3, 4, 5, 8, 12, 48, 60, 63, 64, 65, 100, 4095, 4096, 4100} {
		pattern := make([]byte, period)
		for i := range pattern {
			pattern[i] = byte(r.Uint32())
		}
		w[fmt.Sprint("period ", period)] = fill(func(i int) byte { return pattern[i%period] })
	}
	for _, size := range []int{8, 12, 16, 20, 24, 48, 72} {
		w[fmt.Sprint("objects of ", size)] = objects(size)
	}
	return w
}

// Every window comes back, page by page, whatever kind has written and reads it,
// and all kinds write the same. Nothing is written that was not asked for.
func TestWhatIsWrittenComesBack(t *testing.T) {
	for name, window := range windows(seeded(t)) {
		for first := range 2 {
			from := first * 3 * PageSize // a window need not be whole
			w := window[from:]
			var encoders [avx2 + 1]Encoder
			got := make(map[kind][]byte)
			for _, k := range kinds(t) {
				got[k] = bytes.Repeat([]byte{0xee}, len(w)+100)
			}
			for at := 0; at < len(w); at += PageSize {
				var encoded []byte
				for _, k := range kinds(t) {
					b := encoders[k].append(k, []byte("before"), w[:at+PageSize], at)
					if string(b[:6]) != "before" || len(b)-6 > MaxEncoded {
						t.Fatalf("%s, %v at %d: %d bytes behind %q", name, k, at, len(b), b[:6])
					}
					if b = b[6:]; encoded != nil && !bytes.Equal(b, encoded) {
						t.Fatalf("%s at %d: %v wrote other bytes", name, at, k)
					}
					encoded = b
				}
				for _, k := range kinds(t) {
					if err := decode(k, got[k], at, encoded); err != nil {
						t.Fatalf("%s, %v at %d: %v", name, k, at, err)
					}
					if !bytes.Equal(got[k][:at+PageSize], w[:at+PageSize]) {
						t.Fatalf("%s, %v at %d: another page", name, k, at)
					}
					if !bytes.Equal(got[k][at+PageSize:], bytes.Repeat([]byte{0xee}, len(got[k])-at-PageSize)) {
						t.Fatalf("%s, %v at %d: wrote behind the page", name, k, at)
					}
				}
			}
		}
	}
}

// An encoder that was in a large window forgets it in a small one, whose first
// page it need not be given.
func TestAnotherWindow(t *testing.T) {
	ws := windows(seeded(t))
	for _, k := range kinds(t) {
		var used Encoder
		for at := 0; at < MaxWindow; at += PageSize {
			used.append(k, nil, ws["mixed"], at)
		}
		for _, at := range []int{0, PageSize} {
			w := bytes.Clone(ws["mixed"][:2*PageSize])
			if got, want := used.append(k, nil, w, at), new(Encoder).append(k, nil, w, at); !bytes.Equal(got, want) {
				t.Errorf("%v at %d: other bytes than a new encoder's", k, at)
			}
			used.next = 0
		}
	}
}

// Distances have 16 bits: beyond a window's end pages stand alone.
func TestBehindTheWindow(t *testing.T) {
	r := seeded(t)
	w := make([]byte, MaxWindow+2*PageSize)
	for i := range w {
		w[i] = byte(r.Uint32())
	}
	copy(w[MaxWindow+PageSize-idleEvery*line:], w[:line]) // is far from what it equals
	for _, k := range kinds(t) {
		var e Encoder
		got := make([]byte, len(w))
		for at := 0; at < len(w); at += PageSize {
			if err := decode(k, got, at, e.append(k, nil, w, at)); err != nil {
				t.Fatalf("%v at %d: %v", k, at, err)
			}
		}
		if !bytes.Equal(got, w) {
			t.Errorf("%v: another page", k)
		}
	}
}

// What the codec is for must come to less than a bound, each a little above what
// was seen: a search that no longer finds anything would pass every other test.
func TestSizes(t *testing.T) {
	ws := windows(rand.New(rand.NewPCG(1, 0)))
	for name, most := range map[string]float64{
		"zeros": 0.004, "ones": 0.006, "random": 1.15, "period 12": 0.007, "period 48": 0.007, "period 100": 0.007,
		"period 4096": 0.08, "objects of 16": 0.38, "objects of 20": 0.31, "objects of 48": 0.23, "mixed": 0.57,
	} {
		n := 0
		var e Encoder
		for at := 0; at < MaxWindow; at += PageSize {
			n += len(e.Append(nil, ws[name], at))
		}
		if got := float64(n) / MaxWindow; got > most {
			t.Errorf("%s: %.3f of its size, want at most %.3f", name, got, most)
		} else {
			t.Logf("%s: %.4f", name, got)
		}
	}
}

// What was not written by an encoder is refused or gives some page, within the
// bounds of what was handed over.
func TestMalformed(t *testing.T) {
	r := seeded(t)
	ws := windows(r)
	for _, name := range []string{"mixed", "objects of 20", "zeros", "few"} {
		w := ws[name]
		var e Encoder
		e.Append(nil, w, 0)
		good := e.Append(nil, w, PageSize)
		for range 2000 {
			bad := bytes.Clone(good)
			switch r.IntN(4) {
			case 0:
				bad = bad[:r.IntN(len(bad))]
			case 1:
				bad = bad[r.IntN(len(bad)):]
			case 2:
				for range 1 + r.IntN(4) {
					bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
				}
			default: // what says how long the rest is
				bad[len(bad)-1-r.IntN(min(len(bad), 3*bitmap))] = byte(r.Uint32())
			}
			same := make(map[kind]error)
			var out [2][]byte
			for i, k := range kinds(t) {
				out[i] = make([]byte, 3*PageSize)
				copy(out[i], w[:PageSize])
				same[k] = decode(k, out[i], PageSize, bytes.Clone(bad))
				if !bytes.Equal(out[i][:PageSize], w[:PageSize]) || !bytes.Equal(out[i][2*PageSize:], make([]byte, PageSize)) {
					t.Fatalf("%s, %v: wrote outside the page", name, k)
				}
				if err := same[k]; err != nil && !errors.Is(err, ErrMalformed) {
					t.Fatal(err)
				}
				if (same[k] == nil) != (same[portable] == nil) || same[k] == nil && !bytes.Equal(out[i], out[0]) {
					t.Fatalf("%s: %v and %v disagree", name, portable, k)
				}
			}
		}
	}
}

// Each rule that a reader checks, broken alone.
func TestRefused(t *testing.T) {
	w := windows(rand.New(rand.NewPCG(1, 0)))["mixed"]
	var e Encoder
	good := e.Append(nil, w, 0)
	changes := binary.LittleEndian.Uint64(good[len(good)-bitmap:])
	if changes == 0 {
		t.Fatal("no distance in the first page")
	}
	distances := len(good) - 2*bitmap - 2*ones(good[len(good)-bitmap:])
	for name, change := range map[string]func(b []byte) []byte{
		"empty":                     func([]byte) []byte { return nil },
		"too short for bitmaps":     func(b []byte) []byte { return b[len(b)-2*bitmap+1:] },
		"a byte less":               func(b []byte) []byte { return b[1:] },
		"a byte more":               func(b []byte) []byte { return append([]byte{1}, b...) },
		"distance within a line":    func(b []byte) []byte { binary.LittleEndian.PutUint16(b[distances:], line-1); return b },
		"distance out of the start": func(b []byte) []byte { binary.LittleEndian.PutUint16(b[distances:], PageSize); return b },
		"all lines changed":         func(b []byte) []byte { return bytes.Repeat([]byte{0xff}, 2*bitmap) },
	} {
		if err := Decode(make([]byte, PageSize), 0, change(bytes.Clone(good))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Decode(make([]byte, PageSize), 0, good); err != nil {
		t.Fatal(err)
	}
}

func FuzzDecode(f *testing.F) {
	ws := windows(rand.New(rand.NewPCG(1, 0)))
	for _, name := range []string{"mixed", "objects of 48", "zeros", "random"} {
		var e Encoder
		e.Append(nil, ws[name], 0)
		f.Add(e.Append(nil, ws[name], PageSize))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		var first []byte
		for _, k := range kinds(t) {
			w := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, 2*PageSize/8)
			if decode(k, w, PageSize, src) != nil {
				w = nil
			}
			if k == portable {
				first = w
			} else if !bytes.Equal(w, first) {
				t.Fatalf("%v decodes to something else", k)
			}
		}
	})
}

func FuzzEncode(f *testing.F) {
	for _, w := range windows(rand.New(rand.NewPCG(1, 0))) {
		f.Add(w[:2*PageSize])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w := make([]byte, 2*PageSize)
		copy(w, data)
		var encoders [avx2 + 1]Encoder
		got := make([]byte, 2*PageSize)
		for at := 0; at < len(w); at += PageSize {
			first := encoders[portable].append(portable, nil, w, at)
			for _, k := range kinds(t)[1:] {
				if b := encoders[k].append(k, nil, w, at); !bytes.Equal(b, first) {
					t.Fatalf("%v writes other bytes", k)
				}
			}
			for _, k := range kinds(t) {
				if err := decode(k, got, at, first); err != nil || !bytes.Equal(got[:at+PageSize], w[:at+PageSize]) {
					t.Fatalf("%v: %v", k, err)
				}
			}
		}
	})
}

// Four pages a window, as groups have them.
func BenchmarkEncode(b *testing.B) {
	bench(b, func(b *testing.B, k kind, w []byte) {
		var e Encoder
		buf := make([]byte, 0, 2*MaxEncoded)
		for b.Loop() {
			for part := 0; part < len(w); part += 4 * PageSize {
				for at := 0; at < 4*PageSize; at += PageSize {
					e.append(k, buf, w[part:part+4*PageSize], at)
				}
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	bench(b, func(b *testing.B, k kind, w []byte) {
		var pages [][]byte
		for part := 0; part < len(w); part += 4 * PageSize {
			var e Encoder
			for at := 0; at < 4*PageSize; at += PageSize {
				pages = append(pages, e.append(k, nil, w[part:part+4*PageSize], at))
			}
		}
		var out [4 * PageSize]byte
		for b.Loop() {
			for i, p := range pages {
				if err := decode(k, out[:], i%4*PageSize, p); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

func bench(b *testing.B, f func(b *testing.B, k kind, w []byte)) {
	ws := windows(rand.New(rand.NewPCG(1, 0)))
	for _, name := range []string{"objects of 48", "mixed", "random", "zeros"} {
		for _, k := range kinds(b) {
			b.Run(fmt.Sprintf("%s/%v", name, k), func(b *testing.B) {
				b.SetBytes(MaxWindow)
				f(b, k, ws[name])
			})
		}
	}
}
