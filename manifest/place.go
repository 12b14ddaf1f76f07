package manifest

import (
	"cmp"
	"encoding/binary"
	"fmt"
)

// Place is a position in a version: a page or a node of a section's tree, or
// the manifest. Places are absolute: (section, level, index) means the same
// pages in versions of any depth, and above a shallow tree there is nothing.
//
// Their order is the order of every walk: sections ascending, in a section
// left to right with children before their parent, and the manifest last of
// all. Children come first so that a walk that stops part-way, and whose
// counts are applied that far, has not yet given up any node that it must
// read again to go on.
//
// The zero Place is the start, before all others. Comparable with ==.
type Place struct {
	stage   stage
	section Section
	height  uint8 // 0 for a page, 1 + level for a node
	index   uint64
}

type stage uint8

const (
	stageStart    stage = 0
	stageSection  stage = 1
	stageManifest stage = 2
	stageEnd      stage = 3
)

func manifestPlace() Place { return Place{stage: stageManifest} }
func endPlace() Place      { return Place{stage: stageEnd} }

func treePlace(s Section, height uint8, index uint64) Place {
	return Place{stage: stageSection, section: s, height: height, index: index}
}

// PagePlace is the place of a page.
func PagePlace(s Section, page uint64) Place { return treePlace(s, 0, page) }

// IsStart tells whether p is before all places.
func (p Place) IsStart() bool { return p.stage == stageStart }

// IsEnd tells whether p is after all places.
func (p Place) IsEnd() bool { return p.stage == stageEnd }

// IsManifest tells whether p is the manifest itself.
func (p Place) IsManifest() bool { return p.stage == stageManifest }

// IsPage tells whether p is a page.
func (p Place) IsPage() bool { return p.stage == stageSection && p.height == 0 }

// Section is the section of a page or a tree node.
func (p Place) Section() Section { return p.section }

// Level is the level of a tree node, and -1 for a page.
func (p Place) Level() int { return int(p.height) - 1 }

// Index counts pages, or nodes of the level, from the section's start.
func (p Place) Index() uint64 { return p.index }

// Pages returns the range of pages at or below p.
func (p Place) Pages() (from, to uint64) {
	return p.index << (fanoutBits * p.height), (p.index + 1) << (fanoutBits * p.height)
}

// Compare orders places as walks visit them.
func (p Place) Compare(q Place) int {
	if c := cmp.Compare(p.stage, q.stage); c != 0 || p.stage != stageSection {
		return c
	}
	if c := p.section.Compare(q.section); c != 0 {
		return c
	}
	_, pEnd := p.Pages()
	_, qEnd := q.Pages()
	if c := cmp.Compare(pEnd, qEnd); c != 0 {
		return c
	}
	return cmp.Compare(p.height, q.height)
}

// first is the first place of the subtree that ends with p.
func (p Place) first() Place {
	switch p.stage {
	case stageSection:
		page, _ := p.Pages()
		return treePlace(p.section, 0, page)
	case stageManifest:
		return Place{}
	}
	return p
}

// child is the i-th place below p.
func (p Place) child(i int) Place {
	return treePlace(p.section, p.height-1, p.index<<fanoutBits|uint64(i))
}

// String is for people.
func (p Place) String() string {
	switch {
	case p.IsStart():
		return "start"
	case p.IsEnd():
		return "end"
	case p.IsManifest():
		return "manifest"
	case p.IsPage():
		return fmt.Sprintf("%v page %d", p.section, p.index)
	}
	return fmt.Sprintf("%v level %d node %d", p.section, p.Level(), p.index)
}

// MaxPlaceSize bounds an encoded Place.
const MaxPlaceSize = 1 + 1 + 32 + 1 + 8

// Encode gives the canonical bytes.
func (p Place) Encode() []byte {
	b := append(make([]byte, 0, MaxPlaceSize), byte(p.stage))
	if p.stage != stageSection {
		return b
	}
	b = append(b, byte(p.section.Kind))
	if p.section.Kind == WasmChunk {
		b = append(b, p.section.Hash[:]...)
	}
	return binary.LittleEndian.AppendUint64(append(b, p.height), p.index)
}

// DecodePlace reads what Encode writes and refuses everything else.
func DecodePlace(encoded []byte) (Place, error) {
	r := reader{b: encoded}
	p := Place{stage: stage(r.byte())}
	if p.stage == stageSection {
		p.section.Kind = SectionKind(r.byte())
		if p.section.Kind == WasmChunk {
			copy(p.section.Hash[:], r.take(len(p.section.Hash)))
		}
		p.height = r.byte()
		p.index = r.uint64()
	}
	switch {
	case r.bad || r.left() != 0:
	case p.stage > stageEnd:
	case p.stage == stageSection && (!p.section.Kind.valid() || p.height > MaxDepth || p.index >= 1<<(fanoutBits*(MaxDepth-p.height))):
	default:
		return p, nil
	}
	return Place{}, fmt.Errorf("manifest: %w: place of %d bytes", ErrMalformed, len(encoded))
}
