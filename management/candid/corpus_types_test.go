package candid

// The types of the management canister, as testdata/make.mjs declares them.

type opt[T any] = *T

type visibility struct {
	Variant
	Controllers *Null        `candid:"controllers"`
	Public      *Null        `candid:"public"`
	Viewers     *[]Principal `candid:"allowed_viewers"`
}

type environment struct {
	Name  string `candid:"name"`
	Value string `candid:"value"`
}

type settings struct {
	Controllers           opt[[]Principal]   `candid:"controllers"`
	ComputeAllocation     opt[Nat]           `candid:"compute_allocation"`
	MemoryAllocation      opt[Nat]           `candid:"memory_allocation"`
	FreezingThreshold     opt[Nat]           `candid:"freezing_threshold"`
	ReservedCyclesLimit   opt[Nat]           `candid:"reserved_cycles_limit"`
	MinimumIncomingCycles opt[Nat]           `candid:"minimum_incoming_canister_call_cycles"`
	LogVisibility         opt[visibility]    `candid:"log_visibility"`
	SnapshotVisibility    opt[visibility]    `candid:"snapshot_visibility"`
	StatusVisibility      opt[visibility]    `candid:"status_visibility"`
	WasmMemoryLimit       opt[Nat]           `candid:"wasm_memory_limit"`
	WasmMemoryThreshold   opt[Nat]           `candid:"wasm_memory_threshold"`
	LogMemoryLimit        opt[Nat]           `candid:"log_memory_limit"`
	Environment           opt[[]environment] `candid:"environment_variables"`
}

type definiteSettings struct {
	Controllers           []Principal   `candid:"controllers"`
	ComputeAllocation     Nat           `candid:"compute_allocation"`
	MemoryAllocation      Nat           `candid:"memory_allocation"`
	FreezingThreshold     Nat           `candid:"freezing_threshold"`
	ReservedCyclesLimit   Nat           `candid:"reserved_cycles_limit"`
	MinimumIncomingCycles Nat           `candid:"minimum_incoming_canister_call_cycles"`
	LogVisibility         visibility    `candid:"log_visibility"`
	SnapshotVisibility    visibility    `candid:"snapshot_visibility"`
	StatusVisibility      visibility    `candid:"status_visibility"`
	WasmMemoryLimit       Nat           `candid:"wasm_memory_limit"`
	WasmMemoryThreshold   Nat           `candid:"wasm_memory_threshold"`
	LogMemoryLimit        Nat           `candid:"log_memory_limit"`
	Environment           []environment `candid:"environment_variables"`
}

type global struct {
	Variant
	I32  *int32   `candid:"i32"`
	I64  *int64   `candid:"i64"`
	F32  *float32 `candid:"f32"`
	F64  *float64 `candid:"f64"`
	V128 *Nat     `candid:"v128"`
}

type timer struct {
	Variant
	Inactive *Null   `candid:"inactive"`
	Active   *uint64 `candid:"active"`
}

type hookStatus struct {
	Variant
	NotSatisfied *Null `candid:"condition_not_satisfied"`
	Ready        *Null `candid:"ready"`
	Executed     *Null `candid:"executed"`
}

type chunkHash struct {
	Hash []byte `candid:"hash"`
}

type persistence struct {
	Variant
	Keep    *Null `candid:"keep"`
	Replace *Null `candid:"replace"`
}

type upgradeOptions struct {
	SkipPreUpgrade opt[bool]        `candid:"skip_pre_upgrade"`
	Persistence    opt[persistence] `candid:"wasm_memory_persistence"`
}

type installMode struct {
	Variant
	Install   *Null                `candid:"install"`
	Reinstall *Null                `candid:"reinstall"`
	Upgrade   *opt[upgradeOptions] `candid:"upgrade"`
}

type origin struct {
	Variant
	User *struct {
		UserID Principal `candid:"user_id"`
	} `candid:"from_user"`
	Canister *struct {
		CanisterID Principal   `candid:"canister_id"`
		Version    opt[uint64] `candid:"canister_version"`
	} `candid:"from_canister"`
}

type changeDetails struct {
	Variant
	Creation *struct {
		Controllers     []Principal `candid:"controllers"`
		EnvironmentHash opt[[]byte] `candid:"environment_variables_hash"`
	} `candid:"creation"`
	Uninstall  *Null `candid:"code_uninstall"`
	Deployment *struct {
		Mode struct {
			Variant
			Install   *Null `candid:"install"`
			Reinstall *Null `candid:"reinstall"`
			Upgrade   *Null `candid:"upgrade"`
		} `candid:"mode"`
		ModuleHash []byte `candid:"module_hash"`
	} `candid:"code_deployment"`
	Load *struct {
		From     opt[Principal] `candid:"from_canister_id"`
		Snapshot snapshotID     `candid:"snapshot_id"`
		Version  uint64         `candid:"canister_version"`
		TakenAt  uint64         `candid:"taken_at_timestamp"`
		Source   source         `candid:"source"`
	} `candid:"load_snapshot"`
	Controllers *struct {
		Controllers []Principal `candid:"controllers"`
	} `candid:"controllers_change"`
	Rename *struct {
		CanisterID Principal `candid:"canister_id"`
		Total      uint64    `candid:"total_num_changes"`
		To         struct {
			CanisterID Principal `candid:"canister_id"`
			Version    uint64    `candid:"version"`
			Total      uint64    `candid:"total_num_changes"`
		} `candid:"rename_to"`
		By Principal `candid:"requested_by"`
	} `candid:"rename_canister"`
}

type canisterStatus struct {
	Variant
	Running  *Null `candid:"running"`
	Stopping *Null `candid:"stopping"`
	Stopped  *Null `candid:"stopped"`
}

type offset struct {
	Offset uint64 `candid:"offset"`
}

type slice struct {
	Offset uint64 `candid:"offset"`
	Size   uint64 `candid:"size"`
}

type (
	takeArgs struct {
		CanisterID    Principal       `candid:"canister_id"`
		Replace       opt[snapshotID] `candid:"replace_snapshot"`
		Uninstall     opt[bool]       `candid:"uninstall_code"`
		SenderVersion opt[uint64]     `candid:"sender_canister_version"`
	}
	loadArgs struct {
		CanisterID    Principal   `candid:"canister_id"`
		SnapshotID    snapshotID  `candid:"snapshot_id"`
		SenderVersion opt[uint64] `candid:"sender_canister_version"`
	}
	snapshotIDArgs struct {
		CanisterID Principal  `candid:"canister_id"`
		SnapshotID snapshotID `candid:"snapshot_id"`
	}
	readMetadataResult struct {
		Source          source          `candid:"source"`
		TakenAt         uint64          `candid:"taken_at_timestamp"`
		ModuleSize      uint64          `candid:"wasm_module_size"`
		Globals         []global        `candid:"globals"`
		MemorySize      uint64          `candid:"wasm_memory_size"`
		StableSize      uint64          `candid:"stable_memory_size"`
		ChunkStore      []chunkHash     `candid:"wasm_chunk_store"`
		CanisterVersion uint64          `candid:"canister_version"`
		CertifiedData   []byte          `candid:"certified_data"`
		Timer           opt[timer]      `candid:"global_timer"`
		Hook            opt[hookStatus] `candid:"on_low_wasm_memory_hook_status"`
	}
	readDataArgs struct {
		CanisterID Principal  `candid:"canister_id"`
		SnapshotID snapshotID `candid:"snapshot_id"`
		Kind       struct {
			Variant
			Module *slice     `candid:"wasm_module"`
			Memory *slice     `candid:"wasm_memory"`
			Stable *slice     `candid:"stable_memory"`
			Chunk  *chunkHash `candid:"wasm_chunk"`
		} `candid:"kind"`
	}
	readDataResult struct {
		Chunk []byte `candid:"chunk"`
	}
	uploadMetadataArgs struct {
		CanisterID    Principal       `candid:"canister_id"`
		Replace       opt[snapshotID] `candid:"replace_snapshot"`
		ModuleSize    uint64          `candid:"wasm_module_size"`
		Globals       []global        `candid:"globals"`
		MemorySize    uint64          `candid:"wasm_memory_size"`
		StableSize    uint64          `candid:"stable_memory_size"`
		CertifiedData []byte          `candid:"certified_data"`
		Timer         opt[timer]      `candid:"global_timer"`
		Hook          opt[hookStatus] `candid:"on_low_wasm_memory_hook_status"`
	}
	uploadMetadataResult struct {
		SnapshotID snapshotID `candid:"snapshot_id"`
	}
	uploadDataArgs struct {
		CanisterID Principal  `candid:"canister_id"`
		SnapshotID snapshotID `candid:"snapshot_id"`
		Kind       struct {
			Variant
			Module *offset `candid:"wasm_module"`
			Memory *offset `candid:"wasm_memory"`
			Stable *offset `candid:"stable_memory"`
			Chunk  *Null   `candid:"wasm_chunk"`
		} `candid:"kind"`
		Chunk []byte `candid:"chunk"`
	}
	createArgs struct {
		Settings      opt[settings] `candid:"settings"`
		SenderVersion opt[uint64]   `candid:"sender_canister_version"`
	}
	provisionalCreateArgs struct {
		Amount        opt[Nat]       `candid:"amount"`
		Settings      opt[settings]  `candid:"settings"`
		SpecifiedID   opt[Principal] `candid:"specified_id"`
		SenderVersion opt[uint64]    `candid:"sender_canister_version"`
	}
	topUpArgs struct {
		CanisterID Principal `candid:"canister_id"`
		Amount     Nat       `candid:"amount"`
	}
	installArgs struct {
		Mode          installMode `candid:"mode"`
		CanisterID    Principal   `candid:"canister_id"`
		Module        []byte      `candid:"wasm_module"`
		Arg           []byte      `candid:"arg"`
		SenderVersion opt[uint64] `candid:"sender_canister_version"`
	}
	installChunkedArgs struct {
		Mode          installMode    `candid:"mode"`
		Target        Principal      `candid:"target_canister"`
		Store         opt[Principal] `candid:"store_canister"`
		Chunks        []chunkHash    `candid:"chunk_hashes_list"`
		ModuleHash    []byte         `candid:"wasm_module_hash"`
		Arg           []byte         `candid:"arg"`
		SenderVersion opt[uint64]    `candid:"sender_canister_version"`
	}
	uninstallArgs struct {
		CanisterID    Principal   `candid:"canister_id"`
		SenderVersion opt[uint64] `candid:"sender_canister_version"`
	}
	updateSettingsArgs struct {
		CanisterID    Principal   `candid:"canister_id"`
		Settings      settings    `candid:"settings"`
		SenderVersion opt[uint64] `candid:"sender_canister_version"`
	}
	statusResult struct {
		Status     canisterStatus   `candid:"status"`
		Ready      bool             `candid:"ready_for_migration"`
		Version    uint64           `candid:"version"`
		Settings   definiteSettings `candid:"settings"`
		ModuleHash opt[[]byte]      `candid:"module_hash"`
		MemorySize Nat              `candid:"memory_size"`
		Metrics    struct {
			Memory         Nat `candid:"wasm_memory_size"`
			Stable         Nat `candid:"stable_memory_size"`
			Globals        Nat `candid:"global_memory_size"`
			Binary         Nat `candid:"wasm_binary_size"`
			CustomSections Nat `candid:"custom_sections_size"`
			History        Nat `candid:"canister_history_size"`
			ChunkStore     Nat `candid:"wasm_chunk_store_size"`
			Snapshots      Nat `candid:"snapshots_size"`
			Log            Nat `candid:"log_memory_store_size"`
		} `candid:"memory_metrics"`
		Cycles         Nat `candid:"cycles"`
		ReservedCycles Nat `candid:"reserved_cycles"`
		IdleCycles     Nat `candid:"idle_cycles_burned_per_day"`
		QueryStats     struct {
			Calls        Nat `candid:"num_calls_total"`
			Instructions Nat `candid:"num_instructions_total"`
			Requests     Nat `candid:"request_payload_bytes_total"`
			Responses    Nat `candid:"response_payload_bytes_total"`
		} `candid:"query_stats"`
	}
	infoArgs struct {
		CanisterID Principal   `candid:"canister_id"`
		Changes    opt[uint64] `candid:"num_requested_changes"`
	}
	infoResult struct {
		Total   uint64 `candid:"total_num_changes"`
		Changes []struct {
			Time    uint64        `candid:"timestamp_nanos"`
			Version uint64        `candid:"canister_version"`
			Origin  origin        `candid:"origin"`
			Details changeDetails `candid:"details"`
		} `candid:"recent_changes"`
		ModuleHash  opt[[]byte] `candid:"module_hash"`
		Controllers []Principal `candid:"controllers"`
	}
	uploadChunkArgs struct {
		CanisterID Principal `candid:"canister_id"`
		Chunk      []byte    `candid:"chunk"`
	}
)

type primitives struct {
	Null      Null             `candid:"null"`
	Bool      bool             `candid:"bool"`
	Nat       Nat              `candid:"nat"`
	Int       Int              `candid:"int"`
	Nat8      uint8            `candid:"nat8"`
	Nat16     uint16           `candid:"nat16"`
	Nat32     uint32           `candid:"nat32"`
	Nat64     uint64           `candid:"nat64"`
	Int8      int8             `candid:"int8"`
	Int16     int16            `candid:"int16"`
	Int32     int32            `candid:"int32"`
	Int64     int64            `candid:"int64"`
	Float32   float32          `candid:"float32"`
	Float64   float64          `candid:"float64"`
	Text      string           `candid:"text"`
	Reserved  Reserved         `candid:"reserved"`
	Principal Principal        `candid:"principal"`
	OptEmpty  opt[Empty]       `candid:"opt_empty"`
	OptOpt    opt[opt[uint16]] `candid:"opt_opt"`
	VecVec    [][]uint32       `candid:"vec_vec"`
	Record    struct{}         `candid:"empty_record"`
}

type tuple struct {
	A Nat    `candid:"0"`
	B string `candid:"1"`
	C bool   `candid:"2"`
}

type linkedList struct {
	Head Int             `candid:"head"`
	Tail opt[linkedList] `candid:"tail"`
}

// corpusTypes returns a new destination for each type of the corpus.
func corpusTypes() map[string]any {
	return map[string]any{
		"take_canister_snapshot_args":                  new(takeArgs),
		"take_canister_snapshot_result":                new(snapshot),
		"load_canister_snapshot_args":                  new(loadArgs),
		"canister_id_args":                             new(listArgs),
		"list_canister_snapshots_result":               new([]snapshot),
		"snapshot_id_args":                             new(snapshotIDArgs),
		"read_canister_snapshot_metadata_result":       new(readMetadataResult),
		"read_canister_snapshot_data_args":             new(readDataArgs),
		"read_canister_snapshot_data_result":           new(readDataResult),
		"upload_canister_snapshot_metadata_args":       new(uploadMetadataArgs),
		"upload_canister_snapshot_metadata_result":     new(uploadMetadataResult),
		"upload_canister_snapshot_data_args":           new(uploadDataArgs),
		"create_canister_args":                         new(createArgs),
		"provisional_create_canister_with_cycles_args": new(provisionalCreateArgs),
		"provisional_top_up_canister_args":             new(topUpArgs),
		"install_code_args":                            new(installArgs),
		"install_chunked_code_args":                    new(installChunkedArgs),
		"uninstall_code_args":                          new(uninstallArgs),
		"update_settings_args":                         new(updateSettingsArgs),
		"canister_status_result":                       new(statusResult),
		"canister_info_args":                           new(infoArgs),
		"canister_info_result":                         new(infoResult),
		"upload_chunk_args":                            new(uploadChunkArgs),
		"chunk_hash":                                   new(chunkHash),
		"chunk_hashes":                                 new([]chunkHash),
		"primitives":                                   new(primitives),
		"tuple":                                        new(tuple),
		"list":                                         new(linkedList),
		"snapshot_without_size": new([]struct {
			ID      snapshotID `candid:"id"`
			TakenAt uint64     `candid:"taken_at_timestamp"`
		}),
		"old_take_args": new(struct {
			CanisterID Principal       `candid:"canister_id"`
			Replace    opt[snapshotID] `candid:"replace_snapshot"`
		}),
		"old_status": new(struct {
			Status     canisterStatus `candid:"status"`
			MemorySize Int            `candid:"memory_size"`
			Cycles     Nat            `candid:"cycles"`
		}),
		"anything": new(Reserved),
		"opt_timer": new(struct {
			Timer opt[timer] `candid:"global_timer"`
		}),
		"opts": new(struct {
			A opt[Nat]   `candid:"a"`
			B opt[[]Nat] `candid:"b"`
			C opt[struct {
				X timer `candid:"x"`
			}] `candid:"c"`
			D opt[opt[string]] `candid:"d"`
			Z uint64           `candid:"z"`
		}),
		"principal": new(Principal),
		"int":       new(Int),
	}
}
