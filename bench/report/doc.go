// Package report draws the result of a run: one self-contained page, its plots
// as files of their own, and a table for a README. The plots are SVG written
// here, since there are three kinds of them and they shall look alike, light
// and dark.
package report
