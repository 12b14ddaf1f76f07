package chunk

// Earlier finds, by ID, pages that a caller has had read to its memory before, so
// that what occurs again further on is copied from there: a tenth of an image's pages,
// and reading one alone costs as much as five of those that lie side by side. It is a
// hint and takes 16 to 32 bytes a page, of the memory's first million and of those that it
// knows beyond: of an ID that is 32 bits, and a page that it gives is compared with the
// ID before it is used. Not safe for concurrent use.
type Earlier struct {
	mem []byte
	at  prints // pages
}

// NewEarlier knows of no page yet. mem, of whole pages, is where they will be. While
// pages are read nobody else writes to what it has given; see PageRef. Done gives its
// memory back.
func (s *Store) NewEarlier(mem []byte) *Earlier {
	e, _ := s.earlier.Get().(*Earlier)
	if e == nil {
		e = &Earlier{at: prints{seed: s.seed}}
	}
	e.mem = mem
	// More are rare enough for the table to grow: it is moved then.
	e.at.expect(min(len(mem)/PageSize, expectedPages))
	return e
}

// expectedPages is for how many pages a table is made at once, 16 MiB of it: nobody
// knows how many of a sparse memory are not zeros.
const expectedPages = 1 << 20

// Done gives the memory of e back: it is not used afterwards. A table that has grown is
// not kept.
func (s *Store) Done(e *Earlier) {
	e.mem = nil
	if len(e.at.slots) <= 2*expectedPages {
		s.earlier.Put(e)
	}
}

func anyPage(int) bool { return true }

// Meet notes that page i of the memory is to have an ID, and gives a page in front of
// page from, where all was read or soon is, that may have it. It is nil where none is
// known.
func (e *Earlier) Meet(id *ID, i, from int) *[PageSize]byte {
	if id.IsZero() || uint64(i) >= 1<<32-1 {
		return nil
	}
	e.at.reserve()
	print := e.at.of(id)
	s := e.at.slot(print, anyPage)
	if *s == 0 {
		e.at.put(s, print, i)
		return nil
	}
	if first := number(*s); first < from {
		return (*[PageSize]byte)(e.mem[first*PageSize:])
	}
	return nil
}
