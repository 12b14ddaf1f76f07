package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/snapstore/snapstore/bench/limit"
	"github.com/snapstore/snapstore/bench/workload"
	"github.com/snapstore/snapstore/chunk"
	"github.com/snapstore/snapstore/engine"
)

// imageSeries takes successive images of real memory, each series in a store of
// its own.
func (r *run) imageSeries(ctx context.Context) error {
	series, err := workload.FindSeries(r.o.Images)
	if err != nil {
		return err
	}
	for _, s := range series {
		id := "images." + s.Name
		r.images = append(r.images, s.Name)
		r.rec.define(Figure{ID: id + ".take", Group: groupImages, Title: s.Name + ": take of the next image, p50", Unit: "ms", Limit: takeLimit, RatioOf: underLimit, Better: more})
		r.rec.define(Figure{ID: id + ".disk", Group: groupImages, Title: s.Name + ": on disk with all kept, settled and cleaned", Unit: "MB", Limit: "exact dedup + zstd a page, no metadata", RatioOf: overLimit, Better: less})
		r.rec.define(Figure{ID: id + ".share", Group: groupImages, Title: s.Name + ": the same, of the images as they are", Unit: "MB", Limit: "logical size of all snapshots", RatioOf: overLimit, Better: less})
		for repeat := range r.o.Repeats {
			r.step("%s of %s, repeat %d of %d", Images, s.Name, repeat+1, r.o.Repeats)
			if err := r.oneSeries(ctx, s, id, repeat == 0); err != nil {
				return fmt.Errorf("series %s: %w", s.Name, err)
			}
		}
	}
	return nil
}

// oneSeries takes every image; with space it also looks at what is on disk.
func (r *run) oneSeries(ctx context.Context, series workload.Series, id string, space bool) (err error) {
	s, err := r.newStore(&engine.Options{SnapshotLimit: limitOf})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	c, mem, err := s.canister(ctx, 1, engine.StableMemory, 0)
	if err != nil {
		return err
	}
	var before []byte
	var takes, bounds []float64
	ideal, seen, logical := workload.Ideal{}, map[chunk.ID]struct{}{}, 0
	for image, err := range series.Images() {
		if err != nil {
			return err
		}
		logical += len(image)
		dirty := changed(before, image)
		if err := mem.Resize(uint64(len(image))); err != nil {
			return err
		}
		if err := put(mem, image, dirty); err != nil {
			return err
		}
		if space {
			if err := ideal.Add(image, dirty); err != nil {
				return err
			}
		}
		pipe, err := limit.NewPipeline(image, dirty, seen)
		if err != nil {
			return err
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
		bound, stored, err := pipe.Run(false)
		if err != nil {
			return err
		}
		sync, err := r.disk.Overwrite(stored)
		if err != nil {
			return err
		}
		began := time.Now()
		if _, err := c.Take(ctx, engine.TakeOptions{}); err != nil {
			return err
		}
		if before != nil { // the first is a full one
			takes, bounds = append(takes, ms(time.Since(began))), append(bounds, ms(bound+sync))
		}
		before = image
	}
	if len(takes) > 0 {
		r.rec.add(id+".take", quantile(takes, 0.5), quantile(bounds, 0.5))
	} else {
		r.rec.note(id+".take", "there is only one image")
	}
	if err := sameAs(ctx, s, before); err != nil || !space {
		return err
	}
	n, err := s.cleaned(ctx, engine.GCOptions{})
	if err != nil {
		return err
	}
	r.rec.add(id+".disk", mb(n), mb(ideal.Bytes))
	r.rec.add(id+".share", mb(n), mb(logical))
	return nil
}

// changed are the pages of an image that are not those of the one before.
func changed(before, image []byte) []uint64 {
	out := []uint64{} // nil would be all of them
	zero := make([]byte, workload.PageSize)
	for off := 0; off < len(image); off += workload.PageSize {
		old := zero
		if off < len(before) {
			old = before[off : off+workload.PageSize]
		}
		if !bytes.Equal(old, image[off:off+workload.PageSize]) {
			out = append(out, uint64(off/workload.PageSize))
		}
	}
	return out
}

// sameAs compares the newest snapshot with an image.
func sameAs(ctx context.Context, s *store, image []byte) error {
	id, err := newest(s, 1)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.Grow(len(image))
	if err := s.read(ctx, id, engine.StableMemory, func(sec *engine.SectionReader) error {
		_, err := sec.WriteTo(&b)
		return err
	}); err != nil {
		return err
	}
	if !bytes.Equal(b.Bytes(), image) {
		return errors.New("what was restored is not what was taken")
	}
	return nil
}
