// Memory for large chunks, outside of Go's heap.
//
// It is in huge pages: the kernel copies to and from them with fewer faults
// and lookups, and refers to them at a third of what it costs for single pages.
// And it holds nothing but chunks, ever: a socket may refer to it for longer
// than we do (splice_linux.go).

package protocol

import (
	"bytes"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	hugePage = 2 << 20
	// slabSize is what is taken from the system at once, of which only the huge
	// pages that are used count. It is never given back, but what was in it is.
	slabSize = 8 << 20
	// leastCollect is how much there must be before the collector is called for
	// it. It sees only its own heap, next to nothing, and would not come: chunks
	// that failed transfers have dropped would pile up for minutes.
	leastCollect = 32 << 20
)

// region is a part of a slab. When nobody has it any more its pages go back to
// the system, or stay as they are for sockets that refer to them, and the next
// one who gets this part finds fresh ones. A slice of it alone does not keep
// what is in it.
type region struct{ bytes []byte }

// hugePages reports whether the system has huge pages for those who ask.
var hugePages = sync.OnceValue(func() bool {
	setting, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	return err == nil && !bytes.Contains(setting, []byte("[never]"))
})

var slabs struct {
	sync.Mutex
	rest    []byte           // of the latest
	free    map[int][][]byte // by size
	given   int              // bytes that somebody has, or had and were not collected
	collect int              // how many of those call for the collector
}

// sharedMemory returns memory for a chunk's buffer of n bytes, or nil where
// Go's heap is as good.
func sharedMemory(n int) *region {
	if n < leastShared || !hugePages() {
		return nil
	}
	return newRegion(n)
}

// newRegion returns n bytes, rounded up to whole pages, or nil.
func newRegion(n int) *region {
	page := os.Getpagesize()
	n = (n + page - 1) / page * page
	slabs.Lock()
	defer slabs.Unlock()
	var b []byte
	if free := slabs.free[n]; len(free) > 0 {
		b, slabs.free[n] = free[len(free)-1], free[:len(free)-1]
	} else {
		if len(slabs.rest) < n {
			if slabs.rest = newSlab(); slabs.rest == nil {
				return nil
			}
		}
		b, slabs.rest = slabs.rest[:n:n], slabs.rest[n:]
	}
	if slabs.given += n; slabs.given > max(slabs.collect, leastCollect) {
		slabs.collect = 2 * slabs.given // as what is dropped comes back, less
		go runtime.GC()                 // nobody waits for it
	}
	// Here and not when a socket is read: it may take the kernel a while to find
	// huge pages. What is missing comes when it is touched.
	_ = unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	r := &region{b}
	runtime.AddCleanup(r, freeRegion, b)
	return r
}

func freeRegion(b []byte) {
	if unix.Madvise(b, unix.MADV_DONTNEED) != nil {
		return // what is in it may still be on its way
	}
	slabs.Lock()
	defer slabs.Unlock()
	if slabs.free == nil {
		slabs.free = map[int][][]byte{}
	}
	slabs.free[len(b)] = append(slabs.free[len(b)], b)
	slabs.given -= len(b)
	slabs.collect = 2 * slabs.given
}

// newSlab maps memory that begins with a huge page, or returns nil.
func newSlab() []byte {
	p, err := unix.MmapPtr(-1, 0, nil, slabSize+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil
	}
	skip := int(-uintptr(p) % hugePage)
	b := unsafe.Slice((*byte)(p), slabSize+hugePage)[skip : skip+slabSize] // what is around it is never touched
	if unix.Madvise(b, unix.MADV_HUGEPAGE) != nil {
		_ = unix.MunmapPtr(p, slabSize+hugePage)
		return nil
	}
	return b
}
