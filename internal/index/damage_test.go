package index

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// image is a closed index with several generations of tables.
type image struct {
	o     Options
	mem   *vfs.MemFS
	model *model
	last  uint64
	files []string
}

func makeImage(t *testing.T, seed uint64) *image {
	t.Helper()
	o, mem := crashableOptions(t)
	x := create(t, o)
	m := newModel(seed, o.StoreID)
	for n := uint64(1); n <= 40; n++ {
		b := x.NewBatch()
		m.step(b)
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		if n%8 == 0 {
			if err := x.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	i := &image{o: o, mem: mem, model: m, last: x.serial()}
	mustClose(t, x)
	for _, dir := range []string{o.Dir, o.FS.PathJoin(o.Dir, pebbleDir)} {
		names, err := mem.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			path := mem.PathJoin(dir, name)
			if stat, err := mem.Stat(path); err == nil && !stat.IsDir() && stat.Size() > 0 {
				i.files = append(i.files, path)
			}
		}
	}
	return i
}

func (i *image) copy() *vfs.MemFS {
	return i.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

// kindOf groups files for the count.
func kindOf(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	for _, kind := range []string{"MANIFEST", "OPTIONS", ".sst", "marker", "FILTER"} {
		if strings.Contains(name, kind) {
			return kind
		}
	}
	return name
}

// outcome opens a damaged index and asks it everything. It says how the damage
// showed, or returns an error if a wrong answer counted as right.
func (i *image) outcome(o Options) (string, error) {
	x, err := Open(o)
	if err != nil {
		var s *StaleError
		if !errors.As(err, &s) {
			return "", fmt.Errorf("open: %w", err)
		}
		return "stale", nil
	}
	var wrong []error
	failed := 0
	i.model.dumpAt(x.serial())
	for _, id := range i.model.ids {
		want, ok := i.model.keys[string(appendEntryKey(nil, id))]
		e, found, err := x.Get(id)
		if err != nil {
			// Pebble looks for the flipped bit at each of these, for 10 ms.
			if failed++; failed == 3 {
				break
			}
			continue
		}
		if found != ok || ok && string(appendEntry(nil, e)) != want {
			wrong = append(wrong, fmt.Errorf("entry %v is wrong", id))
		}
	}
	errDump := i.model.compare(x)
	serial := x.serial()
	untrusted := x.Untrusted()
	if err := x.Close(); err != nil {
		return "", err
	}
	switch {
	case untrusted != nil:
		if _, err := Open(o); err == nil {
			return "", fmt.Errorf("untrusted (%w), and opens again", untrusted)
		}
		return "untrusted", nil
	case len(wrong) > 0 || errDump != nil:
		return "", errors.Join(append(wrong, errDump)...)
	case serial != i.last:
		return "older", nil
	}
	return "harmless", nil
}

// One flipped bit anywhere in the index is noticed, or changes nothing. Pebble
// takes a damaged MANIFEST for the end of it and opens an older state; that
// state must be whole, and it is refused when the log no longer reaches back.
func TestFlippedBitIsNoticedOrHarmless(t *testing.T) {
	i := makeImage(t, 1)
	seen := map[string]int{}
	byKind := map[string][]string{}
	for _, path := range i.files {
		byKind[kindOf(path)] = append(byKind[kindOf(path)], path)
	}
	kinds := sortedKeys(byKind)
	seeds(t, rounds(600), func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 3))
		kind := kinds[int(seed)%len(kinds)]
		path := byKind[kind][rng.IntN(len(byKind[kind]))]
		mem := i.copy()
		data, err := mem.UnsafeGetFileDataBuffer(path)
		if err != nil {
			t.Fatal(err)
		}
		at := rng.IntN(len(data) * 8)
		data[at/8] ^= 1 << (at % 8)
		o := i.o.on(mem)
		if rng.IntN(2) == 0 {
			o.Floor = seqOf(i.last)
		}
		how, err := i.outcome(o)
		if err != nil {
			t.Fatalf("seed %d, bit %d of %s: %v", seed, at, path, err)
		}
		if how == "older" && o.Floor > 0 {
			t.Fatalf("seed %d, bit %d of %s: opened below the floor", seed, at, path)
		}
		seen[kind+" "+how]++
	})
	for _, k := range sortedKeys(seen) {
		t.Logf("%4d %s", seen[k], k)
	}
}

// Whole files that vanish, are cut short or are put back from before.
func TestMissingAndShortFilesAreNoticed(t *testing.T) {
	i := makeImage(t, 2)
	seen := map[string]int{}
	rng := rand.New(rand.NewPCG(2, 2))
	for _, path := range i.files {
		for _, what := range []string{"removed", "cut", "empty"} {
			mem := i.copy()
			data, err := mem.UnsafeGetFileDataBuffer(path)
			if err != nil {
				t.Fatal(err)
			}
			keep := 0
			if what == "cut" {
				keep = rng.IntN(len(data))
			}
			if err := mem.Remove(path); err != nil {
				t.Fatal(err)
			}
			if what != "removed" {
				if err := writeFile(mem, path, data[:keep]); err != nil {
					t.Fatal(err)
				}
			}
			how, err := i.outcome(i.o.on(mem))
			if err != nil {
				t.Fatalf("%s %s: %v", path, what, err)
			}
			seen[kindOf(path)+" "+what+" "+how]++
		}
	}
	for _, k := range sortedKeys(seen) {
		t.Logf("%4d %s", seen[k], k)
	}
}
