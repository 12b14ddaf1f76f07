// Package bench measures the engine: its figures, each beside a limit of the
// machine that was measured in the same minute, and beside other systems that
// do the same work in the same run.
//
// The nouns:
//
//   - A workload makes memory and changes it, from a seed: package workload.
//   - A limit is what the machine can do: package limit.
//   - A peer is another system that keeps versions of an image: package peer.
//   - A Figure is one number with its limit, their ratio, and the bar and the
//     aim that it is judged by. Each has the least, the median and the most over
//     the repeats.
//   - A Result is a run: every figure, also those that were not measured with
//     the reason, the curves, the peers, the machine, the options.
//
// What holds:
//
//   - The same options do the same work on every machine, byte for byte.
//   - A figure and its limit are measured in turns, so that what disturbs one
//     disturbs the other.
//   - What is read back is compared with what was written; a run whose data is
//     not what was written ends in an error and has no result.
//   - Nothing is left behind in Dir, also when a run is interrupted.
//
// What the tables say about other systems is what was measured on this machine
// with the settings that their adapters name.
package bench
