package peer

// fileSystem is one whose files can share blocks.
type fileSystem string

const (
	btrfs fileSystem = "btrfs"
	xfs   fileSystem = "xfs"
)

// debian is the package with its mkfs.
func (f fileSystem) debian() string {
	if f == xfs {
		return "xfsprogs"
	}
	return "btrfs-progs"
}

// reflink keeps a live image in a file system of its own and clones it for
// each version, as "cp --reflink" does: of what the machine itself has, the
// nearest to a snapshot that costs what changed.
type reflink struct{ fs fileSystem }

func (r reflink) Name() string { return string(r.fs) }

func (r reflink) Features() Features {
	f := Features{
		Checksums: r.fs == btrfs, Durable: true,
		Note: "on a loop device over a file; a put writes the dirty pages into a live file, clones it (FICLONE, what cp --reflink=always calls) and syncs; pages of zeros of the first image are holes; what mkfs takes is left out of the size",
	}
	if r.fs == xfs {
		f.Note += "; data has no checksums; 128 KiB around each page that changes are copied ahead (its default cowextsize)"
	}
	return f
}
