package engine_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/seglog"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

func raw(o *engine.Options) { o.NoCompression = true }

// pageID names a content as the store does.
func pageID(c testkit.Content) engine.Root { return chunk.Sum(c.Bytes(engine.PageSize)) }

// rot flips a bit in the stored bytes of a page and returns the segment's file.
func rot(t *testing.T, r *drive.Run, c testkit.Content) {
	t.Helper()
	rotOn(t, r.Disk, r.E, c)
}

func rotOn(t *testing.T, disk *testkit.Disk, eng *engine.Engine, c testkit.Content) {
	t.Helper()
	e, ok, err := eng.Entry(pageID(c))
	if err != nil || !ok {
		t.Fatalf("content %d is not stored: %v", c, err)
	}
	want := c.Bytes(engine.PageSize)
	file := "store/log/" + seglog.SegmentID(e.Segment).String() + ".seg"
	found := false
	err = disk.Edit(file, func(p []byte) {
		frame := p[e.Offset:min(len(p), int(e.Offset+e.Length))]
		if i := bytes.Index(frame, want); i >= 0 {
			frame[i+1234] ^= 0x20
			found = true
		}
	})
	if err != nil || !found {
		t.Fatalf("content %d is not in %s at %d as it is: %v", c, file, e.Offset, err)
	}
}

// A page that is written again as it was heals what was lost of it, though the
// head names it already and its tree does not change; also when the damage was
// found by another process, or by a rebuild, and when a whole section is assigned.
func TestWritingAPageAgainHealsIt(t *testing.T) {
	for _, found := range []string{"read", "reopened", "rebuilt"} {
		for _, assign := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, assign %t", found, assign), func(t *testing.T) {
				disk := testkit.NewDisk()
				o := &engine.Options{FS: disk.Mount(), Ballast: -1, NoBackground: true, NoCompression: true}
				e := created(o)
				defer func() { e.Close() }()
				id := drive.Canister(0)
				img := make([]byte, 50*4096)
				for i := range 50 {
					testkit.Content(i + 2).Fill(img[i*4096:][:4096])
				}
				c := must(e.CreateCanister(bg, id))
				m := must(c.Memory(engine.WasmMemory))
				must(m.Assign(bg, bytes.NewReader(img), uint64(len(img)), nil))
				first := must(c.Take(bg, engine.TakeOptions{})).ID
				reopen := func(rebuild bool) {
					if err := e.Close(); err != nil {
						t.Fatal(err)
					}
					o.RebuildIndex = rebuild
					e = must(engine.Open("store", o))
					c = must(e.Canister(id))
					m = must(c.Memory(engine.WasmMemory))
				}
				read := func() error {
					s := must(e.Snapshot(bg, first))
					defer s.Close()
					p := make([]byte, len(img))
					_, err := must(s.Section(engine.WasmMemory)).ReadAt(p, 0)
					if err == nil && !bytes.Equal(p, img) {
						t.Fatal("wrong content, and no error")
					}
					return err
				}
				reopen(false)
				rotOn(t, disk, e, 32)
				if found == "rebuilt" {
					reopen(true)
				} else if err := read(); !errors.Is(err, engine.ErrCorrupt) {
					t.Fatalf("reading says %v", err)
				}
				waitLost(t, e, 32)
				if found == "reopened" {
					reopen(false)
				}
				if assign {
					if st := must(m.Assign(bg, bytes.NewReader(img), uint64(len(img)), nil)); st.Changed == 0 || st.Changed > 16 {
						t.Fatalf("%+v", st)
					}
				} else {
					must(m.WriteAt(img, 0))
				}
				must(c.Take(bg, engine.TakeOptions{}))
				if err := read(); err != nil {
					t.Fatalf("not healed: %v", err)
				}
				reopen(true)
				if en, _, _ := e.Entry(pageID(32)); en.Lost {
					t.Fatal("lost again")
				}
				if err := read(); err != nil {
					t.Fatalf("lost again: %v", err)
				}
			})
		}
	}
}

// A canister whose durable state can not be read opens, gives nothing away, and
// takes nothing; loading a snapshot that can be read brings it back.
func TestLoadOverADamagedHead(t *testing.T) {
	for _, lend := range []bool{false, true} {
		disk := testkit.NewDisk()
		o := &engine.Options{FS: disk.Mount(), Ballast: -1, NoBackground: true, NoCompression: true}
		e := created(o)
		defer func() { e.Close() }()
		id := drive.Canister(0)
		img := make([]byte, 50*4096)
		for i := range 30 {
			testkit.Content(i + 2).Fill(img[i*4096:][:4096])
		}
		c := must(e.CreateCanister(bg, id))
		m := must(c.Memory(engine.WasmMemory))
		must(m.Assign(bg, bytes.NewReader(img), uint64(len(img)), nil))
		first := must(c.Take(bg, engine.TakeOptions{})).ID
		must(m.WriteAt([]byte("something else"), 45*4096))
		second := must(c.Take(bg, engine.TakeOptions{})).ID
		en, ok, err := e.Entry(must(c.Info()).HeadRoot)
		for err == nil && !ok {
			time.Sleep(time.Millisecond) // until it is applied
			en, ok, err = e.Entry(must(c.Info()).HeadRoot)
		}
		must0(err)
		rot := func() {
			must0(disk.Edit("store/log/"+seglog.SegmentID(en.Segment).String()+".seg", func(p []byte) { p[int(en.Offset)+int(en.Length)-5] ^= 8 }))
		}
		if lend {
			l := must(m.Bytes(bg, 1<<20))
			defer func() { must0(l.Release()) }()
			rot()
		} else {
			must0(e.Close())
			rot()
			e = must(engine.Open("store", o))
		}
		if !lend {
			c = must(e.Canister(id))
			if m, err := c.Memory(engine.WasmMemory); !errors.Is(err, engine.ErrCorrupt) {
				t.Fatalf("%v, %v", m, err)
			}
			if _, err := c.Take(bg, engine.TakeOptions{}); !errors.Is(err, engine.ErrCorrupt) {
				t.Fatalf("a take of what can not be read says %v", err)
			}
		}
		if _, err := c.Load(bg, second, engine.LoadOptions{}); !lend && !errors.Is(err, engine.ErrCorrupt) {
			t.Fatalf("loading the damaged snapshot says %v", err)
		}
		must(c.Load(bg, first, engine.LoadOptions{}))
		m = must(c.Memory(engine.WasmMemory))
		p := make([]byte, len(img))
		must(m.ReadAt(p, 0))
		if !bytes.Equal(p, img) {
			t.Fatal("not what was loaded")
		}
		must(m.WriteAt([]byte("goes on"), 9*4096+7))
		must(c.Take(bg, engine.TakeOptions{}))
		must0(e.Delete(bg, second))
		must(e.GC(bg, engine.GCOptions{}))
		if !lend {
			must0(e.Close())
			o2 := *o
			o2.RebuildIndex = true
			e = must(engine.Open("store", &o2))
			for p, err := range e.Verify(bg, engine.VerifyOptions{}) {
				if err != nil || p.Kind != engine.ProblemLog {
					t.Errorf("%+v, %v", p, err)
				}
			}
		}
	}
}

// A load whose differences hold damage is refused, with all names, and changes
// nothing; a take that brings the pages heals it.
func TestDamageInTheWayOfALoad(t *testing.T) {
	r := newRun(t, raw)
	do(t, r, create(0), resize(0, wasm, 60*4096), fill(0, wasm, 0, contents(2, 50)...), resize(0, stable, 4096), fill(0, stable, 0, 1000), take(0))
	do(t, r, fill(0, wasm, 16, contents(200, 32)...), checkpoint(0), op(testkit.Reopen))
	rot(t, r, 32) // page 30
	do(t, r, fill(0, wasm, 0, 555), resize(0, wasm, 70*4096))
	before := r.M
	id := drive.SnapshotID(0, 0)
	c := must(r.E.Canister(id.Canister))
	_, err := c.Load(bg, id, engine.LoadOptions{})
	var ce *engine.CorruptionError
	if !errors.As(err, &ce) || !errors.Is(err, engine.ErrCorrupt) {
		t.Fatalf("load says %v", err)
	}
	if ce.Canister != id.Canister.String() || ce.Snapshot != id.String() || ce.Section != "wasm-memory" || ce.ID.IsZero() || ce.Segment == 0 {
		t.Errorf("the error names %+v", ce)
	}
	// Its neighbours in the group are whole.
	if ce.Page != 30 || ce.ID != pageID(testkit.Content(32)) {
		t.Errorf("page %d, chunk %v", ce.Page, ce.ID)
	}
	if err := r.Compare(); err == nil || !errors.Is(err, engine.ErrCorrupt) {
		t.Fatalf("reading the snapshot says %v", err)
	}
	// Nothing changed: neither memory nor what is durable.
	now := *r.M.Canisters[0]
	now.Snapshots = nil
	if r.M != before {
		t.Fatal("the model moved")
	}
	p := make([]byte, 70*4096)
	must(must(c.Memory(engine.WasmMemory)).ReadAt(p, 0))
	want := make([]byte, len(p))
	now.Live.Sections[wasm].ReadAt(want, 0)
	if !bytes.Equal(p, want) {
		t.Error("a load that was refused changed memory")
	}
	if got := must(c.Info()); got.Sequence != 3 {
		t.Errorf("a load that was refused wrote a record: %+v", got)
	}
	named := 0
	for problem, err := range r.E.Verify(bg, engine.VerifyOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if problem.Kind == engine.ProblemPage && problem.Snapshot == id && problem.File != "" {
			named++
		}
	}
	if named == 0 {
		t.Error("verify does not name the page")
	}
	// The pages come again, and with them the snapshot.
	do(t, r, create(1), resize(1, wasm, 60*4096), fill(1, wasm, 5, contents(2, 50)...), take(1))
	if err := r.Compare(); err != nil {
		t.Fatalf("not healed: %v", err)
	}
	do(t, r, load(0, 0, 0), op(testkit.Compare), op(testkit.Reopen), op(testkit.Compare))
	// What lay in the damaged frame is kept aside when its segment goes.
	if err := r.CheckGC(bg); err != nil && !strings.Contains(err.Error(), "Kind:log") {
		t.Fatal(err)
	}
	do(t, r, op(testkit.Compare), op(testkit.DropIndex), op(testkit.Compare))
}

// A disk that could not be read for a while is no reason to lose what is on it:
// not even when the segment is cleaned and dropped afterwards.
func TestReadErrorsThatPass(t *testing.T) {
	r := newRun(t, raw)
	do(t, r, create(0), resize(0, wasm, 60*4096), fill(0, wasm, 0, contents(2, 50)...), take(0), op(testkit.Reopen))
	r.FS.Inject(&testkit.Fault{Kind: testkit.OpRead, Under: "store/log"})
	if err := r.Compare(); err == nil {
		t.Fatal("nothing was read")
	}
	r.FS.Inject()
	if err := r.Compare(); err != nil {
		t.Fatalf("with the disk mended: %v", err)
	}
	// Most of the segment dies, so that it is cleaned.
	do(t, r, fill(0, wasm, 0, contents(500, 50)...), fill(0, wasm, 40, contents(42, 10)...), take(0), remove(0, 0))
	must(r.E.GC(bg, engine.GCOptions{}))
	if err := r.Compare(); err != nil {
		t.Fatalf("after cleaning: %v", err)
	}
	do(t, r, op(testkit.Reopen), op(testkit.GC), op(testkit.DropIndex))
	check(t, r, drive.Rebuild)
}

// A canister that writes frames of this very store into its pages, at every
// place where a frame can be, gets nothing out of a header that is lost.
func TestFramesInPages(t *testing.T) {
	r := newRun(t, raw)
	do(t, r, create(0), create(1), resize(1, wasm, 20*4096), fill(1, wasm, 0, contents(2, 20)...), take(1), checkpoint(1))
	// Everything that is in the log so far, and ROOT with the key, goes into the
	// memory of a canister, at every offset that a frame can have.
	var echo []byte
	for _, f := range append(r.Disk.Files("store/log"), "store/ROOT-A") {
		p := must(r.Disk.Bytes(f))
		for len(p) >= 64 && len(echo) < 60*4096 {
			if binary.LittleEndian.Uint32(p) != 0 {
				echo = append(echo, p[:64]...)
			}
			p = p[64:]
		}
	}
	c := must(r.E.Canister(drive.Canister(0)))
	m := must(c.Memory(engine.WasmMemory))
	if err := m.Resize(uint64(len(echo))); err != nil {
		t.Fatal(err)
	}
	must(m.WriteAt(echo, 0))
	hostile := must(c.Take(bg, engine.TakeOptions{})).ID
	do(t, r, fill(1, wasm, 3, contents(300, 10)...), take(1))
	victims := list(t, r.E, drive.Canister(1))
	right := map[engine.SnapshotID][]byte{hostile: echo}
	for _, id := range victims {
		right[id] = content(t, r.E, id, engine.WasmMemory)
	}
	var frames []seglog.Loc
	for f, err := range r.E.Log().Scan(bg) {
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f.Loc)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for i, loc := range frames {
		disk := r.Disk.Crash(100, nil)
		err := disk.Edit("store/log/"+loc.Segment.String()+".seg", func(p []byte) { p[int(loc.Offset)+i%64] ^= 1 << (i % 8) })
		if err != nil {
			t.Fatal(err)
		}
		for _, rebuild := range []bool{false, true} {
			e, err := engine.Open("store", &engine.Options{FS: disk.Mount(), RebuildIndex: rebuild, NoBackground: true, Ballast: -1})
			if errors.Is(err, engine.ErrLost) {
				continue // all that tells what the last batch was
			}
			if err != nil {
				t.Fatalf("frame %v: %v", loc, err)
			}
			for id, want := range right {
				err := readAll(e, id, want)
				if err != nil && !errors.Is(err, engine.ErrCorrupt) && !errors.Is(err, engine.ErrDamaged) {
					t.Errorf("frame %v, rebuild %t: %v: %v", loc, rebuild, id, err)
				}
			}
			e.Close()
		}
	}
}

var errDiffers = errors.New("other bytes than were stored")

func readAll(e *engine.Engine, id engine.SnapshotID, want []byte) error {
	s, err := e.Snapshot(bg, id)
	if err != nil {
		return err
	}
	defer s.Close()
	sec, err := s.Section(engine.WasmMemory)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if _, err := sec.WriteTo(&b); err != nil {
		return err
	}
	if !bytes.Equal(b.Bytes(), want) {
		return errDiffers
	}
	return nil
}

// A store of a newer version is refused by name, and left as it is.
func TestNewerFormat(t *testing.T) {
	r := newRun(t, nil)
	do(t, r, create(0), take(0))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"store/ROOT-A", "store/ROOT-B"} {
		err := r.Disk.Edit(name, func(p []byte) {
			binary.LittleEndian.PutUint32(p[8:], 1000)
			body := p[:len(p)-32]
			sum := blake3.Sum256(body)
			copy(p[len(body):], sum[:])
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	before := image(t, r.Disk)
	if _, err := engine.Open("store", &engine.Options{FS: r.Disk.Mount(), RebuildIndex: true}); !errors.Is(err, engine.ErrNewerFormat) {
		t.Fatalf("open says %v", err)
	}
	if !slices.Equal(before, image(t, r.Disk)) {
		t.Error("a store of a newer version was changed")
	}
}

// image lists all files with a hash of their content, but for the lock.
func image(t *testing.T, d *testkit.Disk) (out []string) {
	t.Helper()
	for _, f := range d.Files("") {
		if !strings.HasSuffix(f, "LOCK") {
			out = append(out, fmt.Sprintf("%s %x", f, blake3.Sum256(must(d.Bytes(f)))))
		}
	}
	return out
}

// A store that is open is locked, for this process and for others.
func TestSecondOpen(t *testing.T) {
	r := newRun(t, nil)
	if _, err := engine.Open("store", &engine.Options{FS: r.Disk.Mount()}); !errors.Is(err, engine.ErrLocked) {
		t.Errorf("another process: %v", err)
	}
	if _, err := engine.Open("store", &engine.Options{FS: r.FS}); !errors.Is(err, engine.ErrLocked) {
		t.Errorf("the same process: %v", err)
	}
	do(t, r, create(0), op(testkit.Kill), take(0))
	check(t, r, drive.Rebuild)
}

// What a node names that could not be read when the index was built stays, until
// an index is built that lacks nothing.
func TestWhatADamagedNodeNamesStays(t *testing.T) {
	disk := testkit.NewDisk()
	o := &engine.Options{FS: disk.Mount(), Ballast: -1, NoBackground: true, NoCompression: true, SegmentSize: 1 << 20}
	e := created(o)
	defer func() { e.Close() }()
	id := drive.Canister(0)
	c := must(e.CreateCanister(bg, id))
	m := must(c.Memory(engine.WasmMemory))
	img := make([]byte, 300*4096)
	fill := func(from int) {
		for i := range 300 {
			testkit.Content(from + i).Fill(img[i*4096:][:4096])
		}
		must(m.Assign(bg, bytes.NewReader(img), uint64(len(img)), nil))
	}
	fill(1000)
	first := must(c.Take(bg, engine.TakeOptions{})).ID
	fill(2000)
	taken := must(c.Take(bg, engine.TakeOptions{}))
	second := taken.ID
	fill(3000)
	must(c.Take(bg, engine.TakeOptions{}))
	must0(e.FlushIndex())
	en, ok, err := e.Entry(taken.Root)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	must0(e.Close())
	rot := func() {
		must0(disk.Edit("store/log/"+seglog.SegmentID(en.Segment).String()+".seg", func(p []byte) { p[int(en.Offset)+int(en.Length)-5] ^= 8 }))
	}
	rot()
	o.RebuildIndex = true
	e = must(engine.Open("store", o))
	must0(e.Delete(bg, first)) // what only it had dies, and might be what the second has
	if r := must(e.GC(bg, engine.GCOptions{})); r.SegmentsDropped != 0 || r.SegmentsCleaned != 0 || r.HeldBytes == 0 {
		t.Errorf("%+v", r)
	}
	must0(e.Close())
	// The disk gives the right bytes again.
	rot()
	o.RebuildIndex = false
	e = must(engine.Open("store", o))
	if e.Stats().Rebuilt == "" {
		t.Error("the index was not built anew")
	}
	s := must(e.Snapshot(bg, second))
	got := make([]byte, len(img))
	if _, err := must(s.Section(engine.WasmMemory)).ReadAt(got, 0); err != nil {
		t.Error(err)
	}
	must0(s.Close())
	if r := must(e.GC(bg, engine.GCOptions{})); r.HeldBytes != 0 || r.BytesReclaimed == 0 {
		t.Errorf("%+v", r)
	}
	for p, err := range e.Verify(bg, engine.VerifyOptions{}) {
		t.Errorf("%+v, %v", p, err)
	}
}

// Wherever a frame of pages is damaged, the pages that need what is damaged are
// named, and the others are served; so they are once the index was built anew.
func TestDamageInAGroupIsThatOfPages(t *testing.T) {
	disk := testkit.NewDisk()
	o := &engine.Options{FS: disk.Mount(), Ballast: -1, NoBackground: true}
	e := created(o)
	img := make([]byte, 16*engine.PageSize)
	for i := range 16 {
		testkit.Content(i + 2).Fill(img[i*engine.PageSize:][:engine.PageSize/2]) // that it compresses
	}
	c := must(e.CreateCanister(bg, drive.Canister(0)))
	m := must(c.Memory(engine.WasmMemory))
	must(m.Assign(bg, bytes.NewReader(img), uint64(len(img)), nil))
	all := must(c.Take(bg, engine.TakeOptions{})).ID
	if err := m.Resize(engine.PageSize); err != nil {
		t.Fatal(err)
	}
	one := must(c.Take(bg, engine.TakeOptions{})).ID
	quiet(t, e)
	at, ok, err := e.Entry(chunk.Sum(img[:engine.PageSize]))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	file := "store/log/" + seglog.SegmentID(at.Segment).String() + ".seg"
	served := 0
	for i := range 32 {
		eighth, id, rebuild := uint32(i%16/2), []engine.SnapshotID{all, one}[i%2], i >= 16
		where := fmt.Sprintf("damage at %d/8 of the frame, %v, rebuilt %t", eighth, id, rebuild)
		rotten := disk.Crash(100, nil)
		if err := rotten.Edit(file, func(p []byte) { p[at.Offset+64+at.Length*eighth/8] ^= 4 }); err != nil {
			t.Fatal(err)
		}
		o.FS, o.RebuildIndex = rotten.Mount(), rebuild
		e := must(engine.Open("store", o))
		s := must(e.Snapshot(bg, id))
		sec := must(s.Section(engine.WasmMemory))
		first := -1
		p := make([]byte, sec.Size())
		for page := range len(p) / engine.PageSize {
			one := p[page*engine.PageSize:][:engine.PageSize]
			_, err := sec.ReadAt(one, int64(page*engine.PageSize))
			switch {
			case err == nil && !bytes.Equal(one, img[page*engine.PageSize:][:engine.PageSize]):
				t.Fatalf("%s: page %d is another", where, page)
			case err == nil:
				served++
			case !errors.Is(err, engine.ErrCorrupt) || !strings.Contains(err.Error(), fmt.Sprintf("wasm-memory page %d:", page)):
				t.Errorf("%s, page %d: %v", where, page, err)
			case first < 0:
				first = page
			}
		}
		if id == all && first < 0 {
			t.Errorf("%s: no page needs it", where)
		}
		_, err := sec.ReadAt(p, 0)
		if first >= 0 && (err == nil || !strings.Contains(err.Error(), fmt.Sprintf("wasm-memory page %d:", first))) || first < 0 && err != nil {
			t.Errorf("%s: page %d can not be read, and all: %v", where, first, err)
		}
		problems := 0
		for _, err := range e.Verify(bg, engine.VerifyOptions{}) {
			if problems++; err != nil {
				t.Fatal(err)
			}
		}
		if problems == 0 {
			t.Errorf("%s: verification finds nothing", where)
		}
		if err := errors.Join(s.Close(), e.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if served < 100 {
		t.Errorf("%d pages of damaged frames are served", served)
	}
}

// A load that meets damage says in which of several lent sections it is.
func TestDamageInASecondLentSection(t *testing.T) {
	const pages, rotten = 64, 40
	for range 4 { // sections are looked at in any order
		disk := testkit.NewDisk()
		e, _ := memStore(t, engine.Options{FS: disk.Mount(), NoBackground: true, NoCompression: true})
		c := must(e.CreateCanister(bg, drive.Canister(0)))
		_, w := lend(t, c, engine.WasmMemory, pages*engine.PageSize, 1<<20)
		_, s := lend(t, c, engine.StableMemory, pages*engine.PageSize, 1<<20)
		for i := range pages {
			testkit.Content(i + 2).Fill(w.Bytes()[i*engine.PageSize:][:engine.PageSize])
			testkit.Content(i + 100).Fill(s.Bytes()[i*engine.PageSize:][:engine.PageSize])
		}
		id := must(c.Take(bg, engine.TakeOptions{})).ID
		clear(w.Bytes())
		clear(s.Bytes())
		must(c.Take(bg, engine.TakeOptions{}))
		quiet(t, e)
		rotOn(t, disk, e, testkit.Content(100+rotten))
		_, err := c.Load(bg, id, engine.LoadOptions{})
		var ce *engine.CorruptionError
		if !errors.As(err, &ce) {
			t.Fatal(err)
		}
		if ce.Section != engine.StableMemory.String() {
			t.Errorf("damage in %s is said to be in %s, page %d", engine.StableMemory, ce.Section, ce.Page)
		}
	}
}

// rottenPage makes a store with a snapshot of 64 pages of stable memory, and zeros in place
// of those of then; of the pages it had, one rots. With lent, memory is; with cached,
// what the snapshot has was read before.
func rottenPage(t *testing.T, page int, lent, cached bool, left func(page int) bool) (*engine.Engine, *engine.Options, *engine.Canister, engine.SnapshotID) {
	t.Helper()
	const pages = 64
	disk := testkit.NewDisk()
	o := &engine.Options{FS: disk.Mount(), Ballast: -1, NoBackground: true, NoCompression: true}
	e := created(o)
	c := must(e.CreateCanister(bg, drive.Canister(0)))
	m := must(c.Memory(engine.StableMemory))
	if err := m.Resize(pages * engine.PageSize); err != nil {
		t.Fatal(err)
	}
	for i := range pages {
		must(m.WriteAt(testkit.Content(i+100).Bytes(engine.PageSize), int64(i*engine.PageSize)))
	}
	id := must(c.Take(bg, engine.TakeOptions{})).ID
	for i := range pages {
		if left == nil || !left(i) {
			must(m.WriteAt(make([]byte, engine.PageSize), int64(i*engine.PageSize)))
		}
	}
	must(c.Take(bg, engine.TakeOptions{}))
	if lent {
		lend(t, c, engine.StableMemory, pages*engine.PageSize, 1<<20)
	}
	quiet(t, e)
	if cached {
		imageOf(t, e, id, engine.StableMemory)
	}
	rotOn(t, disk, e, testkit.Content(100+page))
	return e, o, c, id
}

// A load is refused, with the page named, where that can not be read from the log,
// though the page cache has it.
func TestLoadIsOfWhatTheLogHas(t *testing.T) {
	for _, lent := range []bool{false, true} {
		for _, cached := range []bool{false, true} {
			e, _, c, id := rottenPage(t, 40, lent, cached, nil)
			_, err := c.Load(bg, id, engine.LoadOptions{})
			var ce *engine.CorruptionError
			if !errors.As(err, &ce) || ce.Canister != c.ID().String() || ce.Snapshot != id.String() || ce.Section != "stable-memory" || ce.Page != 40 {
				t.Errorf("lent %t, cached %t: %v", lent, cached, err)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What a load took from a damaged frame, of which it needed other pages, is there
// when the index is built anew.
func TestLoadBesideDamageOutlivesTheIndex(t *testing.T) {
	e, o, c, id := rottenPage(t, 40, false, false, func(page int) bool { return page != 45 })
	if _, err := c.Load(bg, id, engine.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, rebuild := range []bool{false, true} {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		o.RebuildIndex = rebuild
		e = must(engine.Open("store", o))
		m := must(must(e.Canister(c.ID())).Memory(engine.StableMemory))
		p := make([]byte, engine.PageSize)
		if _, err := m.ReadAt(p, 45*engine.PageSize); err != nil || !bytes.Equal(p, testkit.Content(145).Bytes(engine.PageSize)) {
			t.Errorf("rebuilt %t: the page that was loaded: %v", rebuild, err)
		}
		if _, err := m.ReadAt(p, 40*engine.PageSize); !errors.Is(err, engine.ErrCorrupt) {
			t.Errorf("rebuilt %t: the page that is damaged: %v", rebuild, err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// Damage that a revert meets is of the canister, and of no snapshot.
func TestDamageInTheWayOfARevert(t *testing.T) {
	disk := testkit.NewDisk()
	e, _ := memStore(t, engine.Options{FS: disk.Mount(), NoBackground: true, NoCompression: true})
	c := must(e.CreateCanister(bg, drive.Canister(0)))
	_, s := lend(t, c, engine.StableMemory, 64*engine.PageSize, 1<<20)
	for i := range 64 {
		testkit.Content(i + 100).Fill(s.Bytes()[i*engine.PageSize:][:engine.PageSize])
	}
	must(c.Take(bg, engine.TakeOptions{}))
	clear(s.Bytes())
	quiet(t, e)
	rotOn(t, disk, e, testkit.Content(140))
	var ce *engine.CorruptionError
	if err := c.Revert(bg); !errors.As(err, &ce) || ce.Canister != c.ID().String() || ce.Snapshot != "" || ce.Section != "stable-memory" || ce.Page != 40 {
		t.Error(err)
	}
}

// A page that lay in a damaged frame and was written again stays where it is whole: an
// index that is built anew does not take the salvaged copy, which comes first.
func TestHealedPageIsNotTakenFromADamagedFrame(t *testing.T) {
	e, o, _, _ := rottenPage(t, 40, false, false, func(int) bool { return true })
	old, ok, err := e.Entry(pageID(145))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	for _, err := range e.Verify(bg, engine.VerifyOptions{}) { // marks what is in the frame lost
		if err != nil {
			t.Fatal(err)
		}
	}
	waitLost(t, e, 145)
	other := must(e.CreateCanister(bg, drive.Canister(1)))
	m := must(other.Memory(engine.StableMemory))
	if err := m.Resize(64 * engine.PageSize); err != nil {
		t.Fatal(err)
	}
	for i := range 64 {
		must(m.WriteAt(testkit.Content(i+100).Bytes(engine.PageSize), int64(i*engine.PageSize)))
	}
	must(other.Take(bg, engine.TakeOptions{}))
	quiet(t, e)
	for _, rebuild := range []bool{false, true} {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		o.RebuildIndex = rebuild
		e = must(engine.Open("store", o))
		now, ok, err := e.Entry(pageID(145))
		if err != nil || !ok || now.Location == old.Location {
			t.Errorf("rebuilt %t: the page is at %v, as before it was written again (%t, %v)", rebuild, now.Location, ok, err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
