package seglog

import (
	"context"
	"errors"
	"iter"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func alignUp(n int64) int64 { return (n + 63) &^ 63 }

var errStub = errors.New("seglog: under construction")

type Log struct{}
type Spill struct{}

func Create(o CreateOptions) error                     { return errStub }
func Exists(fs vfs.FS, dir string) (bool, error)       { return false, errStub }
func Open(o Options) (*Log, error)                     { return nil, errStub }
func (l *Log) StoreID() StoreID                        { return StoreID{} }
func (l *Log) Floor() Sequence                         { return 0 }
func (l *Log) Last() (Sequence, Hash)                  { return 0, Hash{} }
func (l *Log) HashAt(seq Sequence) (Hash, bool, error) { return Hash{}, false, errStub }
func (l *Log) Damage() []Damage                        { return nil }
func (l *Log) Replay(ctx context.Context, after Sequence, fn func(*Batch) error) error {
	return errStub
}
func (l *Log) Scan(ctx context.Context) iter.Seq2[FrameInfo, error] { return nil }
func (l *Log) ScanSegment(ctx context.Context, id SegmentID) iter.Seq2[FrameInfo, error] {
	return nil
}
func (l *Log) ReadRecord(loc Loc) (key []byte, recordSeq uint64, payload []byte, err error) {
	return nil, 0, nil, errStub
}
func (l *Log) Start(ctx context.Context) error                          { return errStub }
func (l *Log) Commit(ctx context.Context, r *Request) (Sequence, error) { return 0, errStub }
func (l *Log) Spill(stream Stream) (*Spill, error)                      { return nil, errStub }
func (s *Spill) Append(kind Kind, payload []byte) (Loc, error)          { return Loc{}, errStub }
func (s *Spill) Flush() error                                           { return errStub }
func (s *Spill) Ranges() []Range                                        { return nil }
func (s *Spill) Close() error                                           { return errStub }
func (l *Log) ReadFrame(loc Loc, buf []byte) (kind Kind, payload []byte, err error) {
	return 0, nil, errStub
}
func (l *Log) Segments() []SegmentInfo        { return nil }
func (l *Log) Seal(ctx context.Context) error { return errStub }
func (l *Log) Drop(ctx context.Context, floor Sequence, segs ...SegmentID) error {
	return errStub
}
func (l *Log) Quarantine(ctx context.Context, floor Sequence, seg SegmentID) error { return errStub }
func (l *Log) Stats() Stats                                                        { return Stats{} }
func (l *Log) Close() error                                                        { return errStub }
func (l *Log) ReadOnly() error                                                     { return nil }
