package main

import (
	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/snapdir"
	"github.com/snapstore/snapstore/manifest"
)

// The directory's structs and the engine's say the same in the same numbers; a
// test holds them together.

func toPart(s engine.Section) snapdir.Part {
	return snapdir.Part{Kind: snapdir.Kind(s.Kind), Hash: s.Hash}
}

func fromPart(p snapdir.Part) engine.Section {
	return engine.Section{Kind: manifest.SectionKind(p.Kind), Hash: p.Hash}
}

func toDirMetadata(d engine.SnapshotDetail) snapdir.Metadata {
	m := snapdir.Metadata{
		Source: snapdir.Source(d.Metadata.Source), TakenAt: d.Metadata.TakenAt, CanisterVersion: d.Metadata.CanisterVersion,
		CertifiedData: d.Metadata.CertifiedData, GlobalTimer: snapdir.Timer(d.Metadata.GlobalTimer), HookStatus: snapdir.HookStatus(d.Metadata.HookStatus),
	}
	for _, g := range d.Metadata.Globals {
		m.Globals = append(m.Globals, snapdir.Global{Kind: snapdir.GlobalKind(g.Kind), Lo: g.Lo, Hi: g.Hi})
	}
	for _, s := range d.Sections {
		switch s.Section.Kind {
		case manifest.WasmModule:
			m.WasmModuleSize = s.Size
		case manifest.WasmMemory:
			m.WasmMemorySize = s.Size
		case manifest.StableMemory:
			m.StableMemorySize = s.Size
		case manifest.WasmChunk:
			m.WasmChunks = append(m.WasmChunks, s.Section.Hash)
		}
	}
	return m
}

func fromDirMetadata(d snapdir.Metadata) engine.Metadata {
	m := engine.Metadata{
		Source: manifest.Source(d.Source), TakenAt: d.TakenAt, CanisterVersion: d.CanisterVersion,
		CertifiedData: d.CertifiedData, GlobalTimer: manifest.Timer(d.GlobalTimer), HookStatus: manifest.HookStatus(d.HookStatus),
	}
	for _, g := range d.Globals {
		m.Globals = append(m.Globals, manifest.Global{Kind: manifest.GlobalKind(g.Kind), Lo: g.Lo, Hi: g.Hi})
	}
	return m
}
