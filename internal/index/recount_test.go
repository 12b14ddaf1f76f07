package index

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestCompareCountsFindsEveryDifference(t *testing.T) {
	t.Run("in files", func(t *testing.T) { testCompareCounts(t, 1) })
	t.Run("in memory", func(t *testing.T) { testCompareCounts(t, 0) })
}

func testCompareCounts(t *testing.T, memory int64) {
	x := create(t, testOptions(t, vfs.NewMem()))
	defer mustClose(t, x)
	ids := testIDs(1, 1000)
	sortIDs(ids)
	b := x.NewBatch()
	for i, id := range ids {
		if i%5 != 4 {
			b.SetEntry(id, Entry{Location: page(1, 0, 0), Count: uint64(i % 5)})
		}
	}
	b.SetWatermark(3, hashOf(3))
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	c, err := x.CompareCounts(RebuildOptions{Memory: memory})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.CompareCounts(RebuildOptions{}); err == nil {
		t.Error("two comparisons at once")
	}
	if seq, hash := c.Watermark(); seq != 3 || hash != hashOf(3) {
		t.Error(seq, hash)
	}
	// What comes later is not part of it.
	setAll(t, x, 3, testIDs(uint64(memory)+50, 100)...)

	want := []string{}
	for i, id := range ids {
		n := int64(i % 5)
		if i%5 == 4 {
			n = 0
		}
		switch {
		case i == 11: // count 1, counted as 3
			n = 3
			want = append(want, fmt.Sprintf("%v has count 1, counted 3", id))
		case i == 14: // absent
			n = 2
			want = append(want, fmt.Sprintf("%v is missing, counted 2", id))
		case i == 20: // limbo, counted after all
			n = 1
			want = append(want, fmt.Sprintf("%v has count 0, counted 1", id))
		case i == 22: // there for nothing
			n = 0
			want = append(want, fmt.Sprintf("%v has count 2, counted 0", id))
		case i == 31:
			n = -1
			want = append(want, fmt.Sprintf("%v has count 1, counted -1", id))
		case i == 999: // the last
			n = 7
			want = append(want, fmt.Sprintf("%v is missing, counted 7", id))
		}
		// In pieces, some of which cancel.
		for _, part := range []int64{5, n, -5} {
			if n == 0 && i%2 == 0 {
				continue // not mentioned at all
			}
			if err := c.AddCount(id, part); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []string
	for m, err := range c.Mismatches(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if names, err := x.o.FS.List("store"); err != nil || len(names) != 1 {
		t.Error(names, err)
	}
}
