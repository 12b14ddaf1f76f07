package chunk

// frameBuffer holds any group with the header of its frame, and most frames of
// nodes.
const frameBuffer = 64 + groupHeader + GroupPages*idSize + maxCompressed

// rowBuffer holds as well how the next group begins, with what lies between.
const rowBuffer = frameBuffer + 2*64 + headSize

// What the store keeps of buffers that nobody uses, at most: what a take of some
// thousand pages has in use, 8 MiB, and of each kind of the page cache's what an
// eviction or two hand on.
const (
	keptRaws   = 64
	keptFrames = 64
	keptGroups = 16
)
