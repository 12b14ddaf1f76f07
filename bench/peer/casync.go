package peer

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// casync is casync: one file for each chunk, one index for each version.
type casync struct{}

func (casync) Name() string { return "casync" }

func (casync) Features() Features {
	return Features{
		Dedup: true, Compress: true, Checksums: true, Durable: false,
		Note: "chunks of 16 to 256 KiB cut by content, zstd; it syncs nothing, so a syncfs follows each put; one process a call",
	}
}

func (casync) Probe(ctx context.Context) (string, error) {
	return probe(ctx, "casync", "casync", "--version")
}

func (casync) Create(ctx context.Context, dir string) (Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := newRunner(dir)
	if err != nil {
		return nil, err
	}
	s := &casyncStore{
		runner:   r,
		versions: versions{},
		repo:     filepath.Join(dir, "repo"),
		chunks:   filepath.Join(dir, "repo", "chunks.castr"),
	}
	return s, os.MkdirAll(s.chunks, 0o700)
}

type casyncStore struct {
	runner
	versions // with the paths of their indexes
	repo     string
	chunks   string
}

func (s *casyncStore) Put(ctx context.Context, v Version) error {
	if err := s.free(v.Name); err != nil {
		return err
	}
	path, err := filepath.Abs(v.Path)
	if err != nil {
		return err
	}
	index := filepath.Join(s.repo, v.Name+".caibx")
	if _, err := s.run(ctx, "casync", "make", "--store="+s.chunks, "--compression=zstd", index, path); err != nil {
		return err
	}
	if err := syncStore(s.repo); err != nil {
		return err
	}
	s.versions[v.Name] = index
	return nil
}

func (s *casyncStore) Get(ctx context.Context, name, dst string) error {
	index, err := s.find(name)
	if err != nil {
		return err
	}
	_, err = s.run(ctx, "casync", "extract", "--store="+s.chunks, index, dst)
	return err
}

func (s *casyncStore) Delete(ctx context.Context, name string) error {
	index, err := s.find(name)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.Remove(index); err != nil {
		return err
	}
	delete(s.versions, name)
	if len(s.versions) == 0 {
		// It keeps what the indexes that it is given name, and wants one.
		if err := os.RemoveAll(s.chunks); err != nil {
			return err
		}
		return os.Mkdir(s.chunks, 0o700)
	}
	_, err = s.run(ctx, "casync", append([]string{"gc", "--store=" + s.chunks}, slices.Sorted(maps.Values(s.versions))...)...)
	return err
}

func (s *casyncStore) Size(ctx context.Context) (int64, error) { return usage(ctx, s.repo) }

func (s *casyncStore) Close() error { return nil }
