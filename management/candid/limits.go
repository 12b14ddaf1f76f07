package candid

import "fmt"

// Defaults of Limits. Messages of the management canister nest 7 values, and have up
// to 20 table entries, 46 fields, numbers of 19 bytes and a module of 10 MiB;
// skipping a whole status reply costs 281. Each limit leaves an eightfold
// margin for what will be added, except that Decoded is for a module, its
// arguments and what stands around them.
const (
	DefaultDepth       = 64
	DefaultTypes       = 1024
	DefaultFields      = 8192
	DefaultNumberBytes = 64
	DefaultDecoded     = 16 << 20
	DefaultSkipped     = 64 << 10
)

// valueCost is what each decoded value is charged besides the memory that it
// takes. With the default of Decoded it keeps a message of a few bytes that
// stands for a vector of a billion nulls below half a million values.
const valueCost = 32

// Limits bound what one message may cost. In each field 0 is the default.
type Limits struct {
	// Depth is how deep values may nest, in the message and in Go types.
	Depth int
	// Types is how many entries the message's type table may have.
	Types int
	// Fields is how many fields, cases, methods and parameters all types of
	// the table may have together, and arguments the message.
	Fields int
	// NumberBytes is the longest encoding of a nat or an int.
	NumberBytes int
	// Decoded is the budget for what is returned, in bytes: the memory of the
	// values and 32 for each of them. All that Unmarshal allocates is below four
	// times Decoded, besides 64 bytes for each table entry and field; it takes
	// milliseconds for each MiB of Decoded.
	Decoded int
	// Skipped is the budget for what is read and thrown away because nobody
	// asked for it, in bytes of the message and 1 for each value.
	Skipped int
}

// Validate returns an error when a limit is negative.
func (l Limits) Validate() error {
	for _, f := range []struct {
		name string
		n    int
	}{
		{"Depth", l.Depth},
		{"Types", l.Types},
		{"Fields", l.Fields},
		{"NumberBytes", l.NumberBytes},
		{"Decoded", l.Decoded},
		{"Skipped", l.Skipped},
	} {
		if f.n < 0 {
			return fmt.Errorf("candid: Limits.%s is %d; give 0 for the default or more", f.name, f.n)
		}
	}
	return nil
}

// String returns the limits in force.
func (l Limits) String() string {
	l = l.resolve()
	return fmt.Sprintf("depth %d, types %d, fields %d, number bytes %d, decoded %d, skipped %d",
		l.Depth, l.Types, l.Fields, l.NumberBytes, l.Decoded, l.Skipped)
}

func (l Limits) resolve() Limits {
	def := func(p *int, n int) {
		if *p == 0 {
			*p = n
		}
	}
	def(&l.Depth, DefaultDepth)
	def(&l.Types, DefaultTypes)
	def(&l.Fields, DefaultFields)
	def(&l.NumberBytes, DefaultNumberBytes)
	def(&l.Decoded, DefaultDecoded)
	def(&l.Skipped, DefaultSkipped)
	return l
}
