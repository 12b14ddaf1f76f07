package seglog

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/snapstore/snapstore/internal/testkit"
)

// A process is killed at any operation of a drop, and the power fails at any
// operation of the start after it. What that start has seen may have been in memory
// alone: nothing that the ROOT before it lists may be gone.
func TestKilledInADropThenPowerLoss(t *testing.T) {
	ctx := context.Background()
	crashes := 0
	for at := int64(1); ; at++ {
		disk := testkit.NewDisk()
		fs := disk.Mount()
		newStore(t, fs)
		disk.SyncAll()
		o := testOptions(fs)
		l := mustStart(t, o)
		mustCommit(t, l, request("a", 1, 1500, 1500))
		if err := l.Seal(ctx); err != nil {
			t.Fatal(err)
		}
		first := l.Segments()[0]
		mustCommit(t, l, request("a", 2, 900))
		fs.KillAt(at)
		_ = l.Drop(ctx, 0, first.ID) // dies
		done := !fs.Dead()
		fs.Kill()

		again := disk.Mount()
		o.FS = again
		type crash struct {
			disk *testkit.Disk
			op   testkit.FileOp
		}
		var found []crash
		rng := rand.New(rand.NewPCG(uint64(at), 1))
		again.OnOp(func(op testkit.FileOp) {
			for _, keep := range []int{0, 50} {
				found = append(found, crash{disk.Crash(keep, rng), op})
			}
		})
		l = mustOpen(t, o)
		if err := l.Replay(ctx, 0, func(*Batch) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := l.Start(ctx); err != nil {
			t.Fatal(err)
		}
		again.OnOp(nil)
		for _, c := range found {
			crashes++
			o.FS = c.disk.Mount()
			after := mustOpen(t, o)
			if d := after.Damage(); len(d) > 0 {
				t.Errorf("killed at operation %d of a drop, power lost before %v of the start: %v", at, c.op, d)
			}
			if err := after.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if done {
			break
		}
	}
	if crashes < 100 {
		t.Errorf("only %d crashes", crashes)
	}
}
