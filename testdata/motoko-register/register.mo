import Prim "mo:⛔";

// A canister whose heap, globals and stable memory all change: a list that
// grows, an array that is replaced, and words in stable memory.
actor Register {
  type List = ?(Nat, List);
  var items : List = null;
  var count : Nat = 0;
  var table : [var Nat] = Prim.Array_init<Nat>(1, 0);

  // put adds n numbers, makes a new table of that size, and answers how many
  // numbers there are.
  public func put(n : Nat) : async Nat {
    var i = 0;
    table := Prim.Array_init<Nat>(n + 1, count);
    while (i < n) {
      count += 1;
      items := ?(count * count, items);
      table[i] := count;
      i += 1;
    };
    count
  };

  // keep writes a number into stable memory, which grows as it needs.
  public func keep(at : Nat32, n : Nat32) : async Nat32 {
    let offset = Prim.natToNat64(Prim.nat32ToNat(at)) * 4;
    while (Prim.stableMemorySize() * 65536 < offset + 4) {
      ignore Prim.stableMemoryGrow(1);
    };
    let was = Prim.stableMemoryLoadNat32(offset);
    Prim.stableMemoryStoreNat32(offset, n);
    was
  };

  // sum looks at everything.
  public func sum() : async Nat {
    var s = 0;
    var l = items;
    label walk loop {
      switch l {
        case null break walk;
        case (?(n, rest)) { s += n; l := rest };
      };
    };
    for (n in table.vals()) s += n;
    s
  };
};
