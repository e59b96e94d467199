// The heap: how often the collector runs, in daemons and in a push of many files.

package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
)

const (
	// heapFloor is memory that is allocated and never touched, so that it is not
	// resident. The collector lets the heap grow in proportion to what is in it,
	// and in that of a daemon are 2 MiB, for chunks of 256 KiB and more live
	// elsewhere: with many small files it ran 50 times a second and took a fifth of
	// the CPU time. With the floor it runs after 5 MiB of garbage.
	heapFloor = 8 << 20

	// gcPercent is how much a daemon's heap may grow between two collections. With
	// many pushes it is small chunks mostly, which cost the collector nothing: half
	// of Go's default took a quarter off the broadcaster's peak (scripts/memory.sh).
	gcPercent = 50
	// tightPercent is the same where memory is limited: 1 MiB of garbage. With 50
	// the released chunks that were not collected yet made the peak of 50 pushes
	// with --memory 16M anything from 55 to 71 MiB; with 10 it is 57 to 60
	// (scripts/memory.sh), at the same speed, small files included.
	tightPercent = 10
)

// memoryBeside is what a daemon needs beside the content that --memory bounds:
// 20 MiB of binary and runtime, and 160 KiB for each of 180 connections.
const memoryBeside = 48 << 20

// limitMemory makes the collector work harder before the heap is larger than n
// bytes of content and what a daemon needs besides. It does not see the chunks of
// 256 KiB and more, which are beside the heap; those that are in use the budget
// bounds, and those that are kept protocol does, at 16 MiB.
func limitMemory(n int64) {
	if n > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(n + memoryBeside + heapFloor)
	}
}

// floorHeap puts the floor in until the function that it returns is called. It
// leaves it out of a limit that somebody set for the heap, where it counts.
func floorHeap() (remove func()) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	floor := make([]byte, heapFloor)
	return func() { runtime.KeepAlive(floor) }
}

// daemonHeap makes the heap a daemon's, the floor of it until the function that
// it returns is called. GOGC overrides how much it may grow.
func daemonHeap() (end func()) {
	percent := gcPercent
	if debug.SetMemoryLimit(-1) < math.MaxInt64 { // by --memory, or GOMEMLIMIT
		percent = tightPercent
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
	return floorHeap()
}
