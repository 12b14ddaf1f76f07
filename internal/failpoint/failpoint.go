// Package failpoint names the critical steps of the store, for tests that put
// them in every order. In a program built without the tag failpoint At is empty
// and inlined, so nothing of it is left; what costs something to say is guarded
// by Enabled.
package failpoint

// Point is a step that is about to be done.
type Point string

// The points, by who comes to them.
const (
	// A take, in the order of its steps.
	Meet      Point = "meet"      // look for its pages
	Pinned    Point = "pinned"    // ask the index for what it has pinned
	Asked     Point = "asked"     // go on with the answers
	Commit    Point = "commit"    // hand the record to the log; whose: the canister
	Apply     Point = "apply"     // change the counts; whose: the canister
	Applied   Point = "applied"   // tell those who wait for it; whose: the canister
	Drop      Point = "drop"      // take a deleted version's counts away
	Walked    Point = "walked"    // do so after its nodes were read ahead; whose: the canister
	Suspect   Point = "suspect"   // note what is in limbo
	Suspected Point = "suspected" // wait for operations under way
	Destroy   Point = "destroy"   // remove, from the index, what is marked as dying
	Destroyed Point = "destroyed" // unmark it

	// Cleaning.
	Copied    Point = "copied"  // commit where the copies are
	Repoint   Point = "repoint" // point the index at them
	Repointed Point = "repointed"
	Prove     Point = "prove"  // look whether nothing points into a segment
	Remove    Point = "remove" // drop the segment from the log
	Removed   Point = "removed"

	// A reader.
	Locate  Point = "locate"  // ask where a page is
	Located Point = "located" // read where a page was found to be
)
