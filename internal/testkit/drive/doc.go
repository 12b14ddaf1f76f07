// Package drive plays histories of testkit on an engine and holds the store
// against the model after every step.
//
// A Run is one store that goes through closes, kills and power losses. Whatever
// the engine shows must be what the model says; after a crash it must be one of
// the models that were right at that moment: all that was acknowledged, and the
// operation under way wholly there or wholly absent. Check recomputes the
// invariants of the store. A Point is a crash that was caught while a Run went
// on, to be checked beside it.
package drive
