package management

import (
	"fmt"

	"github.com/snapstore/snapstore/engine"
	"github.com/snapstore/snapstore/internal/principal"
)

// RejectCode is the coarse class of a reject (interface spec, reject codes).
type RejectCode uint8

// The reject codes.
const (
	SysFatal           RejectCode = 1
	SysTransient       RejectCode = 2
	DestinationInvalid RejectCode = 3
	CanisterReject     RejectCode = 4
	CanisterError      RejectCode = 5
)

func (c RejectCode) String() string {
	switch c {
	case SysFatal:
		return "SYS_FATAL"
	case SysTransient:
		return "SYS_TRANSIENT"
	case DestinationInvalid:
		return "DESTINATION_INVALID"
	case CanisterReject:
		return "CANISTER_REJECT"
	case CanisterError:
		return "CANISTER_ERROR"
	}
	return fmt.Sprintf("reject-%d", uint8(c))
}

// ErrorCode is the exact class of a reject; its first digit is the RejectCode.
type ErrorCode uint16

// The error codes in use, by the names of the replica.
const (
	CodeSubnetOversubscribed                  ErrorCode = 101
	CodeMaxNumberOfCanistersReached           ErrorCode = 102
	CodeStorage                               ErrorCode = 199 // ours: the engine failed
	CodeCanisterIDAlreadyExists               ErrorCode = 205
	CodeStopCanisterRequestTimeout            ErrorCode = 206
	CodeCanisterOutOfCycles                   ErrorCode = 207
	CodeCanisterHeapDeltaRateLimited          ErrorCode = 210
	CodeStorageBusy                           ErrorCode = 299 // ours: the engine asks to try again
	CodeCanisterNotFound                      ErrorCode = 301
	CodeCanisterSnapshotNotFound              ErrorCode = 305
	CodeInsufficientCyclesForCreateCanister   ErrorCode = 403
	CodeCanisterRejectedMessage               ErrorCode = 406
	CodeUnknownManagementMessage              ErrorCode = 407
	CodeInvalidManagementPayload              ErrorCode = 408
	CodeCanisterSnapshotImmutable             ErrorCode = 409
	CodeCanisterTrapped                       ErrorCode = 502
	CodeCanisterContractViolation             ErrorCode = 504
	CodeCanisterInvalidWasm                   ErrorCode = 505
	CodeCanisterStopped                       ErrorCode = 508
	CodeCanisterNotStopped                    ErrorCode = 510
	CodeCanisterStoppingCancelled             ErrorCode = 511
	CodeCanisterInvalidController             ErrorCode = 512
	CodeCanisterNonEmpty                      ErrorCode = 514
	CodeInsufficientCyclesComputeAllocation   ErrorCode = 530
	CodeInsufficientCyclesMemoryAllocation    ErrorCode = 531
	CodeInsufficientCyclesMemoryGrow          ErrorCode = 532
	CodeReservedCyclesLimitInMemoryAllocation ErrorCode = 533
	CodeReservedCyclesLimitInMemoryGrow       ErrorCode = 534
	CodeCanisterWasmModuleNotFound            ErrorCode = 537
	CodeReservedCyclesLimitIsTooLow           ErrorCode = 540
)

// Reject gives the coarse class.
func (c ErrorCode) Reject() RejectCode { return RejectCode(c / 100) }

// String is the form that replicas print: IC0 and three digits.
func (c ErrorCode) String() string { return fmt.Sprintf("IC0%03d", uint16(c)) }

// Reject is the answer to a call that was not carried out.
type Reject struct {
	Code      RejectCode
	ErrorCode ErrorCode
	Message   string
	// Err is the engine's error where one is the reason; it is not shown to
	// the caller.
	Err error
}

func (r *Reject) Error() string { return fmt.Sprintf("%v: %s", r.ErrorCode, r.Message) }

func (r *Reject) Unwrap() error { return r.Err }

func reject(code ErrorCode, format string, args ...any) *Reject {
	return &Reject{Code: code.Reject(), ErrorCode: code, Message: fmt.Sprintf(format, args...)}
}

// text is the text form of a principal.
func text(p []byte) string { return principal.Encode(p) }

// snapText is how messages name a snapshot: the canister and the counter.
func snapText(id engine.SnapshotID) string { return fmt.Sprintf("%s-%d", id.Canister, id.Local) }

func notFound(id engine.CanisterID) *Reject {
	return reject(CodeCanisterNotFound, "Canister %s not found.", id)
}

func snapshotNotFound(c engine.CanisterID, id engine.SnapshotID) *Reject {
	return reject(CodeCanisterSnapshotNotFound, "Could not find the snapshot ID %s for canister %s.", snapText(id), c)
}

func wrongOwner(c engine.CanisterID, id engine.SnapshotID) *Reject {
	return reject(CodeCanisterRejectedMessage, "The snapshot %s does not belong to canister %s.", snapText(id), c)
}

func undecodable(err error) *Reject {
	return reject(CodeInvalidManagementPayload, "Error decoding candid: %v", err)
}

func invalid(format string, args ...any) *Reject {
	return reject(CodeInvalidManagementPayload, format, args...)
}

func invalidMetadata(format string, args ...any) *Reject {
	return invalid("Snapshot Metadata contains invalid data: "+format, args...)
}

func chunkStoreError(format string, args ...any) *Reject {
	return reject(CodeCanisterContractViolation, "Error from Wasm chunk store: "+format, args...)
}
