// Package workload makes the memory that the engine is measured on.
//
// Everything follows from a seed: the same seed gives the same bytes, on every
// machine and in every run, so that two runs did the same work. Check shows
// that what is made is what it claims to be: random pages do not compress,
// structured pages compress as stated, and no page is a shifted copy of its
// neighbour. A generator once stepped its seed so that page i+1 was page i
// moved by one word; groups of pages then compressed five times as well as
// memory does, and every figure that hung on it was wrong.
package workload
