package peer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// copying is cp: every version a full copy.
type copying struct{}

func (copying) Name() string { return "cp" }

func (copying) Features() Features {
	return Features{
		Durable: false,
		Note:    "cp --reflink=never, then fsync of the copy and its directory; every version is a full copy",
	}
}

func (copying) Probe(ctx context.Context) (string, error) {
	line, err := probe(ctx, "coreutils", "cp", "--version")
	if err != nil && !errors.Is(err, ErrAbsent) && ctx.Err() == nil {
		// Another cp, which does not know the option.
		return "", errors.Join(errors.New("cp of GNU coreutils"), ErrAbsent, err)
	}
	return line, err
}

func (copying) Create(ctx context.Context, dir string) (Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := newRunner(dir)
	if err != nil {
		return nil, err
	}
	s := &copies{runner: r, versions: versions{}, repo: filepath.Join(dir, "repo")}
	return s, os.Mkdir(s.repo, 0o700)
}

type copies struct {
	runner
	versions // with their paths
	repo     string
}

func (s *copies) Put(ctx context.Context, v Version) error {
	if err := s.free(v.Name); err != nil {
		return err
	}
	path := filepath.Join(s.repo, v.Name)
	if err := s.copy(ctx, v.Path, path); err != nil {
		return err
	}
	if err := errors.Join(syncPath(path), syncPath(s.repo)); err != nil {
		return err
	}
	s.versions[v.Name] = path
	return nil
}

// copy never shares blocks, where the file system could: see reflink for that.
func (s *copies) copy(ctx context.Context, from, to string) error {
	_, err := s.run(ctx, "cp", "--reflink=never", "--", from, to)
	return err
}

func (s *copies) Get(ctx context.Context, name, dst string) error {
	path, err := s.find(name)
	if err != nil {
		return err
	}
	return s.copy(ctx, path, dst)
}

func (s *copies) Delete(ctx context.Context, name string) error {
	path, err := s.find(name)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	delete(s.versions, name)
	return os.Remove(path)
}

func (s *copies) Size(ctx context.Context) (int64, error) { return usage(ctx, s.repo) }

func (s *copies) Close() error { return nil }
