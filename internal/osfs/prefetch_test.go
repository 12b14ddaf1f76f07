package osfs

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

type askedFile struct {
	vfs.File
	asked [][2]int64
	fail  error
}

func (a *askedFile) Prefetch(off, n int64) error {
	a.asked = append(a.asked, [2]int64{off, n})
	return a.fail
}

func TestPrefetchAsksForAllInPieces(t *testing.T) {
	for _, n := range []int64{0, 1, prefetchPiece, 3*prefetchPiece + 5} {
		f := &askedFile{}
		if err := Prefetch(f, 100, n); err != nil {
			t.Fatal(err)
		}
		at := int64(100)
		for _, p := range f.asked {
			if p[0] != at || p[1] < 1 || p[1] > prefetchPiece {
				t.Errorf("%d bytes: asks for %d at %d, behind %d", n, p[1], p[0], at)
			}
			at += p[1]
		}
		if at != 100+n {
			t.Errorf("%d bytes: asks for %d", n, at-100)
		}
	}
	f := &askedFile{fail: errors.New("no")}
	if err := Prefetch(f, 0, 10*prefetchPiece); !errors.Is(err, f.fail) || len(f.asked) != 1 {
		t.Errorf("%v after %d calls", err, len(f.asked))
	}
}
