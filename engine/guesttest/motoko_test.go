package guesttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/snapstore/snapstore/engine"
)

// message is what a canister is told and answers in one call.
type message struct{ arg, reply []byte }

type messageKey struct{}

// system imitates the few calls that the canister makes; what is not here
// traps.
var system = map[string]func(g *guest, m *message, mem api.Memory, s []uint64) error{
	"msg_arg_data_size": func(_ *guest, m *message, _ api.Memory, s []uint64) error {
		s[0] = uint64(len(m.arg))
		return nil
	},
	"msg_arg_data_copy": func(_ *guest, m *message, mem api.Memory, s []uint64) error {
		return put(mem, s[0], m.arg, s[1], s[2])
	},
	"msg_caller_size": func(_ *guest, _ *message, _ api.Memory, s []uint64) error { s[0] = 1; return nil },
	"msg_caller_copy": func(_ *guest, _ *message, mem api.Memory, s []uint64) error {
		return put(mem, s[0], []byte{4}, s[1], s[2])
	},
	"canister_self_size": func(_ *guest, _ *message, _ api.Memory, s []uint64) error { s[0] = 3; return nil },
	"canister_self_copy": func(_ *guest, _ *message, mem api.Memory, s []uint64) error {
		return put(mem, s[0], []byte{1, 1, 1}, s[1], s[2])
	},
	"is_controller":       func(_ *guest, _ *message, _ api.Memory, s []uint64) error { s[0] = 1; return nil },
	"time":                func(_ *guest, _ *message, _ api.Memory, s []uint64) error { s[0] = 1e18; return nil },
	"performance_counter": func(_ *guest, _ *message, _ api.Memory, s []uint64) error { s[0] = 0; return nil },
	"msg_reply":           func(*guest, *message, api.Memory, []uint64) error { return nil },
	"msg_reply_data_append": func(_ *guest, m *message, mem api.Memory, s []uint64) error {
		b, ok := mem.Read(uint32(s[0]), uint32(s[1]))
		if !ok {
			return errors.New("reply from outside memory")
		}
		m.reply = append(m.reply, b...)
		return nil
	},
	"stable64_size": func(g *guest, _ *message, _ api.Memory, s []uint64) error {
		s[0] = g.stable.Size() / wasmPage
		return nil
	},
	"stable64_grow": func(g *guest, _ *message, _ api.Memory, s []uint64) error {
		was := g.stable.Size()
		err := g.stable.Resize(was + s[0]*wasmPage)
		s[0] = was / wasmPage
		return err
	},
	"stable64_read": func(g *guest, _ *message, mem api.Memory, s []uint64) error {
		b, ok := mem.Read(uint32(s[0]), uint32(s[2]))
		if !ok {
			return errors.New("stable read to outside memory")
		}
		_, err := g.stable.ReadAt(b, int64(s[1]))
		return err
	},
	"stable64_write": func(g *guest, _ *message, mem api.Memory, s []uint64) error {
		b, ok := mem.Read(uint32(s[1]), uint32(s[2]))
		if !ok {
			return errors.New("stable write from outside memory")
		}
		_, err := g.stable.WriteAt(b, int64(s[0]))
		return err
	},
}

func put(mem api.Memory, dst uint64, b []byte, off, n uint64) error {
	if off+n > uint64(len(b)) || !mem.Write(uint32(dst), b[off:off+n]) {
		return fmt.Errorf("copy of %d bytes at %d of %d to %d", n, off, len(b), dst)
	}
	return nil
}

// ic0 gives the module all functions that it imports.
func ic0(compiled wazero.CompiledModule, rt wazero.Runtime) error {
	b := rt.NewHostModuleBuilder("ic0")
	for _, f := range compiled.ImportedFunctions() {
		_, name, _ := f.Import()
		do := system[name]
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, s []uint64) {
			err := fmt.Errorf("ic0.%s is not here", name)
			for i, typ := range f.ParamTypes() {
				if typ == api.ValueTypeI32 {
					s[i] = uint64(uint32(s[i])) // above is whatever was there
				}
			}
			if do != nil {
				err = do(ctx.Value(guestKey{}).(*guest), ctx.Value(messageKey{}).(*message), mod.Memory(), s)
			}
			if err != nil {
				panic(err) // is a trap
			}
		}), f.ParamTypes(), f.ResultTypes()).Export(name)
	}
	_, err := b.Instantiate(bg)
	return err
}

// send calls a method of the canister with a Candid argument.
func (g *guest) send(export string, arg []byte) ([]byte, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := &message{arg: arg}
	f := g.mod.ExportedFunction(export)
	if f == nil {
		return nil, fmt.Errorf("no export %q", export)
	}
	ctx := context.WithValue(context.WithValue(bg, guestKey{}, g), messageKey{}, m)
	_, err := f.Call(ctx)
	return m.reply, err
}

func nat(n uint64) []byte { return binary.AppendUvarint([]byte("DIDL\x00\x01\x7d"), n) }

func nat32s(a, b uint32) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32([]byte("DIDL\x00\x02\x79\x79"), a), b)
}

var nothing = []byte("DIDL\x00\x00")

// A Motoko canister, with its heap, its globals and its stable memory.
func TestRestoreMotoko(t *testing.T) {
	t.Parallel()
	module, err := os.ReadFile(filepath.Join("..", "..", "testdata", "motoko-register", "register.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	inModes(t, func(t *testing.T, mode engine.TrackingMode) {
		p := compile(t, module, nil)
		if err := ic0(p.compiled, p.rt); err != nil {
			t.Fatal(err)
		}
		if len(p.globals) == 0 || p.start == "" {
			t.Fatalf("%d globals, start %q", len(p.globals), p.start)
		}
		begin := func(g *guest) {
			for _, export := range []string{p.start, "canister_init"} {
				if _, err := g.send(export, nothing); err != nil {
					t.Fatalf("%s: %v", export, err)
				}
			}
			// It works at all.
			reply, err := g.send("canister_update put", nat(5))
			if want := append([]byte("DIDL\x00\x01\x7d"), 5); err != nil || !bytes.Equal(reply, want) {
				t.Fatalf("put(5) answers %x, %v, want %x", reply, err, want)
			}
		}
		restores(t, mode, p, begin, func(g *guest, i int) error {
			_, err1 := g.send("canister_update put", nat(uint64(200*i+1)))
			_, err2 := g.send("canister_update keep", nat32s(uint32(9000*i), uint32(i)))
			_, err3 := g.send("canister_update sum", nothing)
			return errors.Join(err1, err2, err3)
		}, 8, 16)
	})
}
