package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// restic is restic as its distribution has it.
type restic struct{}

func (restic) Name() string { return "restic" }

func (restic) Features() Features {
	return Features{
		Dedup: true, Compress: true, Checksums: true, Durable: true,
		Note: "chunks of about 1 MiB cut by content, zstd (auto); it always encrypts and authenticates, which can not be turned off; one process a call, about 0.8 s to start, most of it to derive the key",
	}
}

func (restic) Probe(ctx context.Context) (string, error) {
	return probe(ctx, "restic", "restic", "version")
}

func (restic) Create(ctx context.Context, dir string) (Store, error) {
	r, err := newRunner(dir)
	if err != nil {
		return nil, err
	}
	s := &resticStore{versions: versions{}, repo: filepath.Join(dir, "repo")}
	r.env = []string{
		"RESTIC_REPOSITORY=" + s.repo,
		"RESTIC_CACHE_DIR=" + filepath.Join(r.home, "cache"),
		"RESTIC_PASSWORD=snapstore", // protects nothing
	}
	s.runner = r
	_, err = s.run(ctx, "restic", "init", "--quiet")
	return s, err
}

type resticStore struct {
	runner
	versions // with the snapshots' ids
	repo     string
}

func (s *resticStore) Put(ctx context.Context, v Version) error {
	if err := s.free(v.Name); err != nil {
		return err
	}
	// Without --force it would look for a snapshot with the same file first.
	out, err := s.run(ctx, "restic", "backup", "--json", "--quiet", "--force",
		"--compression=auto", "--host=snapstore", "--tag="+v.Name, v.Path)
	if err != nil {
		return err
	}
	id, err := resticSnapshot(out)
	if err != nil {
		return err
	}
	s.versions[v.Name] = id
	return nil
}

var errNoSnapshot = errors.New("restic did not say which snapshot it made")

// resticSnapshot finds the id of the new snapshot in what a backup printed.
func resticSnapshot(out string) (string, error) {
	for line := range strings.Lines(out) {
		var m struct {
			Type string `json:"message_type"`
			ID   string `json:"snapshot_id"`
		}
		if json.Unmarshal([]byte(line), &m) == nil && m.Type == "summary" && m.ID != "" {
			return m.ID, nil
		}
	}
	return "", fmt.Errorf("%w: %s", errNoSnapshot, lastLines(out, 1))
}

// Get restores into a directory beside dst: "restic dump", which could write
// to dst at once, fetches one chunk after the other.
func (s *resticStore) Get(ctx context.Context, name, dst string) (err error) {
	id, err := s.find(name)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dst), ".restic-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if _, err := s.run(ctx, "restic", "restore", id, "--quiet", "--target="+tmp); err != nil {
		return err
	}
	image, err := onlyFile(tmp)
	if err != nil {
		return err
	}
	return os.Rename(image, dst)
}

// onlyFile goes down a path of directories to the one file at its end.
func onlyFile(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) != 1 {
		return "", fmt.Errorf("restic restored %d entries in %s instead of one image", len(entries), dir)
	}
	path := filepath.Join(dir, entries[0].Name())
	if entries[0].IsDir() {
		return onlyFile(path)
	}
	return path, nil
}

func (s *resticStore) Delete(ctx context.Context, name string) error {
	id, err := s.find(name)
	if err != nil {
		return err
	}
	if _, err := s.run(ctx, "restic", "forget", "--quiet", "--prune", id); err != nil {
		return err
	}
	delete(s.versions, name)
	return nil
}

func (s *resticStore) Size(ctx context.Context) (int64, error) { return usage(ctx, s.repo) }

func (s *resticStore) Close() error { return nil }
