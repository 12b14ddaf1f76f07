package demodata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/zeebo/blake3"
)

// small makes a series with pages changed, unchanged, zeroed, and images that
// grow, from a seed.
func small(seed uint64) [][]byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	image := make([]byte, 4*PageSize)
	var images [][]byte
	for i := range 5 {
		for range 2 {
			page := image[rng.IntN(len(image)/PageSize)*PageSize:][:PageSize]
			if rng.IntN(3) == 0 {
				clear(page)
				continue
			}
			page[rng.IntN(PageSize)] = byte(rng.Uint32())
		}
		images = append(images, bytes.Clone(image))
		image = append(image, make([]byte, i*PageSize)...)
	}
	return images
}

func readAll(data string) ([][]byte, error) {
	s, err := Parse(data)
	if err != nil {
		return nil, err
	}
	var images [][]byte
	for image, err := range s.Images() {
		if err != nil {
			return images, err
		}
		images = append(images, bytes.Clone(image.Bytes))
	}
	return images, nil
}

func TestBuildRead(t *testing.T) {
	for seed := range uint64(20) {
		images := small(seed)
		data, err := Build(images)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readAll(string(data))
		if err != nil || !slices.EqualFunc(got, images, bytes.Equal) {
			t.Errorf("seed %d: %d images come back, %v", seed, len(got), err)
		}
		again, err := Build(images)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("seed %d: made twice, not the same: %v", seed, err)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, images := range map[string][][]byte{
		"part of a page": {make([]byte, 1)},
		"shrinks":        {make([]byte, 2*PageSize), make([]byte, PageSize)},
		"too many":       make([][]byte, maxImages+1),
	} {
		if _, err := Build(images); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	data, err := Build(nil)
	if err != nil {
		t.Fatal(err)
	}
	if images, err := readAll(string(data)); err != nil || len(images) != 0 {
		t.Errorf("no images come back as %d, %v", len(images), err)
	}
}

// TestDamage: no changed byte and no cut goes unseen.
func TestDamage(t *testing.T) {
	data, err := Build(small(1))
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		spoiled := bytes.Clone(data)
		spoiled[i] ^= 0x10
		if _, err := readAll(string(spoiled)); !errors.Is(err, ErrMalformed) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := readAll(string(data[:i])); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if _, err := readAll(string(data) + "x"); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte more: %v", err)
	}
}

// TestLies: files whose checksums are right and whose content is not.
func TestLies(t *testing.T) {
	images := small(2)
	whole, err := Build(images)
	if err != nil {
		t.Fatal(err)
	}
	tableEnd := headerSize + len(images)*entrySize
	entry := func(b []byte, i int) []byte { return b[headerSize+i*entrySize:][:entrySize] }
	for name, lie := range map[string]func(b []byte){
		"hash of an image":  func(b []byte) { entry(b, 4)[16] ^= 1 },
		"huge image":        func(b []byte) { binary.LittleEndian.PutUint64(entry(b, 0), 1<<40) },
		"odd image":         func(b []byte) { entry(b, 0)[0]++ },
		"image shrinks":     func(b []byte) { binary.LittleEndian.PutUint64(entry(b, 4), 0) },
		"more pages":        func(b []byte) { entry(b, 0)[8]++ },
		"pages beyond size": func(b []byte) { entry(b, 0)[11] = 1 },
		"reserved bytes":    func(b []byte) { entry(b, 0)[12] = 1 },
		"page size":         func(b []byte) { b[13] = 0x20 },
		"version":           func(b []byte) { b[8]++ },
		"number of images":  func(b []byte) { b[16]--; copy(b[tableEnd-entrySize:], b[tableEnd:]) },
		"raw length":        func(b []byte) { b[28]++ },
	} {
		b := bytes.Clone(whole)
		lie(b)
		sum := blake3.Sum256(b[:tableEnd])
		copy(b[tableEnd:], sum[:])
		if _, err := readAll(string(b)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestMotokoLedger reads all that is shipped.
func TestMotokoLedger(t *testing.T) {
	s, err := MotokoLedger()
	if err != nil {
		t.Fatal(err)
	}
	infos := s.Infos()
	if len(infos) != 20 {
		t.Fatalf("%d images", len(infos))
	}
	var before []byte
	i := 0
	for image, err := range s.Images() {
		if err != nil {
			t.Fatal(err)
		}
		if image.Info != infos[i] || int64(len(image.Bytes)) != image.Size || len(image.Pages) != image.Changed {
			t.Errorf("image %d: %+v, table says %+v", i, image.Info, infos[i])
		}
		if got := changed(before, image.Bytes); !slices.Equal(got, image.Pages) {
			t.Errorf("image %s: pages %d, changed %d", image.Name, len(image.Pages), len(got))
		}
		before = bytes.Clone(image.Bytes)
		i++
	}
	if i != len(infos) {
		t.Errorf("%d images of %d", i, len(infos))
	}
}

// TestStopEarly: leaving the loop is not an error, and another loop may start.
func TestStopEarly(t *testing.T) {
	data, err := Build(small(3))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(string(data))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for image, err := range s.Images() {
			if err != nil || image.Name != "000" {
				t.Fatalf("%v, %v", image, err)
			}
			break
		}
	}
}

func FuzzParse(f *testing.F) {
	for seed := range uint64(3) {
		data, err := Build(small(seed))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		// The right checksum of the table lets the fuzzer past it.
		if len(data) > headerSize {
			count := binary.LittleEndian.Uint32(data[16:])
			end := headerSize + int(min(count, maxImages))*entrySize
			if end+sumSize <= len(data) {
				sum := blake3.Sum256(data[:end])
				copy(data[end:], sum[:])
			}
		}
		images, err := readAll(string(data))
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("%v is not ErrMalformed", err)
		}
		if err == nil && len(images) > maxImages {
			t.Fatal("too many images")
		}
	})
}
