package management

import "github.com/snapstore/snapstore/management/candid"

// The records and variants of the interface (ic.did), with its names as tags.
// A pointer is an opt, or the chosen alternative of a variant.

// CanisterIDArgs names a canister and nothing else. It is the argument of many
// methods.
type CanisterIDArgs struct {
	CanisterID candid.Principal `candid:"canister_id"`
}

// TakeCanisterSnapshotArgs of take_canister_snapshot.
type TakeCanisterSnapshotArgs struct {
	CanisterID            candid.Principal `candid:"canister_id"`
	ReplaceSnapshot       *[]byte          `candid:"replace_snapshot"`
	UninstallCode         *bool            `candid:"uninstall_code"`
	SenderCanisterVersion *uint64          `candid:"sender_canister_version"`
}

// SnapshotRecord describes a snapshot in replies.
type SnapshotRecord struct {
	ID               []byte `candid:"id"`
	TakenAtTimestamp uint64 `candid:"taken_at_timestamp"`
	TotalSize        uint64 `candid:"total_size"`
}

// LoadCanisterSnapshotArgs of load_canister_snapshot.
type LoadCanisterSnapshotArgs struct {
	CanisterID            candid.Principal `candid:"canister_id"`
	SnapshotID            []byte           `candid:"snapshot_id"`
	SenderCanisterVersion *uint64          `candid:"sender_canister_version"`
}

// SnapshotArgs names a snapshot of a canister: delete_canister_snapshot and
// read_canister_snapshot_metadata.
type SnapshotArgs struct {
	CanisterID candid.Principal `candid:"canister_id"`
	SnapshotID []byte           `candid:"snapshot_id"`
}

// SourceVariant says how a snapshot came to be.
type SourceVariant struct {
	candid.Variant
	TakenFromCanister *candid.Reserved `candid:"taken_from_canister"`
	MetadataUpload    *candid.Reserved `candid:"metadata_upload"`
}

// GlobalVariant is the value of a Wasm global.
type GlobalVariant struct {
	candid.Variant
	I32  *int32      `candid:"i32"`
	I64  *int64      `candid:"i64"`
	F32  *float32    `candid:"f32"`
	F64  *float64    `candid:"f64"`
	V128 *candid.Nat `candid:"v128"`
}

// TimerVariant is the global timer.
type TimerVariant struct {
	candid.Variant
	Inactive *candid.Null `candid:"inactive"`
	Active   *uint64      `candid:"active"`
}

// HookVariant is the state of the low-wasm-memory hook.
type HookVariant struct {
	candid.Variant
	ConditionNotSatisfied *candid.Null `candid:"condition_not_satisfied"`
	Ready                 *candid.Null `candid:"ready"`
	Executed              *candid.Null `candid:"executed"`
}

// ChunkHash names an entry of a chunk store.
type ChunkHash struct {
	Hash []byte `candid:"hash"`
}

// ReadCanisterSnapshotMetadataResult of read_canister_snapshot_metadata.
type ReadCanisterSnapshotMetadataResult struct {
	Source                    SourceVariant   `candid:"source"`
	TakenAtTimestamp          uint64          `candid:"taken_at_timestamp"`
	WasmModuleSize            uint64          `candid:"wasm_module_size"`
	Globals                   []GlobalVariant `candid:"globals"`
	WasmMemorySize            uint64          `candid:"wasm_memory_size"`
	StableMemorySize          uint64          `candid:"stable_memory_size"`
	WasmChunkStore            []ChunkHash     `candid:"wasm_chunk_store"`
	CanisterVersion           uint64          `candid:"canister_version"`
	CertifiedData             []byte          `candid:"certified_data"`
	GlobalTimer               *TimerVariant   `candid:"global_timer"`
	OnLowWasmMemoryHookStatus *HookVariant    `candid:"on_low_wasm_memory_hook_status"`
}

// Slice is a part of a section.
type Slice struct {
	Offset uint64 `candid:"offset"`
	Size   uint64 `candid:"size"`
}

// ReadKind chooses what read_canister_snapshot_data reads.
type ReadKind struct {
	candid.Variant
	WasmModule   *Slice     `candid:"wasm_module"`
	WasmMemory   *Slice     `candid:"wasm_memory"`
	StableMemory *Slice     `candid:"stable_memory"`
	WasmChunk    *ChunkHash `candid:"wasm_chunk"`
}

// ReadCanisterSnapshotDataArgs of read_canister_snapshot_data.
type ReadCanisterSnapshotDataArgs struct {
	CanisterID candid.Principal `candid:"canister_id"`
	SnapshotID []byte           `candid:"snapshot_id"`
	Kind       ReadKind         `candid:"kind"`
}

// ReadCanisterSnapshotDataResult of read_canister_snapshot_data.
type ReadCanisterSnapshotDataResult struct {
	Chunk []byte `candid:"chunk"`
}

// UploadCanisterSnapshotMetadataArgs of upload_canister_snapshot_metadata.
type UploadCanisterSnapshotMetadataArgs struct {
	CanisterID                candid.Principal `candid:"canister_id"`
	ReplaceSnapshot           *[]byte          `candid:"replace_snapshot"`
	WasmModuleSize            uint64           `candid:"wasm_module_size"`
	Globals                   []GlobalVariant  `candid:"globals"`
	WasmMemorySize            uint64           `candid:"wasm_memory_size"`
	StableMemorySize          uint64           `candid:"stable_memory_size"`
	CertifiedData             []byte           `candid:"certified_data"`
	GlobalTimer               *TimerVariant    `candid:"global_timer"`
	OnLowWasmMemoryHookStatus *HookVariant     `candid:"on_low_wasm_memory_hook_status"`
}

// UploadCanisterSnapshotMetadataResult of upload_canister_snapshot_metadata.
type UploadCanisterSnapshotMetadataResult struct {
	SnapshotID []byte `candid:"snapshot_id"`
}

// Offset is where an upload writes.
type Offset struct {
	Offset uint64 `candid:"offset"`
}

// WriteKind chooses what upload_canister_snapshot_data writes.
type WriteKind struct {
	candid.Variant
	WasmModule   *Offset      `candid:"wasm_module"`
	WasmMemory   *Offset      `candid:"wasm_memory"`
	StableMemory *Offset      `candid:"stable_memory"`
	WasmChunk    *candid.Null `candid:"wasm_chunk"`
}

// UploadCanisterSnapshotDataArgs of upload_canister_snapshot_data.
type UploadCanisterSnapshotDataArgs struct {
	CanisterID candid.Principal `candid:"canister_id"`
	SnapshotID []byte           `candid:"snapshot_id"`
	Kind       WriteKind        `candid:"kind"`
	Chunk      []byte           `candid:"chunk"`
}

// VisibilityVariant says who may look beside controllers.
type VisibilityVariant struct {
	candid.Variant
	Controllers    *candid.Null        `candid:"controllers"`
	Public         *candid.Null        `candid:"public"`
	AllowedViewers *[]candid.Principal `candid:"allowed_viewers"`
}

// EnvironmentVariable of a canister.
type EnvironmentVariable struct {
	Name  string `candid:"name"`
	Value string `candid:"value"`
}

// CanisterSettings are those to change; what is nil stays.
type CanisterSettings struct {
	Controllers               *[]candid.Principal    `candid:"controllers"`
	ComputeAllocation         *candid.Nat            `candid:"compute_allocation"`
	MemoryAllocation          *candid.Nat            `candid:"memory_allocation"`
	FreezingThreshold         *candid.Nat            `candid:"freezing_threshold"`
	ReservedCyclesLimit       *candid.Nat            `candid:"reserved_cycles_limit"`
	MinimumIncomingCallCycles *candid.Nat            `candid:"minimum_incoming_canister_call_cycles"`
	LogVisibility             *VisibilityVariant     `candid:"log_visibility"`
	LogMemoryLimit            *candid.Nat            `candid:"log_memory_limit"`
	SnapshotVisibility        *VisibilityVariant     `candid:"snapshot_visibility"`
	StatusVisibility          *VisibilityVariant     `candid:"status_visibility"`
	WasmMemoryLimit           *candid.Nat            `candid:"wasm_memory_limit"`
	WasmMemoryThreshold       *candid.Nat            `candid:"wasm_memory_threshold"`
	EnvironmentVariables      *[]EnvironmentVariable `candid:"environment_variables"`
}

// DefiniteCanisterSettings are those in force.
type DefiniteCanisterSettings struct {
	Controllers               []candid.Principal    `candid:"controllers"`
	ComputeAllocation         candid.Nat            `candid:"compute_allocation"`
	MemoryAllocation          candid.Nat            `candid:"memory_allocation"`
	FreezingThreshold         candid.Nat            `candid:"freezing_threshold"`
	ReservedCyclesLimit       candid.Nat            `candid:"reserved_cycles_limit"`
	MinimumIncomingCallCycles candid.Nat            `candid:"minimum_incoming_canister_call_cycles"`
	LogVisibility             VisibilityVariant     `candid:"log_visibility"`
	LogMemoryLimit            candid.Nat            `candid:"log_memory_limit"`
	SnapshotVisibility        VisibilityVariant     `candid:"snapshot_visibility"`
	StatusVisibility          VisibilityVariant     `candid:"status_visibility"`
	WasmMemoryLimit           candid.Nat            `candid:"wasm_memory_limit"`
	WasmMemoryThreshold       candid.Nat            `candid:"wasm_memory_threshold"`
	EnvironmentVariables      []EnvironmentVariable `candid:"environment_variables"`
}

// CreateCanisterArgs of create_canister.
type CreateCanisterArgs struct {
	Settings              *CanisterSettings `candid:"settings"`
	SenderCanisterVersion *uint64           `candid:"sender_canister_version"`
}

// CreateCanisterResult of create_canister and its provisional form.
type CreateCanisterResult struct {
	CanisterID candid.Principal `candid:"canister_id"`
}

// ProvisionalCreateArgs of provisional_create_canister_with_cycles.
type ProvisionalCreateArgs struct {
	Amount                *candid.Nat       `candid:"amount"`
	Settings              *CanisterSettings `candid:"settings"`
	SpecifiedID           *candid.Principal `candid:"specified_id"`
	SenderCanisterVersion *uint64           `candid:"sender_canister_version"`
}

// ProvisionalTopUpArgs of provisional_top_up_canister.
type ProvisionalTopUpArgs struct {
	CanisterID candid.Principal `candid:"canister_id"`
	Amount     candid.Nat       `candid:"amount"`
}

// UpdateSettingsArgs of update_settings.
type UpdateSettingsArgs struct {
	CanisterID            candid.Principal `candid:"canister_id"`
	Settings              CanisterSettings `candid:"settings"`
	SenderCanisterVersion *uint64          `candid:"sender_canister_version"`
}

// PersistenceVariant says what an upgrade does with the main memory.
type PersistenceVariant struct {
	candid.Variant
	Keep    *candid.Null `candid:"keep"`
	Replace *candid.Null `candid:"replace"`
}

// UpgradeFlags of an upgrade.
type UpgradeFlags struct {
	SkipPreUpgrade        *bool               `candid:"skip_pre_upgrade"`
	WasmMemoryPersistence *PersistenceVariant `candid:"wasm_memory_persistence"`
}

// InstallMode chooses what install_code does.
type InstallMode struct {
	candid.Variant
	Install   *candid.Null   `candid:"install"`
	Reinstall *candid.Null   `candid:"reinstall"`
	Upgrade   **UpgradeFlags `candid:"upgrade"`
}

// InstallCodeArgs of install_code.
type InstallCodeArgs struct {
	Mode                  InstallMode      `candid:"mode"`
	CanisterID            candid.Principal `candid:"canister_id"`
	WasmModule            []byte           `candid:"wasm_module"`
	Arg                   []byte           `candid:"arg"`
	SenderCanisterVersion *uint64          `candid:"sender_canister_version"`
}

// UninstallCodeArgs of uninstall_code.
type UninstallCodeArgs struct {
	CanisterID            candid.Principal `candid:"canister_id"`
	SenderCanisterVersion *uint64          `candid:"sender_canister_version"`
}

// UploadChunkArgs of upload_chunk.
type UploadChunkArgs struct {
	CanisterID candid.Principal `candid:"canister_id"`
	Chunk      []byte           `candid:"chunk"`
}

// StatusVariant is what a canister does.
type StatusVariant struct {
	candid.Variant
	Running  *candid.Null `candid:"running"`
	Stopping *candid.Null `candid:"stopping"`
	Stopped  *candid.Null `candid:"stopped"`
}

// MemoryMetrics are logical bytes by what they are for.
type MemoryMetrics struct {
	WasmMemorySize      candid.Nat `candid:"wasm_memory_size"`
	StableMemorySize    candid.Nat `candid:"stable_memory_size"`
	GlobalMemorySize    candid.Nat `candid:"global_memory_size"`
	WasmBinarySize      candid.Nat `candid:"wasm_binary_size"`
	CustomSectionsSize  candid.Nat `candid:"custom_sections_size"`
	CanisterHistorySize candid.Nat `candid:"canister_history_size"`
	WasmChunkStoreSize  candid.Nat `candid:"wasm_chunk_store_size"`
	SnapshotsSize       candid.Nat `candid:"snapshots_size"`
	LogMemoryStoreSize  candid.Nat `candid:"log_memory_store_size"`
}

// QueryStatsRecord counts queries; the Host knows.
type QueryStatsRecord struct {
	NumCallsTotal             candid.Nat `candid:"num_calls_total"`
	NumInstructionsTotal      candid.Nat `candid:"num_instructions_total"`
	RequestPayloadBytesTotal  candid.Nat `candid:"request_payload_bytes_total"`
	ResponsePayloadBytesTotal candid.Nat `candid:"response_payload_bytes_total"`
}

// CanisterStatusResult of canister_status. It has every field that any client
// in use demands; older ones skip what they do not know.
type CanisterStatusResult struct {
	Status                 StatusVariant            `candid:"status"`
	ReadyForMigration      bool                     `candid:"ready_for_migration"`
	Version                uint64                   `candid:"version"`
	Settings               DefiniteCanisterSettings `candid:"settings"`
	ModuleHash             *[]byte                  `candid:"module_hash"`
	MemorySize             candid.Nat               `candid:"memory_size"`
	MemoryMetrics          MemoryMetrics            `candid:"memory_metrics"`
	Cycles                 candid.Nat               `candid:"cycles"`
	ReservedCycles         candid.Nat               `candid:"reserved_cycles"`
	IdleCyclesBurnedPerDay candid.Nat               `candid:"idle_cycles_burned_per_day"`
	QueryStats             QueryStatsRecord         `candid:"query_stats"`
}

// CanisterInfoArgs of canister_info.
type CanisterInfoArgs struct {
	CanisterID          candid.Principal `candid:"canister_id"`
	NumRequestedChanges *uint64          `candid:"num_requested_changes"`
}

// FromUser and FromCanister say who made a change.
type (
	FromUser struct {
		UserID candid.Principal `candid:"user_id"`
	}
	FromCanister struct {
		CanisterID      candid.Principal `candid:"canister_id"`
		CanisterVersion *uint64          `candid:"canister_version"`
	}
)

// OriginVariant says who made a change.
type OriginVariant struct {
	candid.Variant
	FromUser     *FromUser     `candid:"from_user"`
	FromCanister *FromCanister `candid:"from_canister"`
}

// CreationDetails of a change.
type CreationDetails struct {
	Controllers              []candid.Principal `candid:"controllers"`
	EnvironmentVariablesHash *[]byte            `candid:"environment_variables_hash"`
}

// DeploymentMode of a change.
type DeploymentMode struct {
	candid.Variant
	Install   *candid.Null `candid:"install"`
	Reinstall *candid.Null `candid:"reinstall"`
	Upgrade   *candid.Null `candid:"upgrade"`
}

// DeploymentDetails of a change.
type DeploymentDetails struct {
	Mode       DeploymentMode `candid:"mode"`
	ModuleHash []byte         `candid:"module_hash"`
}

// LoadDetails of a change.
type LoadDetails struct {
	FromCanisterID   *candid.Principal `candid:"from_canister_id"`
	SnapshotID       []byte            `candid:"snapshot_id"`
	CanisterVersion  uint64            `candid:"canister_version"`
	TakenAtTimestamp uint64            `candid:"taken_at_timestamp"`
	Source           SourceVariant     `candid:"source"`
}

// ControllersDetails of a change.
type ControllersDetails struct {
	Controllers []candid.Principal `candid:"controllers"`
}

// DetailsVariant says what a change was.
type DetailsVariant struct {
	candid.Variant
	Creation          *CreationDetails    `candid:"creation"`
	CodeUninstall     *candid.Null        `candid:"code_uninstall"`
	CodeDeployment    *DeploymentDetails  `candid:"code_deployment"`
	LoadSnapshot      *LoadDetails        `candid:"load_snapshot"`
	ControllersChange *ControllersDetails `candid:"controllers_change"`
}

// Change is an entry of a canister's history.
type Change struct {
	TimestampNanos  uint64         `candid:"timestamp_nanos"`
	CanisterVersion uint64         `candid:"canister_version"`
	Origin          OriginVariant  `candid:"origin"`
	Details         DetailsVariant `candid:"details"`
}

// CanisterInfoResult of canister_info.
type CanisterInfoResult struct {
	TotalNumChanges uint64             `candid:"total_num_changes"`
	RecentChanges   []Change           `candid:"recent_changes"`
	ModuleHash      *[]byte            `candid:"module_hash"`
	Controllers     []candid.Principal `candid:"controllers"`
}

// RenameTo of rename_canister.
type RenameTo struct {
	CanisterID      candid.Principal `candid:"canister_id"`
	Version         uint64           `candid:"version"`
	TotalNumChanges uint64           `candid:"total_num_changes"`
}

// RenameCanisterArgs of rename_canister, a call between subnets.
type RenameCanisterArgs struct {
	CanisterID            candid.Principal `candid:"canister_id"`
	RenameTo              RenameTo         `candid:"rename_to"`
	RequestedBy           candid.Principal `candid:"requested_by"`
	SenderCanisterVersion uint64           `candid:"sender_canister_version"`
}

// TakeSnapshotArgs of take_snapshot, as first proposed.
type TakeSnapshotArgs struct {
	CanisterID      candid.Principal `candid:"canister_id"`
	ReplaceSnapshot *[]byte          `candid:"replace_snapshot"`
}
