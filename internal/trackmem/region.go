package trackmem

// A region is what one page table covers on amd64, and arm64 with small pages:
// what is armed at once in kernel mode.
const (
	regionBytes = 2 << 20
	regionPages = regionBytes / PageSize
)
