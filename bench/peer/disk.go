package peer

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// usage adds up what everything under dir takes on the disk, directories
// included: some peers make thousands of them. Files that end in one of
// without are left out.
func usage(ctx context.Context, dir string, without ...string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != dir {
			return nil // a database removes what it does not need at any time
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if slices.Contains(without, filepath.Ext(path)) {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		sum += onDisk(info)
		return nil
	})
	return sum, err
}

// syncPath makes a file or the entries of a directory durable.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// copyStep is how much is copied between two looks at the context.
const copyStep = 16 << 20

// copyTo writes src to a new file dst, which is not left behind half written.
func copyTo(ctx context.Context, dst string, src *os.File) error {
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	for err == nil {
		if err = ctx.Err(); err == nil {
			_, err = io.CopyN(out, src, copyStep)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(dst))
	}
	return nil
}
