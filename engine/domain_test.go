package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/testkit"
	"github.com/snapstore/snapstore/internal/testkit/drive"
)

// randomPages fills n pages.
func randomPages(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 0xd0))
	b := make([]byte, n*engine.PageSize)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// The dedup domain is chosen when a store is made, and stays.
func TestDedupDomainStays(t *testing.T) {
	for _, domain := range []engine.DedupDomain{engine.DedupStore, engine.DedupCanister} {
		o := engine.Options{FS: vfs.NewMem(), DedupDomain: domain}
		e, _ := memStore(t, o)
		if e.DedupDomain() != domain || e.Stats().DedupDomain != domain.String() {
			t.Fatalf("made with %v: %v", domain, e.DedupDomain())
		}
		must0(e.Close())
		o.DedupDomain = engine.DedupStore // as who says nothing
		for range 2 {
			again := must(engine.Open("store", &o))
			if again.DedupDomain() != domain {
				t.Errorf("opened again it is %v, want %v", again.DedupDomain(), domain)
			}
			must0(again.Close())
			o.RebuildIndex = true
		}
		o.DedupDomain = engine.DedupCanister
		again, err := engine.Open("store", &o)
		if domain == engine.DedupStore {
			if !errors.Is(err, engine.ErrInvalid) {
				t.Errorf("who asks for more than the store keeps apart is told %v", err)
			}
			continue
		}
		must0(err)
		must0(again.Close())
	}
	if err := engine.Create("other", &engine.Options{FS: vfs.NewMem(), DedupDomain: 7}); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("a domain that there is not: %v", err)
	}
}

// One history in both domains: the same states have the same roots.
func TestRootsAreTheSameInAllDomains(t *testing.T) {
	for _, seed := range seeds(t, 7_000, 6) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			var ops []testkit.Op
			var want map[engine.SnapshotID]engine.Root
			for _, domain := range []engine.DedupDomain{engine.DedupStore, engine.DedupCanister} {
				cfg := drive.Config{Seed: seed, Dedup: &domain}
				r := must(drive.New(cfg))
				defer r.Close()
				// A kill at the n-th operation on files meets another one in each.
				g := testkit.NewGenerator(seed, testkit.Break, testkit.Mend, testkit.KillSoon)
				if ops == nil {
					err := r.Play(t.Context(), func(yield func(testkit.Op) bool) {
						for range 80 {
							o := g.Next(r.M)
							ops = append(ops, o)
							if !yield(o) {
								return
							}
						}
					}, drive.Rebuild)
					must0(err)
				} else {
					must0(r.Play(t.Context(), func(yield func(testkit.Op) bool) {
						for _, o := range ops {
							if !yield(o) {
								return
							}
						}
					}, drive.Rebuild))
				}
				if r.E.DedupDomain() != domain {
					t.Fatalf("the store is of %v", r.E.DedupDomain())
				}
				have := map[engine.SnapshotID]engine.Root{}
				for i := range r.M.Canisters {
					if !r.M.Canisters[i].Exists {
						continue
					}
					have[drive.SnapshotID(i, 1<<40)] = must(must(r.E.Canister(drive.Canister(i))).Info()).HeadRoot
					for s, err := range r.E.Snapshots(drive.Canister(i)) {
						must0(err)
						have[s.ID] = s.Root
					}
				}
				if want == nil {
					want = have
				}
				if fmt.Sprint(have) != fmt.Sprint(want) {
					t.Errorf("roots %v, in the other domain %v", have, want)
				}
			}
		})
	}
}

// What a canister can measure of its own operations does not depend on what
// others hold: pages, bytes written and questions to the index are the same
// whether others have all of its content, some, or none of it.
func TestOthersAreNotToBeMeasured(t *testing.T) {
	secret := randomPages(1, 64)
	guesses := map[string][]byte{
		"all":  secret,
		"some": append(bytes.Clone(secret[:len(secret)/2]), randomPages(2, 32)...),
		"none": randomPages(3, 64),
	}
	type seen struct {
		take, again, up engine.PageStats
		written         [4]uint64
		questions       [4]uint64
		changed         uint64
		info            string
	}
	measure := func(t *testing.T, domain engine.DedupDomain, others []byte) (s seen) {
		e, _ := memStore(t, engine.Options{DedupDomain: domain, NoBackground: true})
		rich := must(e.CreateCanister(bg, canisterID(t, 1)))
		write(t, rich, engine.WasmMemory, uint64(len(others)), 0, others)
		theirs := must(rich.Take(bg, engine.TakeOptions{}))
		must0(e.DumpIndex(new(bytes.Buffer))) // applied

		before, asked := e.Stats().BytesWritten, e.Lookups()
		step := 0
		note := func() {
			must0(e.DumpIndex(new(bytes.Buffer)))
			s.written[step], s.questions[step] = e.Stats().BytesWritten-before, e.Lookups()-asked
			before, asked = e.Stats().BytesWritten, e.Lookups()
			step++
		}
		c := must(e.CreateCanister(bg, canisterID(t, 2)))
		write(t, c, engine.WasmMemory, uint64(len(secret)), 0, secret)
		first := must(c.Take(bg, engine.TakeOptions{TakenAt: time.Unix(1, 0)}))
		s.take = first.Pages
		note()
		// The rich one takes a while to go: gc of one does not show to the other.
		must0(e.Delete(bg, theirs.ID))
		write(t, c, engine.StableMemory, uint64(len(secret)), 0, secret)
		s.again = must(c.Take(bg, engine.TakeOptions{Replace: first.ID, TakenAt: time.Unix(2, 0)})).Pages
		note()
		u := must(c.Upload(bg, engine.Metadata{}, []engine.UploadSection{{Section: engine.WasmMemory, Size: uint64(len(secret))}}, engine.UploadOptions{TakenAt: time.Unix(3, 0)}))
		must(u.WriteAt(engine.WasmMemory, secret, 0))
		s.up = must(u.Flush(bg)).Pages
		note()
		s.changed = must(c.Load(bg, u.ID(), engine.LoadOptions{})).Pages
		note()
		for sn, err := range e.Snapshots(c.ID()) {
			must0(err)
			s.info += fmt.Sprint(sn.Size, sn.Root, " ")
		}
		sound(t, e)
		return s
	}
	apart := measure(t, engine.DedupCanister, guesses["none"])
	if apart.take.New != 64 || apart.again.New != 0 {
		t.Errorf("a canister shares with itself: %+v", apart)
	}
	for _, name := range []string{"all", "some"} {
		if got := measure(t, engine.DedupCanister, guesses[name]); got != apart {
			t.Errorf("where others have %s of it a canister measures\n%+v, where they have none\n%+v", name, got, apart)
		}
	}
	// The same measurement does tell where all share, so it can.
	if measure(t, engine.DedupStore, guesses["all"]) == measure(t, engine.DedupStore, guesses["none"]) {
		t.Error("the measurement sees nothing")
	}
}

// A load across domains brings the content along: the source can go, and both
// restore bit by bit, with the same roots.
func TestLoadAcrossDomains(t *testing.T) {
	e, reopen := memStore(t, engine.Options{DedupDomain: engine.DedupCanister})
	a, b := must(e.CreateCanister(bg, canisterID(t, 1))), must(e.CreateCanister(bg, canisterID(t, 2)))
	content1 := randomPages(5, 300)
	content1 = append(content1, "a tail"...)
	write(t, a, engine.WasmMemory, uint64(len(content1)), 0, content1)
	write(t, a, engine.StableMemory, 1<<30, 512<<20, []byte("far away"))
	write(t, a, engine.WasmModule, 9, 0, []byte("\x00asm\x01\x00\x00\x00\x00"))
	taken := must(a.Take(bg, engine.TakeOptions{}))
	// The target has some of it already, more than it will have, and dirt.
	write(t, b, engine.WasmMemory, uint64(len(content1))+8*engine.PageSize, 0, content1[:100*engine.PageSize])
	write(t, b, engine.StableMemory, 3*engine.PageSize, 0, bytes.Repeat([]byte("x"), 3*engine.PageSize))
	must(b.Checkpoint(bg))
	write(t, b, engine.WasmMemory, uint64(len(content1))+8*engine.PageSize, 5, []byte("dirt"))

	if _, err := b.Load(bg, taken.ID, engine.LoadOptions{}); !errors.Is(err, engine.ErrOtherCanister) {
		t.Fatalf("a load that did not ask for it: %v", err)
	}
	must(b.Load(bg, taken.ID, engine.LoadOptions{FromOtherCanister: true}))
	if have, want := must(b.Info()).HeadRoot, taken.Root; have != want {
		t.Errorf("the head has the root %v, the snapshot %v", have, want)
	}
	sound(t, e)
	must0(e.DeleteCanister(bg, a.ID()))
	must(e.GC(bg, engine.GCOptions{}))
	own := must(b.Take(bg, engine.TakeOptions{}))
	for range 2 {
		if !bytes.Equal(content(t, e, own.ID, engine.WasmMemory), content1) {
			t.Error("the loaded state is another one")
		}
		sound(t, e)
		e = reopen()
	}
	// An upload that was never loaded, from a third one.
	a = must(e.CreateCanister(bg, canisterID(t, 3)))
	u := must(a.Upload(bg, engine.Metadata{}, []engine.UploadSection{{Section: engine.WasmMemory, Size: 3 * engine.PageSize}}, engine.UploadOptions{}))
	must(u.WriteAt(engine.WasmMemory, content1[:2*engine.PageSize], 100))
	b = must(e.Canister(b.ID()))
	must(b.Load(bg, u.ID(), engine.LoadOptions{FromOtherCanister: true}))
	if _, err := u.WriteAt(engine.WasmMemory, []byte("x"), 0); !errors.Is(err, engine.ErrImmutable) {
		t.Errorf("an upload that was loaded can be changed: %v", err)
	}
	got := make([]byte, 2*engine.PageSize)
	must(must(b.Memory(engine.WasmMemory)).ReadAt(got, 100))
	if !bytes.Equal(got, content1[:len(got)]) {
		t.Error("the upload came over as something else")
	}
	sound(t, e)
}
