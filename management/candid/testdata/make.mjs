// Writes node.json, messages that another Candid implementation made, and
// completes go.json, messages that this package made, with what the other
// implementation reads in them. README.md says how to run it.

import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// The library stands in the folder the script is run from, not beside it.
const require = createRequire(pathToFileURL(process.cwd() + '/'));
const load = async (name) => import(pathToFileURL(require.resolve(name)));
const { IDL } = await load('@icp-sdk/core/candid');
const { Principal } = await load('@icp-sdk/core/principal');

const here = (name) => new URL(name, import.meta.url);
const hex = (bytes) => Buffer.from(bytes).toString('hex');
const unhex = (text) => new Uint8Array(Buffer.from(text, 'hex'));

// ---- types ---------------------------------------------------------------

const blob = IDL.Vec(IDL.Nat8);
const { Nat, Nat64, Text, Null, Bool, Reserved, Record, Variant, Opt, Vec } = IDL;
const principal = IDL.Principal;
const version = { sender_canister_version: Opt(Nat64) };

const visibility = Variant({ controllers: Null, public: Null, allowed_viewers: Vec(principal) });
const environment = Record({ name: Text, value: Text });
const settings = Record({
  controllers: Opt(Vec(principal)),
  compute_allocation: Opt(Nat),
  memory_allocation: Opt(Nat),
  freezing_threshold: Opt(Nat),
  reserved_cycles_limit: Opt(Nat),
  minimum_incoming_canister_call_cycles: Opt(Nat),
  log_visibility: Opt(visibility),
  snapshot_visibility: Opt(visibility),
  status_visibility: Opt(visibility),
  wasm_memory_limit: Opt(Nat),
  wasm_memory_threshold: Opt(Nat),
  log_memory_limit: Opt(Nat),
  environment_variables: Opt(Vec(environment)),
});
const definiteSettings = Record({
  controllers: Vec(principal),
  compute_allocation: Nat,
  memory_allocation: Nat,
  freezing_threshold: Nat,
  reserved_cycles_limit: Nat,
  minimum_incoming_canister_call_cycles: Nat,
  log_visibility: visibility,
  snapshot_visibility: visibility,
  status_visibility: visibility,
  wasm_memory_limit: Nat,
  wasm_memory_threshold: Nat,
  log_memory_limit: Nat,
  environment_variables: Vec(environment),
});
const source = Variant({ taken_from_canister: Reserved, metadata_upload: Reserved });
const global = Variant({ i32: IDL.Int32, i64: IDL.Int64, f32: IDL.Float32, f64: IDL.Float64, v128: Nat });
const timer = Variant({ inactive: Null, active: Nat64 });
const hook = Variant({ condition_not_satisfied: Null, ready: Null, executed: Null });
const chunkHash = Record({ hash: blob });
const mode = Variant({
  install: Null,
  reinstall: Null,
  upgrade: Opt(Record({
    skip_pre_upgrade: Opt(Bool),
    wasm_memory_persistence: Opt(Variant({ keep: Null, replace: Null })),
  })),
});
const origin = Variant({
  from_user: Record({ user_id: principal }),
  from_canister: Record({ canister_id: principal, canister_version: Opt(Nat64) }),
});
const details = Variant({
  creation: Record({ controllers: Vec(principal), environment_variables_hash: Opt(blob) }),
  code_uninstall: Null,
  code_deployment: Record({ mode: Variant({ install: Null, reinstall: Null, upgrade: Null }), module_hash: blob }),
  load_snapshot: Record({
    from_canister_id: Opt(principal), snapshot_id: blob, canister_version: Nat64, taken_at_timestamp: Nat64, source,
  }),
  controllers_change: Record({ controllers: Vec(principal) }),
  rename_canister: Record({
    canister_id: principal,
    total_num_changes: Nat64,
    rename_to: Record({ canister_id: principal, version: Nat64, total_num_changes: Nat64 }),
    requested_by: principal,
  }),
});
const change = Record({ timestamp_nanos: Nat64, canister_version: Nat64, origin, details });
const snapshot = Record({ id: blob, taken_at_timestamp: Nat64, total_size: Nat64 });
const id = { canister_id: principal };
const list = IDL.Rec();
list.fill(Record({ head: IDL.Int, tail: Opt(list) }));

const types = {
  take_canister_snapshot_args: Record({ ...id, replace_snapshot: Opt(blob), uninstall_code: Opt(Bool), ...version }),
  take_canister_snapshot_result: snapshot,
  load_canister_snapshot_args: Record({ ...id, snapshot_id: blob, ...version }),
  canister_id_args: Record({ ...id }),
  list_canister_snapshots_result: Vec(snapshot),
  snapshot_id_args: Record({ ...id, snapshot_id: blob }),
  read_canister_snapshot_metadata_result: Record({
    source,
    taken_at_timestamp: Nat64,
    wasm_module_size: Nat64,
    globals: Vec(global),
    wasm_memory_size: Nat64,
    stable_memory_size: Nat64,
    wasm_chunk_store: Vec(chunkHash),
    canister_version: Nat64,
    certified_data: blob,
    global_timer: Opt(timer),
    on_low_wasm_memory_hook_status: Opt(hook),
  }),
  read_canister_snapshot_data_args: Record({
    ...id,
    snapshot_id: blob,
    kind: Variant({
      wasm_module: Record({ offset: Nat64, size: Nat64 }),
      wasm_memory: Record({ offset: Nat64, size: Nat64 }),
      stable_memory: Record({ offset: Nat64, size: Nat64 }),
      wasm_chunk: chunkHash,
    }),
  }),
  read_canister_snapshot_data_result: Record({ chunk: blob }),
  upload_canister_snapshot_metadata_args: Record({
    ...id,
    replace_snapshot: Opt(blob),
    wasm_module_size: Nat64,
    globals: Vec(global),
    wasm_memory_size: Nat64,
    stable_memory_size: Nat64,
    certified_data: blob,
    global_timer: Opt(timer),
    on_low_wasm_memory_hook_status: Opt(hook),
  }),
  upload_canister_snapshot_metadata_result: Record({ snapshot_id: blob }),
  upload_canister_snapshot_data_args: Record({
    ...id,
    snapshot_id: blob,
    kind: Variant({
      wasm_module: Record({ offset: Nat64 }),
      wasm_memory: Record({ offset: Nat64 }),
      stable_memory: Record({ offset: Nat64 }),
      wasm_chunk: Null,
    }),
    chunk: blob,
  }),
  create_canister_args: Record({ settings: Opt(settings), ...version }),
  provisional_create_canister_with_cycles_args: Record({
    amount: Opt(Nat), settings: Opt(settings), specified_id: Opt(principal), ...version,
  }),
  provisional_top_up_canister_args: Record({ ...id, amount: Nat }),
  install_code_args: Record({ mode, ...id, wasm_module: blob, arg: blob, ...version }),
  install_chunked_code_args: Record({
    mode,
    target_canister: principal,
    store_canister: Opt(principal),
    chunk_hashes_list: Vec(chunkHash),
    wasm_module_hash: blob,
    arg: blob,
    ...version,
  }),
  uninstall_code_args: Record({ ...id, ...version }),
  update_settings_args: Record({ ...id, settings, ...version }),
  canister_status_result: Record({
    status: Variant({ running: Null, stopping: Null, stopped: Null }),
    ready_for_migration: Bool,
    version: Nat64,
    settings: definiteSettings,
    module_hash: Opt(blob),
    memory_size: Nat,
    memory_metrics: Record({
      wasm_memory_size: Nat,
      stable_memory_size: Nat,
      global_memory_size: Nat,
      wasm_binary_size: Nat,
      custom_sections_size: Nat,
      canister_history_size: Nat,
      wasm_chunk_store_size: Nat,
      snapshots_size: Nat,
      log_memory_store_size: Nat,
    }),
    cycles: Nat,
    reserved_cycles: Nat,
    idle_cycles_burned_per_day: Nat,
    query_stats: Record({
      num_calls_total: Nat,
      num_instructions_total: Nat,
      request_payload_bytes_total: Nat,
      response_payload_bytes_total: Nat,
    }),
  }),
  canister_info_args: Record({ ...id, num_requested_changes: Opt(Nat64) }),
  canister_info_result: Record({
    total_num_changes: Nat64, recent_changes: Vec(change), module_hash: Opt(blob), controllers: Vec(principal),
  }),
  upload_chunk_args: Record({ ...id, chunk: blob }),
  chunk_hash: chunkHash,
  chunk_hashes: Vec(chunkHash),
  primitives: Record({
    null: Null, bool: Bool, nat: Nat, int: IDL.Int,
    nat8: IDL.Nat8, nat16: IDL.Nat16, nat32: IDL.Nat32, nat64: Nat64,
    int8: IDL.Int8, int16: IDL.Int16, int32: IDL.Int32, int64: IDL.Int64,
    float32: IDL.Float32, float64: IDL.Float64, text: Text, reserved: Reserved, principal,
    opt_empty: Opt(IDL.Empty), opt_opt: Opt(Opt(IDL.Nat16)), vec_vec: Vec(Vec(IDL.Nat32)), empty_record: Record({}),
  }),
  tuple: IDL.Tuple(Nat, Text, Bool),
  list,
  // What older or newer clients make of the above.
  snapshot_without_size: Vec(Record({ id: blob, taken_at_timestamp: Nat64 })),
  old_take_args: Record({ ...id, replace_snapshot: Opt(blob) }),
  old_status: Record({ status: Variant({ running: Null, stopping: Null, stopped: Null }), memory_size: IDL.Int, cycles: Nat }),
  anything: Reserved,
  opt_timer: Record({ global_timer: Opt(timer) }),
  opts: Record({ a: Opt(Nat), b: Opt(Vec(Nat)), c: Opt(Record({ x: timer })), d: Opt(Opt(Text)), z: Nat64 }),
  principal,
  int: IDL.Int,
  nat64: Nat64,
};

// ---- canonical values ----------------------------------------------------

const bits = (value, size) => {
  const view = new DataView(new ArrayBuffer(8));
  if (size === 32) view.setFloat32(0, value); else view.setFloat64(0, value);
  return `float${size} ${hex(new Uint8Array(view.buffer, 0, size / 8))}`;
};

// canon turns a value into JSON that says all of it: numbers and principals
// as text, floats as their bits, blobs as hex, an opt as a list of none or one.
function canon(type, v) {
  switch (true) {
    case type instanceof IDL.RecClass: return canon(type.getType(), v);
    case type instanceof IDL.NullClass: case type instanceof IDL.ReservedClass: return null;
    case type instanceof IDL.BoolClass: case type instanceof IDL.TextClass: return v;
    case type instanceof IDL.NatClass: case type instanceof IDL.IntClass:
    case type instanceof IDL.FixedNatClass: case type instanceof IDL.FixedIntClass: return String(v);
    case type instanceof IDL.FloatClass: return bits(v, type._bits);
    case type instanceof IDL.PrincipalClass: return 'principal ' + hex(v.toUint8Array());
    case type instanceof IDL.OptClass: return [...v].map((x) => canon(type._type, x));
    case type instanceof IDL.VecClass:
      if (type._type instanceof IDL.FixedNatClass && type._type._bits === 8) return 'blob ' + hex(v);
      return Array.from(v, (x) => canon(type._type, x));
    case type instanceof IDL.TupleClass: return type._components.map((t, i) => canon(t, v[i]));
    case type instanceof IDL.RecordClass:
      return Object.fromEntries(type._fields.map(([k, t]) => [k, canon(t, v[k])]));
    case type instanceof IDL.VariantClass: {
      const [k, t] = type._fields.find(([k]) => k in v);
      return { [k]: canon(t, v[k]) };
    }
    default: throw new Error('no canonical value of ' + type.display());
  }
}

// ---- values --------------------------------------------------------------

const p = (text) => Principal.fromText(text);
const canister = p('ryjl3-tyaaa-aaaaa-aaaba-cai');
const other = p('rrkah-fqaaa-aaaaa-aaaaq-cai');
const user = Principal.selfAuthenticating(new Uint8Array(44).fill(7));
const anonymous = Principal.anonymous();
const management = Principal.managementCanister();
const bytes = (n, seed = 1) => Uint8Array.from({ length: n }, (_, i) => (i * 167 + seed * 13 + (i >> 3)) & 255);
const snapshotID = unhex('0000000000000000' + '00000000000000020101');
const snapshotID2 = unhex('0000000000000001' + '00000000000000020101');
const max64 = (1n << 64n) - 1n;
const max128 = (1n << 128n) - 1n;

const cases = [];
const fieldsOf = (type) => Object.fromEntries(type._fields);
// add encodes value as a type, which by default is the entry read of types, and
// reads it as that entry. more are further arguments. What the library does
// not read although the specification has it read is given as want.
function add(read, name, value, as = types[read], { more = [], want } = {}) {
  const wire = [as, ...more.map(([t]) => t)];
  const values = [value, ...more.map(([, v]) => v)];
  const message = IDL.encode(wire, values);
  want = canon(types[read], want ?? IDL.decode([types[read]], message)[0]);
  if (as === types[read] && JSON.stringify(want) !== JSON.stringify(canon(as, value))) {
    throw new Error(`${read} ${name}: reads back as ${JSON.stringify(want)}`);
  }
  cases.push({
    name: `${read}: ${name}`, read, type: '(' + wire.map((t) => t.display()).join(', ') + ')', hex: hex(message), value: want,
  });
}

// Snapshots.
const take = { canister_id: canister, replace_snapshot: [], uninstall_code: [], sender_canister_version: [] };
add('take_canister_snapshot_args', 'plain', take);
add('take_canister_snapshot_args', 'replace', { ...take, replace_snapshot: [snapshotID] });
add('take_canister_snapshot_args', 'all', {
  ...take, replace_snapshot: [snapshotID2], uninstall_code: [true], sender_canister_version: [max64],
});
add('take_canister_snapshot_args', 'no uninstall', { ...take, uninstall_code: [false], sender_canister_version: [0n] });
const one = { id: snapshotID, taken_at_timestamp: 1_700_000_000_123_456_789n, total_size: 2_162_688n };
add('take_canister_snapshot_result', 'plain', one);
add('load_canister_snapshot_args', 'plain', { canister_id: canister, snapshot_id: snapshotID, sender_canister_version: [] });
add('load_canister_snapshot_args', 'version', { canister_id: other, snapshot_id: snapshotID, sender_canister_version: [7n] });
add('canister_id_args', 'canister', { canister_id: canister });
add('canister_id_args', 'management', { canister_id: management });
add('canister_id_args', 'anonymous', { canister_id: anonymous });
add('canister_id_args', 'user', { canister_id: user });
add('list_canister_snapshots_result', 'none', []);
add('list_canister_snapshots_result', 'two', [one, { id: snapshotID2, taken_at_timestamp: max64, total_size: 0n }]);
add('list_canister_snapshots_result', 'ten', Array.from({ length: 10 }, (_, i) => ({
  id: bytes(18, i), taken_at_timestamp: BigInt(i) << 50n, total_size: BigInt(i) << 40n,
})));
add('snapshot_id_args', 'plain', { canister_id: canister, snapshot_id: snapshotID });
add('snapshot_id_args', 'empty id', { canister_id: canister, snapshot_id: new Uint8Array() });
const metadata = {
  source: { taken_from_canister: null },
  taken_at_timestamp: 1_700_000_000_123_456_789n,
  wasm_module_size: 235_000n,
  globals: [
    { i32: -2147483648 }, { i32: 2147483647 }, { i64: -(1n << 63n) }, { i64: (1n << 63n) - 1n },
    { f32: 0.5 }, { f32: -Infinity }, { f64: 0.1 }, { f64: -0 }, { f64: NaN }, { v128: 0n }, { v128: max128 },
  ],
  wasm_memory_size: 2_162_688n,
  stable_memory_size: 500n << 30n,
  wasm_chunk_store: [{ hash: bytes(32) }, { hash: bytes(32, 2) }],
  canister_version: 42n,
  certified_data: bytes(32, 3),
  global_timer: [{ active: 1_700_000_001_000_000_000n }],
  on_low_wasm_memory_hook_status: [{ condition_not_satisfied: null }],
};
add('read_canister_snapshot_metadata_result', 'full', metadata);
add('read_canister_snapshot_metadata_result', 'upload, empty', {
  source: { metadata_upload: null }, taken_at_timestamp: 0n, wasm_module_size: 0n, globals: [], wasm_memory_size: 0n,
  stable_memory_size: 0n, wasm_chunk_store: [], canister_version: 0n, certified_data: [], global_timer: [],
  on_low_wasm_memory_hook_status: [],
});
add('read_canister_snapshot_metadata_result', 'inactive, ready', {
  ...metadata, global_timer: [{ inactive: null }], on_low_wasm_memory_hook_status: [{ ready: null }],
});
add('read_canister_snapshot_metadata_result', 'executed', { ...metadata, on_low_wasm_memory_hook_status: [{ executed: null }] });
for (const kind of ['wasm_module', 'wasm_memory', 'stable_memory']) {
  const which = { canister_id: canister, snapshot_id: snapshotID };
  add('read_canister_snapshot_data_args', kind, { ...which, kind: { [kind]: { offset: 2_000_000n, size: 2_000_000n } } });
  add('upload_canister_snapshot_data_args', kind, { ...which, kind: { [kind]: { offset: max64 } }, chunk: bytes(100) });
}
add('read_canister_snapshot_data_args', 'wasm_chunk', {
  canister_id: canister, snapshot_id: snapshotID, kind: { wasm_chunk: { hash: bytes(32) } },
});
add('upload_canister_snapshot_data_args', 'wasm_chunk', {
  canister_id: canister, snapshot_id: snapshotID, kind: { wasm_chunk: null }, chunk: new Uint8Array(),
});
add('read_canister_snapshot_data_result', 'some', { chunk: bytes(300) });
add('read_canister_snapshot_data_result', 'none', { chunk: new Uint8Array() });
const upload = {
  canister_id: canister, replace_snapshot: [], wasm_module_size: 235_000n, globals: metadata.globals,
  wasm_memory_size: 131_072n, stable_memory_size: 65_536n, certified_data: bytes(32), global_timer: [], on_low_wasm_memory_hook_status: [],
};
add('upload_canister_snapshot_metadata_args', 'plain', upload);
add('upload_canister_snapshot_metadata_args', 'all', {
  ...upload, replace_snapshot: [snapshotID], global_timer: [{ active: max64 }], on_low_wasm_memory_hook_status: [{ ready: null }],
});
add('upload_canister_snapshot_metadata_args', 'inactive', {
  ...upload, globals: [], global_timer: [{ inactive: null }], on_low_wasm_memory_hook_status: [{ executed: null }],
});
add('upload_canister_snapshot_metadata_result', 'plain', { snapshot_id: snapshotID });

// Canisters.
const noSettings = {
  controllers: [], compute_allocation: [], memory_allocation: [], freezing_threshold: [], reserved_cycles_limit: [],
  minimum_incoming_canister_call_cycles: [], log_visibility: [], snapshot_visibility: [], status_visibility: [],
  wasm_memory_limit: [], wasm_memory_threshold: [], log_memory_limit: [], environment_variables: [],
};
const allSettings = {
  controllers: [[user, canister]], compute_allocation: [100n], memory_allocation: [1n << 40n], freezing_threshold: [2_592_000n],
  reserved_cycles_limit: [5_000_000_000_000n], minimum_incoming_canister_call_cycles: [0n], log_visibility: [{ public: null }],
  snapshot_visibility: [{ allowed_viewers: [anonymous, user] }], status_visibility: [{ controllers: null }], wasm_memory_limit: [max64],
  wasm_memory_threshold: [max128], log_memory_limit: [4096n], environment_variables: [[{ name: 'PLACE', value: 'Malmö ☃' }]],
};
const settle = (s) => Object.fromEntries(Object.entries(s).map(([k, [v]]) => [k, v]));
add('create_canister_args', 'nothing', { settings: [], sender_canister_version: [] });
add('create_canister_args', 'no settings', { settings: [noSettings], sender_canister_version: [1n] });
add('create_canister_args', 'all settings', { settings: [allSettings], sender_canister_version: [] });
add('provisional_create_canister_with_cycles_args', 'nothing', { amount: [], settings: [], specified_id: [], sender_canister_version: [] });
add('provisional_create_canister_with_cycles_args', 'all', {
  amount: [100_000_000_000_000n], settings: [allSettings], specified_id: [canister], sender_canister_version: [],
});
add('provisional_top_up_canister_args', 'plain', { canister_id: canister, amount: max128 });
const install = { canister_id: canister, wasm_module: unhex('0061736d01000000'), arg: unhex('4449444c0000'), sender_canister_version: [] };
add('install_code_args', 'install', { ...install, mode: { install: null } });
add('install_code_args', 'reinstall', { ...install, mode: { reinstall: null } });
add('install_code_args', 'upgrade', { ...install, mode: { upgrade: [] } });
add('install_code_args', 'upgrade, nothing said', { ...install, mode: { upgrade: [{ skip_pre_upgrade: [], wasm_memory_persistence: [] }] } });
add('install_code_args', 'upgrade, keep', {
  ...install, mode: { upgrade: [{ skip_pre_upgrade: [true], wasm_memory_persistence: [{ keep: null }] }] }, sender_canister_version: [3n],
});
add('install_chunked_code_args', 'plain', {
  mode: { upgrade: [{ skip_pre_upgrade: [false], wasm_memory_persistence: [{ replace: null }] }] }, target_canister: canister,
  store_canister: [other], chunk_hashes_list: [{ hash: bytes(32) }, { hash: bytes(32) }], wasm_module_hash: bytes(32, 9),
  arg: new Uint8Array(), sender_canister_version: [],
});
add('uninstall_code_args', 'plain', { canister_id: canister, sender_canister_version: [5n] });
add('update_settings_args', 'nothing', { canister_id: canister, settings: noSettings, sender_canister_version: [] });
add('update_settings_args', 'all', { canister_id: canister, settings: allSettings, sender_canister_version: [9n] });
const status = {
  status: { stopped: null }, ready_for_migration: true, version: 17n, settings: settle(allSettings), module_hash: [bytes(32)],
  memory_size: 1n << 41n,
  memory_metrics: {
    wasm_memory_size: 1n, stable_memory_size: 2n, global_memory_size: 3n, wasm_binary_size: 4n, custom_sections_size: 5n,
    canister_history_size: 6n, wasm_chunk_store_size: 7n, snapshots_size: 8n, log_memory_store_size: 9n,
  },
  cycles: 100_000_000_000_000n, reserved_cycles: max128, idle_cycles_burned_per_day: 0n,
  query_stats: { num_calls_total: 0n, num_instructions_total: 1n, request_payload_bytes_total: 2n, response_payload_bytes_total: 3n },
};
add('canister_status_result', 'stopped', status);
add('canister_status_result', 'empty', { ...status, status: { running: null }, ready_for_migration: false, module_hash: [] });
add('canister_status_result', 'stopping', { ...status, status: { stopping: null } });
add('canister_info_args', 'plain', { canister_id: canister, num_requested_changes: [] });
add('canister_info_args', 'twenty', { canister_id: canister, num_requested_changes: [20n] });
const byUser = { timestamp_nanos: 1n, canister_version: 0n, origin: { from_user: { user_id: user } } };
const byCanister = { timestamp_nanos: 2n, canister_version: 1n, origin: { from_canister: { canister_id: other, canister_version: [4n] } } };
const byOldCanister = { ...byCanister, origin: { from_canister: { canister_id: other, canister_version: [] } } };
const loaded = { snapshot_id: snapshotID, canister_version: 3n, taken_at_timestamp: 4n };
add('canister_info_result', 'none', { total_num_changes: 0n, recent_changes: [], module_hash: [], controllers: [] });
add('canister_info_result', 'every change', {
  total_num_changes: 11n,
  recent_changes: [
    { ...byUser, details: { creation: { controllers: [user], environment_variables_hash: [] } } },
    { ...byCanister, details: { creation: { controllers: [], environment_variables_hash: [bytes(32)] } } },
    { ...byUser, details: { code_deployment: { mode: { install: null }, module_hash: bytes(32) } } },
    { ...byUser, details: { code_deployment: { mode: { reinstall: null }, module_hash: bytes(32) } } },
    { ...byOldCanister, details: { code_deployment: { mode: { upgrade: null }, module_hash: bytes(32) } } },
    { ...byCanister, details: { code_uninstall: null } },
    { ...byUser, details: { load_snapshot: { ...loaded, from_canister_id: [], source: { taken_from_canister: null } } } },
    { ...byUser, details: { load_snapshot: { ...loaded, from_canister_id: [other], source: { metadata_upload: null } } } },
    { ...byUser, details: { controllers_change: { controllers: [user, anonymous] } } },
    { ...byUser, details: { rename_canister: {
      canister_id: canister, total_num_changes: 5n, requested_by: user, rename_to: { canister_id: other, version: 6n, total_num_changes: 7n },
    } } },
  ],
  module_hash: [bytes(32, 4)],
  controllers: [user, canister, other],
});
add('upload_chunk_args', 'plain', { canister_id: canister, chunk: bytes(257) });
add('chunk_hash', 'plain', { hash: bytes(32) });
add('chunk_hashes', 'none', []);
add('chunk_hashes', 'two', [{ hash: bytes(32) }, { hash: bytes(32, 2) }]);

// Every type, at its edges.
const zeros = {
  null: null, bool: false, nat: 0n, int: 0n, nat8: 0, nat16: 0, nat32: 0, nat64: 0n, int8: 0, int16: 0, int32: 0, int64: 0n,
  float32: 0, float64: 0, text: '', reserved: null, principal: management, opt_empty: [], opt_opt: [], vec_vec: [], empty_record: {},
};
add('primitives', 'zeros', zeros);
add('primitives', 'most', {
  ...zeros, bool: true, nat: max128, int: (1n << 127n) - 1n, nat8: 255, nat16: 65535, nat32: 4294967295, nat64: max64,
  int8: 127, int16: 32767, int32: 2147483647, int64: (1n << 63n) - 1n, float32: 3.4028234663852886e38, float64: Number.MAX_VALUE,
  text: '\u0000 \u{10ffff}', principal: Principal.fromUint8Array(bytes(29)), opt_opt: [[65535]], vec_vec: [[], [1], [2, 3]],
});
add('primitives', 'least', {
  ...zeros, int: -(1n << 127n), int8: -128, int16: -32768, int32: -2147483648, int64: -(1n << 63n), float32: 1.401298464324817e-45,
  float64: -Number.MIN_VALUE, opt_opt: [[]], vec_vec: [[4294967295]],
});
for (const n of [1n, 63n, 64n, 127n, 128n, 8191n, 8192n, max64, max64 + 1n, max128 + 1n, 1n << 200n]) {
  add('primitives', `nat ${n}`, { ...zeros, nat: n, int: -n });
  add('primitives', `int ${n}`, { ...zeros, nat: n - 1n, int: n });
}
add('tuple', 'plain', [5n, 'text', true]);
add('list', 'three', { head: 1n, tail: [{ head: 2n, tail: [{ head: -3n, tail: [] }] }] });

// Clients of other times.
add('snapshot_without_size', 'extra field', [one, one], types.list_canister_snapshots_result);
add('old_take_args', 'newer client', { ...take, uninstall_code: [true] }, types.take_canister_snapshot_args);
add('take_canister_snapshot_args', 'older client', { canister_id: canister, replace_snapshot: [snapshotID] }, types.old_take_args);
add('take_canister_snapshot_args', 'oldest client', { canister_id: canister }, types.canister_id_args);
add('take_canister_snapshot_args', 'a client that does not use opt', {
  canister_id: canister, replace_snapshot: snapshotID, uninstall_code: true, sender_canister_version: 5n,
}, Record({ ...id, replace_snapshot: blob, uninstall_code: Bool, sender_canister_version: Nat64 }));
add('take_canister_snapshot_args', 'unknown fields of every kind', {
  ...take, a: [1, 2, 3], b: { c: ['x', [null]] }, d: { e: 5 }, f: [canister, 'method'], g: other, h: 1.5, i: [[1n], []], j: anonymous, k: [[5n, true]],
}, Record({
  ...fieldsOf(types.take_canister_snapshot_args),
  a: Vec(IDL.Nat16), b: Record({ c: IDL.Tuple(Text, Opt(Null)) }), d: Variant({ e: IDL.Int8, z: Text }), f: IDL.Func([Nat], [Text], ['query']),
  g: IDL.Service({ method: IDL.Func([], [], []) }), h: IDL.Float32, i: Vec(Opt(Nat)), j: principal, k: Vec(IDL.Tuple(IDL.Int, Bool)),
}));
add('upload_canister_snapshot_metadata_args', 'older client', {
  canister_id: canister, wasm_module_size: 1n, globals: [], wasm_memory_size: 0n, stable_memory_size: 0n, certified_data: [],
}, Record({
  ...id, wasm_module_size: Nat64, globals: Vec(global), wasm_memory_size: Nat64, stable_memory_size: Nat64, certified_data: blob,
}));
add('old_status', 'newer reply, nat as int', status, types.canister_status_result, { want: status });
add('anything', 'a whole reply', status, types.canister_status_result);
add('anything', 'a text', 'text', Text);
add('take_canister_snapshot_result', 'extra arguments', one, snapshot, { more: [[Text, 'more'], [Vec(snapshot), [one]]] });
add('read_canister_snapshot_metadata_result', 'source with other payloads', { ...metadata, source: { taken_from_canister: { x: 'y' } } },
  Record({ ...fieldsOf(types.read_canister_snapshot_metadata_result),
    source: Variant({ taken_from_canister: Record({ x: Text }), a_new_source: Null }) }));
add('opt_timer', 'unknown case', { global_timer: [{ hourly: 5n }] }, Record({ global_timer: Opt(Variant({ inactive: Null, hourly: Nat64 })) }));
add('opt_timer', 'known case among unknown ones', { global_timer: [{ active: 5n }] },
  Record({ global_timer: Opt(Variant({ active: Nat64, hourly: Nat64 })) }));
add('opt_timer', 'payload of another type', { global_timer: [{ active: 'now' }] }, Record({ global_timer: Opt(Variant({ active: Text })) }));
add('opt_timer', 'not an opt', { global_timer: { active: 5n } }, Record({ global_timer: timer }));
add('opt_timer', 'null', { global_timer: null }, Record({ global_timer: Null }));
add('opt_timer', 'reserved', { global_timer: null }, Record({ global_timer: Reserved }));
add('opts', 'nothing fits', { a: ['text'], b: [[-1n]], c: [{ x: { hourly: 1 } }], d: [[5n]], z: 1n }, Record({
  a: Opt(Text), b: Opt(Vec(IDL.Int)), c: Opt(Record({ x: Variant({ hourly: IDL.Nat8 }) })), d: Opt(Opt(Nat)), z: Nat64,
}));
add('opts', 'bare values', { a: 7n, b: [8n, 9n], c: { x: { inactive: null } }, z: 2n }, Record({
  a: Nat, b: Vec(Nat), c: Record({ x: timer }), z: Nat64,
}));
add('opts', 'all there', { a: [1n], b: [[2n]], c: [{ x: { active: 3n } }], d: [['x']], z: 4n });
add('opts', 'null inside', { a: [], b: [[]], c: [], d: [[]], z: 4n });
add('int', 'nat', 300n, Nat, { want: 300n });
add('principal', 'a principal', user);

writeFileSync(here('node.json'), '[\n' + cases.map((c) => JSON.stringify(c)).join(',\n') + '\n]\n');
console.log(`node.json: ${cases.length} messages`);

// ---- what this package wrote ----------------------------------------------

const ours = JSON.parse(readFileSync(here('go.json')));
for (const c of ours) {
  c.value = canon(types[c.read], IDL.decode([types[c.read]], unhex(c.hex))[0]);
}
writeFileSync(here('go.json'), '[\n' + ours.map((c) => JSON.stringify(c)).join(',\n') + '\n]\n');
console.log(`go.json: ${ours.length} messages read`);
