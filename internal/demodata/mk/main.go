// Mk makes the file of a series of memory images from raw images: every *.mem
// in a directory, in the order of their names.
//
//	go run ./internal/demodata/mk -in DIR -out testdata/motoko-ledger/images.ssi
//
// It reads its work back before it says so, and prints the table for the
// README beside the file.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/snapstore/snapstore/internal/demodata"
	"github.com/snapstore/snapstore/internal/ui"
)

func main() {
	in := flag.String("in", "", "directory of raw images, *.mem")
	out := flag.String("out", "", "file to write")
	limit := flag.Int("max", 0, "most images to take; 0 is all")
	flag.Parse()
	if *in == "" || *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*in, *out, *limit); err != nil {
		fmt.Fprintln(os.Stderr, "mk:", err)
		os.Exit(1)
	}
}

func run(in, out string, limit int) error {
	names, err := filepath.Glob(filepath.Join(in, "*.mem")) // sorted
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("no *.mem in %s", in)
	}
	if limit > 0 && limit < len(names) {
		names = names[:limit]
	}
	var images [][]byte
	for _, name := range names {
		image, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		images = append(images, image)
	}
	data, err := demodata.Build(images)
	if err != nil {
		return err
	}
	series, err := demodata.Parse(string(data))
	if err != nil {
		return err
	}
	i := 0
	fmt.Println("| image | size | pages changed | BLAKE3 |")
	fmt.Println("|---|---|---|---|")
	for image, err := range series.Images() {
		if err != nil {
			return err
		}
		if !bytes.Equal(image.Bytes, images[i]) {
			return fmt.Errorf("image %s does not come back", image.Name)
		}
		fmt.Printf("| %s | %s | %s | `%x` |\n", image.Name, ui.Bytes(uint64(image.Size)), ui.Count(uint64(image.Changed)), image.BLAKE3)
		i++
	}
	if err := os.WriteFile(out, data, 0o644); err != nil {
		return err
	}
	fmt.Printf("\n%d images in %s\n", i, ui.Bytes(uint64(len(data))))
	return nil
}
