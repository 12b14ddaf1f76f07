package peer

import (
	"context"
	"path/filepath"
)

// borg is BorgBackup, with the chunks it makes by default or with chunks of a
// page.
type borg struct{ fixed bool }

func (b borg) Name() string {
	if b.fixed {
		return "borg-fixed"
	}
	return "borg"
}

func (b borg) Features() Features {
	f := Features{
		Dedup: true, Compress: true, Checksums: true, Durable: true,
		Note: "chunks of about 2 MiB cut by content, lz4, no encryption, no cache of files; one process a call, about 0.35 s to start",
	}
	if b.fixed {
		f.Note = "--chunker-params=fixed,4096, zstd,1, no encryption, no cache of files; one process a call, about 0.35 s to start"
	}
	return f
}

func (b borg) Probe(ctx context.Context) (string, error) {
	return probe(ctx, "borgbackup", "borg", "--version")
}

func (b borg) Create(ctx context.Context, dir string) (Store, error) {
	r, err := newRunner(dir)
	if err != nil {
		return nil, err
	}
	r.env = []string{
		"BORG_BASE_DIR=" + r.home,
		"BORG_EXIT_CODES=modern",
		// Whatever it could ask is answered.
		"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes",
		"BORG_RELOCATED_REPO_ACCESS_IS_OK=yes",
		"BORG_DELETE_I_KNOW_WHAT_I_AM_DOING=YES",
		"BORG_PASSPHRASE=",
	}
	s := &borgStore{runner: r, versions: versions{}, repo: filepath.Join(dir, "repo")}
	s.create = []string{"create", "--compression=lz4"}
	if b.fixed {
		s.create = []string{"create", "--compression=zstd,1", "--chunker-params=fixed,4096", "--sparse"}
	}
	// An image that changed is read again whatever the cache says, and keeping
	// its list of chunks costs time.
	s.create = append(s.create, "--files-cache=disabled", "--noacls", "--noxattrs", "--noflags")
	_, err = s.run(ctx, "borg", "init", "--encryption=none", s.repo)
	return s, err
}

type borgStore struct {
	runner
	versions
	repo   string
	create []string
}

func (s *borgStore) Put(ctx context.Context, v Version) error {
	if err := s.free(v.Name); err != nil {
		return err
	}
	path, err := filepath.Abs(v.Path)
	if err != nil {
		return err
	}
	args := append(s.create[:len(s.create):len(s.create)], s.repo+"::"+v.Name, path)
	if _, err := s.run(ctx, "borg", args...); err != nil {
		return err
	}
	s.versions[v.Name] = s.repo + "::" + v.Name
	return nil
}

func (s *borgStore) Get(ctx context.Context, name, dst string) error {
	archive, err := s.find(name)
	if err != nil {
		return err
	}
	return s.runTo(ctx, dst, "borg", "extract", "--stdout", archive)
}

func (s *borgStore) Delete(ctx context.Context, name string) error {
	archive, err := s.find(name)
	if err != nil {
		return err
	}
	if _, err := s.run(ctx, "borg", "delete", archive); err != nil {
		return err
	}
	delete(s.versions, name)
	_, err = s.run(ctx, "borg", "compact", s.repo)
	return err
}

func (s *borgStore) Size(ctx context.Context) (int64, error) { return usage(ctx, s.repo) }

func (s *borgStore) Close() error { return nil }
