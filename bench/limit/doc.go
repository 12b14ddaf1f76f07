// Package limit measures what the machine can do, in the same minute as the
// figure that it is a limit of: on a machine that others use too only the ratio
// of the two means something. A limit does the part of the work that no design
// can leave out, on all cores, with memory that was touched before, and nothing
// else.
package limit
