// The heap: how often the collector runs where there is next to nothing in it.

package main

import (
	"math"
	"runtime"
	"runtime/debug"
)

// heapFloor is memory that is allocated and never touched, so that it is not
// resident. The collector lets the heap grow in proportion to what is in it,
// and in that of a daemon are 2 MiB, for chunks live elsewhere: with many small
// files it ran 50 times a second and took a fifth of the CPU time. With the
// floor there are 5 MiB of garbage between two collections.
const heapFloor = 8 << 20

// floorHeap puts the floor in until the function that it returns is called. It
// leaves it out where memory is limited, by --memory or GOMEMLIMIT.
func floorHeap() (remove func()) {
	if debug.SetMemoryLimit(-1) < math.MaxInt64 {
		return func() {}
	}
	floor := make([]byte, heapFloor)
	return func() { runtime.KeepAlive(floor) }
}
