//go:build !linux

package identity

// lowerPriority does nothing here: the process alone keeps hashing out of Go's
// scheduler.
func lowerPriority(Priority) {}
