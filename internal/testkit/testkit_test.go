package testkit

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func write(t *testing.T, fs vfs.FS, name, data string, sync bool) {
	t.Helper()
	f, err := fs.Create(name, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if sync {
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func syncDir(t *testing.T, fs vfs.FS, name string) {
	t.Helper()
	d, err := fs.OpenDir(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	d.Close()
}

func shows(d *Disk, name string) string {
	p, err := d.Bytes(name)
	if err != nil {
		return "-"
	}
	return string(p)
}

// A crash keeps what was synced and nothing else, or everything, as asked.
func TestDiskLosesWhatWasNotSynced(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	d := NewDisk()
	fs := d.Mount()
	if err := fs.MkdirAll("s/log", 0o700); err != nil {
		t.Fatal(err)
	}
	syncDir(t, fs, "")
	syncDir(t, fs, "s")
	write(t, fs, "s/log/a", "one", true)
	syncDir(t, fs, "s/log")
	write(t, fs, "s/log/b", "synced, but its name is not", true)
	f, _ := fs.OpenReadWrite("s/log/a", "")
	f.WriteAt([]byte("TWO!"), 0)
	f.Close()

	none, all := d.Crash(0, rng), d.Crash(100, rng)
	if got := shows(none, "s/log/a") + shows(none, "s/log/b"); got != "one-" {
		t.Errorf("with nothing kept: %q", got)
	}
	if got := shows(all, "s/log/a") + shows(all, "s/log/b"); got != "TWO!synced, but its name is not" {
		t.Errorf("with all kept: %q", got)
	}
	// A removal is lost like everything else, or not.
	if err := fs.Remove("s/log/a"); err != nil {
		t.Fatal(err)
	}
	if got := shows(d.Crash(0, rng), "s/log/a"); got != "one" {
		t.Errorf("an unsynced removal came through: %q", got)
	}
	if got := shows(d.Crash(100, rng), "s/log/a"); got != "-" {
		t.Errorf("a kept removal did not: %q", got)
	}
	if d.Used() != blockSize || none.Used() != blockSize {
		t.Errorf("used %d and %d", d.Used(), none.Used())
	}
}

// Equal seeds give equal disks, and one of the two names of a rename survives.
func TestDiskCrashIsDrawnFromItsSeed(t *testing.T) {
	d := NewDisk()
	fs := d.Mount()
	write(t, fs, "old", string(Content(7).Bytes(40000)), true)
	syncDir(t, fs, "")
	f, _ := fs.OpenReadWrite("old", "")
	f.WriteAt(Content(8).Bytes(30000), 5000)
	f.(interface{ Truncate(int64) error }).Truncate(33333)
	f.Close()
	for i := range 20 {
		write(t, fs, fmt.Sprint("f", i), "x", i%2 == 0)
	}
	if err := fs.Rename("old", "new"); err != nil {
		t.Fatal(err)
	}
	different := false
	for seed := range uint64(50) {
		a, b := d.Crash(50, rand.New(rand.NewPCG(seed, 0))), d.Crash(50, rand.New(rand.NewPCG(seed, 0)))
		if fmt.Sprint(a.Files("")) != fmt.Sprint(b.Files("")) {
			t.Fatalf("seed %d: %v and %v", seed, a.Files(""), b.Files(""))
		}
		for _, name := range a.Files("") {
			if shows(a, name) != shows(b, name) {
				t.Fatalf("seed %d: %s differs", seed, name)
			}
		}
		if shows(a, "old") == "-" && shows(a, "new") == "-" {
			t.Fatalf("seed %d: both names are lost", seed)
		}
		different = different || shows(a, "new") != shows(d, "new")
	}
	if !different {
		t.Error("nothing was ever lost")
	}
}

// What a failed sync gave up on is not made durable by a later one.
func TestDiskFailedSync(t *testing.T) {
	d := NewDisk()
	fs := d.Mount()
	write(t, fs, "a", "old", true)
	syncDir(t, fs, "")
	f, _ := fs.OpenReadWrite("a", "")
	f.WriteAt([]byte("new"), 0)
	fs.Inject(&Fault{Kind: OpSync, Times: 1})
	if f.Sync() == nil {
		t.Fatal("the sync did not fail")
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := shows(d, "a") + shows(d.Crash(0, nil), "a"); got != "newold" {
		t.Errorf("cache and medium show %q", got)
	}
	f.WriteAt([]byte("NEW"), 0)
	f.Sync()
	if got := shows(d.Crash(0, nil), "a"); got != "NEW" {
		t.Errorf("written again and synced: %q", got)
	}
}

func TestDiskFullAndFreed(t *testing.T) {
	d := NewDisk()
	d.SetCapacity(3 * blockSize)
	fs := d.Mount()
	write(t, fs, "a", string(make([]byte, 2*blockSize)), false)
	f, _ := fs.Create("b", "")
	if err := f.Preallocate(0, 2*blockSize); err == nil {
		t.Error("more was reserved than there is")
	}
	if _, err := f.Write(make([]byte, blockSize+1)); err == nil {
		t.Error("more was written than there is")
	}
	if err := fs.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if err := f.Preallocate(0, 2*blockSize); err != nil {
		t.Error(err)
	}
	f.Close()
	syncDir(t, fs, "")
	if d.Used() != 2*blockSize {
		t.Errorf("used %d", d.Used())
	}
}

func TestKilledProcess(t *testing.T) {
	d := NewDisk()
	fs := d.Mount()
	if _, err := fs.Lock("LOCK"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Mount().Lock("LOCK"); err == nil {
		t.Error("locked twice")
	}
	f, _ := fs.Create("a", "")
	f.Write([]byte("unsynced"))
	fs.KillAt(2)
	f.Write([]byte(" more"))
	if _, err := f.Write([]byte(" and more")); err == nil || !fs.Dead() {
		t.Error("a killed process went on")
	}
	next := d.Mount()
	if _, err := next.Lock("LOCK"); err != nil {
		t.Error(err)
	}
	if got := shows(d, "a") + shows(d.Crash(0, nil), "a"); got != "unsynced more-" {
		t.Errorf("cache and medium show %q", got)
	}
}

// The disk does what the operating system's file system does.
func TestDiskAgainstTheSystem(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	dir := t.TempDir() + "/"
	d := NewDisk()
	mem := d.Mount()
	name := func() string { return fmt.Sprint("n", rng.IntN(5)) }
	for range 3000 {
		a, b, data, off := name(), name(), Content(rng.Uint64N(50)).Bytes(rng.IntN(9000)), rng.Int64N(9000)
		var errs [2]error
		k := rng.IntN(6)
		for i, fs := range []vfs.FS{vfs.Default, mem} {
			at := ""
			if i == 0 {
				at = dir
			}
			switch k {
			case 0:
				if f, err := fs.Create(at+a, ""); err == nil {
					f.Write(data)
					f.Close()
				} else {
					errs[i] = err
				}
			case 1:
				if f, err := fs.OpenReadWrite(at+a, ""); err == nil {
					f.WriteAt(data, off)
					f.Close()
				} else {
					errs[i] = err
				}
			case 2:
				errs[i] = fs.Remove(at + a)
			case 3:
				errs[i] = fs.Rename(at+a, at+b)
			case 4:
				errs[i] = fs.Link(at+a, at+b)
			case 5:
				if f, err := fs.OpenReadWrite(at+a, ""); err == nil {
					f.(interface{ Truncate(int64) error }).Truncate(off)
					f.Close()
				}
			}
		}
		if (errs[0] == nil) != (errs[1] == nil) {
			t.Fatalf("operation %d on %s and %s: %v, %v", k, a, b, errs[0], errs[1])
		}
	}
	var used int64
	names, _ := os.ReadDir(dir)
	if len(names) != len(d.Files("")) {
		t.Fatalf("%v and %v", names, d.Files(""))
	}
	for _, n := range names {
		p, _ := os.ReadFile(dir + n.Name())
		q, err := d.Bytes(n.Name())
		if err != nil || !bytes.Equal(p, q) {
			t.Errorf("%s: %d and %d bytes, %v", n.Name(), len(p), len(q), err)
		}
		used += int64(blocksOf(int64(len(q)))) * blockSize
	}
	if d.Used() > used {
		t.Errorf("used %d of at most %d", d.Used(), used)
	}
}

func TestFaultsAreChosen(t *testing.T) {
	d := NewDisk()
	fs := d.Mount()
	fs.MkdirAll("index", 0)
	fs.Inject(&Fault{Kind: OpWrite, Under: "index", After: 1, Times: 1, Torn: true})
	f, _ := fs.Create("index/a", "")
	g, _ := fs.Create("indexes", "")
	for i, want := range []bool{true, false, true} {
		if _, err := f.Write([]byte("1234")); (err == nil) != want {
			t.Errorf("write %d: %v", i, err)
		}
		if _, err := g.Write([]byte("1234")); err != nil {
			t.Errorf("beside: %v", err)
		}
	}
	if got := shows(d, "index/a"); got != "1234121234" {
		t.Errorf("%q", got)
	}
}

// One seed gives one history.
func TestGeneratorIsDeterministic(t *testing.T) {
	for seed := range uint64(30) {
		var first []string
		for round := range 2 {
			g, m := NewGenerator(seed), NewModel(3, 4)
			var ops []string
			refused := 0
			for range 200 {
				o := g.Next(m)
				out := m.Apply(o)
				if out.Refused != OK {
					refused++
				}
				m = out.Next
				ops = append(ops, o.String())
			}
			if refused > 60 {
				t.Errorf("seed %d: %d of 200 operations were refused", seed, refused)
			}
			if round == 0 {
				first = ops
			} else if fmt.Sprint(first) != fmt.Sprint(ops) {
				t.Fatalf("seed %d gave two histories", seed)
			}
		}
	}
}
