package trackmem

import "golang.org/x/sys/unix"

// dontNeed is a host that gives pages of lent memory back by itself.
func (s *shadowed) dontNeed() error {
	if s.m.Mode() == ModeBitmap {
		return nil
	}
	end := pages(s.m.Size())
	first := s.rng.Uint64N(end)
	last := min(end, first+1+s.rng.Uint64N(700))
	if err := unix.Madvise(s.m.res.bytes[first*PageSize:last*PageSize], unix.MADV_DONTNEED); err != nil {
		return nil // larger pages than ours
	}
	s.note(int64(first*PageSize), int64((last-first)*PageSize))
	return nil
}
