package candid

import (
	"bytes"
	"errors"
	"reflect"
	"runtime/metrics"
	"testing"
)

// allocated returns how many bytes f allocates, and those of whatever else
// runs meanwhile. Small values are counted when their span is full.
func allocated(f func()) uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	f()
	metrics.Read(sample)
	return sample[0].Value.Uint64() - before
}

// bound is the most that Unmarshal allocates within limits, with room for the
// Go types and for what else the test does.
func bound(l Limits) uint64 {
	l = l.resolve()
	return uint64(4*l.Decoded+64*(l.Types+l.Fields)) + 256<<10
}

// FuzzUnmarshal: whatever the bytes, reading them ends in values or in an
// *Error, within the limits; and the values are stable when written and read.
func FuzzUnmarshal(f *testing.F) {
	for _, text := range bombs() {
		f.Add(unhex(f, text))
	}
	for _, name := range []string{"node.json", "go.json"} {
		for i, m := range readCorpus(f, name) {
			if !testing.Short() || i%10 == 0 {
				f.Add(unhex(f, m.Hex))
			}
		}
	}
	limits := Limits{Decoded: 1 << 20}
	f.Fuzz(func(t *testing.T, data []byte) {
		shapes := destinations()
		for name, into := range corpusTypes() {
			shapes[name] = func() []any { return []any{into} }
		}
		for name, args := range shapes {
			a := args()
			var err error
			if got := allocated(func() { err = Unmarshal(data, limits, a...) }); got > bound(limits) {
				t.Errorf("%s: %d bytes allocated, want at most %d", name, got, bound(limits))
			}
			if err != nil {
				var e *Error
				if !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(data) {
					t.Errorf("%s: %#v", name, err)
				}
				if errors.Is(err, errMismatch) {
					t.Errorf("%s: an inner error comes out: %v", name, err)
				}
				continue
			}
			first := write(t, name, a)
			again := args()
			// Written in full, a value may cost more than as it came.
			if err := Unmarshal(first, Limits{Decoded: 1 << 30}, again...); err != nil {
				t.Errorf("%s: written as %x it is not read: %v", name, first, err)
			} else if second := write(t, name, again); !bytes.Equal(first, second) {
				t.Errorf("%s: first written as\n%x, then as\n%x", name, first, second)
			}
		}
	})
}

// write encodes what args point to.
func write(t *testing.T, name string, args []any) []byte {
	t.Helper()
	values := make([]any, len(args))
	for i, a := range args {
		values[i] = reflect.ValueOf(a).Elem().Interface()
	}
	data, err := Marshal(values...)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return data
}

// uploadMessage is upload_canister_snapshot_data with a slice as clients send
// it: 2,000,000 bytes.
func uploadMessage(t testing.TB) []byte {
	t.Helper()
	args := uploadDataArgs{CanisterID: Principal("0123456789"), SnapshotID: make(snapshotID, 18), Chunk: make([]byte, 2_000_000)}
	args.Kind.Memory = &offset{Offset: 2_000_000}
	data, err := Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestBlobCopies: a large blob is copied once when it is read, and once when
// it is written.
func TestBlobCopies(t *testing.T) {
	data := uploadMessage(t)
	var args uploadDataArgs
	var err error
	if got := allocated(func() { err = Unmarshal(data, Limits{}, &args) }); got > 3_000_000 || err != nil {
		t.Errorf("reading %d bytes allocates %d: %v", len(data), got, err)
	}
	if got := allocated(func() { _, err = Marshal(args) }); got > 3_000_000 || err != nil {
		t.Errorf("writing %d bytes allocates %d: %v", len(data), got, err)
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	for _, m := range readCorpus(b, "node.json") {
		if m.Name == "list_canister_snapshots_result: ten" {
			data := unhex(b, m.Hex)
			b.Run("list", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					var list []snapshot
					if err := Unmarshal(data, Limits{}, &list); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	upload := uploadMessage(b)
	b.Run("blob", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(upload)))
		for b.Loop() {
			var args uploadDataArgs
			if err := Unmarshal(upload, Limits{}, &args); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkMarshal(b *testing.B) {
	reply := readDataResult{Chunk: make([]byte, 2_000_000)}
	b.Run("blob", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(reply.Chunk)))
		for b.Loop() {
			if _, err := Marshal(reply); err != nil {
				b.Fatal(err)
			}
		}
	})
}
