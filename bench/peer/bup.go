package peer

import (
	"context"
	"path/filepath"
)

// bup is bup: chunks in packs of git.
type bup struct{}

func (bup) Name() string { return "bup" }

func (bup) Features() Features {
	return Features{
		Dedup: true, Compress: true, Checksums: true, Durable: true,
		Note: "bup split, chunks of about 8 KiB cut by content, zlib at its fastest level; its own manual calls removing (rm and gc, both --unsafe) experimental; one process a call",
	}
}

func (bup) Probe(ctx context.Context) (string, error) { return probe(ctx, "bup", "bup", "--version") }

func (bup) Create(ctx context.Context, dir string) (Store, error) {
	r, err := newRunner(dir)
	if err != nil {
		return nil, err
	}
	s := &bupStore{versions: versions{}, repo: filepath.Join(dir, "repo")}
	r.env = []string{
		"BUP_DIR=" + s.repo,
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0",
	}
	s.runner = r
	_, err = s.run(ctx, "bup", "init")
	return s, err
}

type bupStore struct {
	runner
	versions // each is a branch of its name
	repo     string
}

func (s *bupStore) Put(ctx context.Context, v Version) error {
	if err := s.free(v.Name); err != nil {
		return err
	}
	path, err := filepath.Abs(v.Path)
	if err != nil {
		return err
	}
	if _, err := s.run(ctx, "bup", "split", "--quiet", "-1", "--name="+v.Name, path); err != nil {
		return err
	}
	s.versions[v.Name] = v.Name
	return nil
}

func (s *bupStore) Get(ctx context.Context, name, dst string) error {
	branch, err := s.find(name)
	if err != nil {
		return err
	}
	return s.runTo(ctx, dst, "bup", "join", branch)
}

func (s *bupStore) Delete(ctx context.Context, name string) error {
	branch, err := s.find(name)
	if err != nil {
		return err
	}
	if _, err := s.run(ctx, "bup", "rm", "--unsafe", branch); err != nil {
		return err
	}
	delete(s.versions, name)
	_, err = s.run(ctx, "bup", "gc", "--unsafe")
	return err
}

func (s *bupStore) Size(ctx context.Context) (int64, error) { return usage(ctx, s.repo) }

func (s *bupStore) Close() error { return nil }
