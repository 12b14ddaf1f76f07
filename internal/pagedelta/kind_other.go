//go:build !amd64

package pagedelta

func supported(k kind) bool { return k == portable }

func (kind) encode(dst, window []byte, at int, seen *table, p *page) int {
	return encodePortable(dst, window, at, seen, p)
}

func (kind) pack(dst, src, masks []byte) int { return packPortable(dst, src, masks) }

func (kind) unpack(dst, masks, src []byte) int { return unpackPortable(dst, masks, src) }

func (kind) unpackXOR(window []byte, at, distance int, masks, src []byte) int {
	return unpackXORPortable(window, at, distance, masks, src)
}
