package chunk

import (
	"encoding/binary"
	"fmt"
)

// A node frame holds up to FrameNodes encoded nodes of up to MaxNode bytes.
const (
	FrameNodes = 16
	MaxNode    = 64 << 10

	// The payload of a node frame; see docs/format.md.
	nodesVersionAt = 0
	nodesCountAt   = 1
	nodesZeroAt    = 2
	nodesHeader    = 4
	nodesLength    = 4
)

// NodeID hashes an encoded node. The layer that knows kinds of nodes supplies
// it; it fails on what is not a node.
type NodeID func(node []byte) (ID, error)

// AppendNodes appends the payload of a node frame of one domain to dst. It does
// not name the nodes: their IDs follow from their bytes.
func AppendNodes(dst []byte, d Domain, nodes [][]byte) ([]byte, error) {
	if len(nodes) < 1 || len(nodes) > FrameNodes {
		return dst, fmt.Errorf("chunk: frame of %d nodes", len(nodes))
	}
	for _, n := range nodes {
		if err := checkNode(len(n)); err != nil {
			return dst, err
		}
	}
	dst = append(dst, versionOf(d), byte(len(nodes)), 0, 0)
	dst = appendDomain(dst, d)
	for _, n := range nodes {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(n)))
	}
	for _, n := range nodes {
		dst = append(dst, n...)
	}
	return dst, nil
}

func checkNode(n int) error {
	if n < 1 || n > MaxNode {
		return fmt.Errorf("chunk: node of %d bytes", n)
	}
	return nil
}

// SplitNodes returns the domain and the nodes of a node frame. They share the
// memory of payload.
func SplitNodes(payload []byte) (Domain, [][]byte, error) {
	d, nodes, err := splitNodes(payload)
	if err != nil {
		return Domain{}, nil, malformed{err}
	}
	return d, nodes, nil
}

func splitNodes(payload []byte) (d Domain, nodes [][]byte, err error) {
	if len(payload) < nodesHeader {
		return d, nil, fmt.Errorf("chunk: node frame of %d bytes", len(payload))
	}
	d, table, err := cutDomain(payload[nodesVersionAt], payload[nodesHeader:])
	if err != nil {
		return d, nil, fmt.Errorf("chunk: node frame of %w", err)
	}
	count := int(payload[nodesCountAt])
	if count < 1 || count > FrameNodes || payload[nodesZeroAt] != 0 || payload[nodesZeroAt+1] != 0 {
		return d, nil, fmt.Errorf("chunk: frame of %d nodes", count)
	}
	if len(table) < count*nodesLength {
		return d, nil, fmt.Errorf("chunk: frame of %d nodes and %d bytes", count, len(payload))
	}
	rest := table[count*nodesLength:]
	nodes = make([][]byte, count)
	for i := range nodes {
		n := binary.LittleEndian.Uint32(table[i*nodesLength:])
		if n < 1 || n > MaxNode {
			return d, nil, fmt.Errorf("chunk: node of %d bytes", n)
		}
		if int(n) > len(rest) {
			return d, nil, fmt.Errorf("chunk: node of %d bytes, %d are left", n, len(rest))
		}
		nodes[i], rest = rest[:n:n], rest[n:]
	}
	if len(rest) != 0 {
		return d, nil, fmt.Errorf("chunk: %d bytes behind the last node", len(rest))
	}
	return d, nodes, nil
}
