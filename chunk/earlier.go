package chunk

// Earlier finds, by ID, pages that a caller has had read to its memory before, so
// that what occurs again further on is copied from there: a tenth of an image's pages,
// and reading one alone costs as much as five of those that lie side by side. It is a
// hint and takes 16 to 32 bytes a page that it knows: of an ID that is 32 bits, and a page
// that it gives is compared with the ID before it is used. Not safe for concurrent use.
type Earlier struct {
	mem []byte
	at  prints // pages
}

// NewEarlier knows of no page yet. mem, of whole pages, is where they will be. While
// pages are read nobody else writes to what it has given; see PageRef.
func (s *Store) NewEarlier(mem []byte) *Earlier {
	return &Earlier{mem: mem, at: prints{seed: s.seed}}
}

func anyPage(int) bool { return true }

// Add says that page i of the memory has an ID. The first that has it stays.
func (e *Earlier) Add(id ID, i int) {
	if id.IsZero() || uint64(i) >= 1<<32-1 {
		return
	}
	e.at.reserve()
	print := e.at.of(&id)
	if s := e.at.slot(print, anyPage); *s == 0 {
		e.at.put(s, print, i)
	}
}

// Find gives a page that may have an ID, nil where there is none.
func (e *Earlier) Find(id ID) *[PageSize]byte {
	if e.at.n == 0 || id.IsZero() {
		return nil
	}
	s := *e.at.slot(e.at.of(&id), anyPage)
	if s == 0 {
		return nil
	}
	return (*[PageSize]byte)(e.mem[number(s)*PageSize:])
}
