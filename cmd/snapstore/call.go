package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/principal"
	"github.com/snapstore/snapstore/management"
	"github.com/snapstore/snapstore/management/candid"
)

// anonymous is who calls without an identity.
const anonymous = "2vxsx-fae"

// longestArg is read of an argument: more than the 10 MiB that the management
// canister takes, which is what refuses a longer one.
const longestArg = 16 << 20

type callOptions struct {
	caller, arg, argFile string
}

func newCallCommand(a *app) *cobra.Command {
	o := &callOptions{}
	cmd := &cobra.Command{
		Use:   "call METHOD",
		Short: "Call the management canister",
		Long: `Call a method of the management canister, as a user whose message reaches it
would, and print the reply. Argument and reply are Candid, in hex; without an
argument the message is an empty one. A reject has exit code 4.

The canisters are those that were made by calls. The store stands for a subnet
of 13 nodes with no other canisters on it, on which no code runs and cycles cost
nothing: the provisional methods make them. The methods are
  ` + strings.Join(management.Methods(), "\n  "),
		Example: `  snapstore call list_canister_snapshots --arg 4449444c016c01b3c4b1f204680100010a00000000000000020101
  snapstore call provisional_create_canister_with_cycles --caller rrkah-fqaaa-aaaaa-aaaaq-cai --arg-file create.bin
  snapstore call upload_canister_snapshot_data --arg-file - --json`,
		Args:      args(1, 1, "a method"),
		ValidArgs: management.Methods(),
		RunE:      func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, c.InOrStdin(), args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.caller, "caller", anonymous, "principal who calls")
	f.StringVar(&o.arg, "arg", "", "argument, hex")
	f.StringVar(&o.argFile, "arg-file", "", "file with the argument, binary; - is standard input")
	return cmd
}

// callResult is the JSON of call: the reply, or the other three.
type callResult struct {
	ReplyHex   string `json:"reply_hex,omitempty"`
	RejectCode uint8  `json:"reject_code,omitempty"`
	ErrorCode  string `json:"error_code,omitempty"`
	Message    string `json:"message,omitempty"`
}

func (r callResult) ids() []string { return []string{r.ReplyHex} }

func (r callResult) text(w io.Writer) { fmt.Fprintln(w, r.ReplyHex) }

func (o *callOptions) run(ctx context.Context, a *app, stdin io.Reader, method string) error {
	by, err := parseCaller(o.caller)
	if err != nil {
		return err
	}
	arg, err := o.argument(stdin)
	if err != nil {
		return err
	}
	return a.withStore(ctx, a.writing(), func(e *engine.Engine) error {
		s, err := management.New(ctx, e, nil, &management.Config{Provisional: true})
		if err != nil {
			return err
		}
		reply, err := s.Call(ctx, by, method, arg)
		var r *management.Reject
		switch {
		case err == nil:
		case !errors.As(err, &r):
			return err
		case r.Err != nil:
			// Not the call but the store; its own words say more.
			return r.Err
		}
		if err := keep(ctx, s, method, arg); err != nil {
			return err
		}
		if r == nil {
			return a.emit(callResult{ReplyHex: hex.EncodeToString(reply)})
		}
		if a.json {
			if err := a.emit(callResult{RejectCode: uint8(r.Code), ErrorCode: r.ErrorCode.String(), Message: r.Message}); err != nil {
				return err
			}
		}
		return fail(exitReject, rejectHint(r.ErrorCode), "%v, %v: %w", r.Code, r.ErrorCode, errors.New(r.Message))
	})
}

func parseCaller(text string) (management.Caller, error) {
	p, err := principal.Parse(text)
	if err != nil {
		return management.Caller{}, usageError("pass --caller with the text of a principal, such as "+anonymous, "caller %q: %w", clip(text), err)
	}
	return management.Caller{Principal: p}, nil
}

// argument is what the flags name; an empty message when they name nothing.
func (o *callOptions) argument(stdin io.Reader) ([]byte, error) {
	switch {
	case o.arg != "" && o.argFile != "":
		return nil, usageError("choose one of them", "--arg and --arg-file exclude each other")
	case o.arg != "":
		arg, err := hex.DecodeString(o.arg)
		if err != nil {
			return nil, usageError("pass --arg with the bytes of a Candid message in hex, or --arg-file", "argument %q: %w", clip(o.arg), err)
		}
		return arg, nil
	case o.argFile == "":
		return candid.Marshal()
	case o.argFile == "-":
		return readArgument(stdin)
	}
	f, err := os.Open(o.argFile)
	if err != nil {
		return nil, usageError("pass --arg-file with a file that can be read", "%w", err)
	}
	defer f.Close()
	return readArgument(f)
}

func readArgument(r io.Reader) ([]byte, error) {
	arg, err := io.ReadAll(io.LimitReader(r, longestArg))
	if err != nil {
		return nil, fmt.Errorf("reading the argument: %w", err)
	}
	return arg, nil
}

// keep makes durable what reading and writing the data of snapshots leaves in
// memory, fees above all; other methods have done so when they return. The
// canister may turn out not to be there.
func keep(ctx context.Context, s *management.Service, method string, arg []byte) error {
	if method != "read_canister_snapshot_data" && method != "upload_canister_snapshot_data" {
		return nil
	}
	var of management.CanisterIDArgs
	if candid.Unmarshal(arg, candid.Limits{Skipped: len(arg) + candid.DefaultSkipped}, &of) != nil {
		return nil // so the call did nothing
	}
	id, err := engine.CanisterIDFromBytes(of.CanisterID)
	if err != nil {
		return nil
	}
	err = s.Flush(ctx, id)
	var r *management.Reject
	if errors.As(err, &r) {
		if r.ErrorCode == management.CodeCanisterNotFound {
			return nil
		}
		if r.Err != nil {
			return r.Err
		}
	}
	return err
}

// rejectHint says what to do about a reject.
func rejectHint(code management.ErrorCode) string {
	switch code {
	case management.CodeCanisterNotFound:
		return `calls know the canisters that calls made: make one with "snapstore call provisional_create_canister_with_cycles"`
	case management.CodeCanisterInvalidController:
		return "pass --caller with a controller of the canister"
	case management.CodeUnknownManagementMessage:
		return `"snapstore help call" lists the methods`
	case management.CodeInvalidManagementPayload:
		return "look at the argument: what it is, or asks for, is out of bounds"
	case management.CodeCanisterSnapshotNotFound:
		return `"snapstore snapshot ls" lists what is there`
	case management.CodeCanisterOutOfCycles, management.CodeInsufficientCyclesMemoryGrow, management.CodeInsufficientCyclesMemoryAllocation:
		return `"snapstore call provisional_top_up_canister" gives a canister cycles`
	default:
		return "nothing was changed; do away with what stands against the call, then make it again"
	}
}
