// Retained: the content that a transfer keeps for hops that have not taken it,
// or that may come back without it.

package daemon

import (
	"sort"

	"github.com/sbcast/sbcast/protocol"
)

// retained is the last of a transfer's content, without gaps. The zero value
// is empty.
type retained struct {
	chunks []*protocol.Chunk // one reference each; nil before head
	head   int
}

// keep adds the next chunk, whose reference it takes.
func (r *retained) keep(c *protocol.Chunk) {
	if r.head > 0 && len(r.chunks) == cap(r.chunks) { // make room instead of growing
		n := copy(r.chunks, r.chunks[r.head:])
		clear(r.chunks[n:])
		r.chunks, r.head = r.chunks[:n], 0
	}
	r.chunks = append(r.chunks, c)
}

// drop lets go of the chunks that end at or before offset.
func (r *retained) drop(offset int64) {
	for r.head < len(r.chunks) && r.chunks[r.head].End() <= offset {
		r.chunks[r.head].Release()
		r.chunks[r.head] = nil
		r.head++
	}
	if r.head == len(r.chunks) {
		r.chunks, r.head = r.chunks[:0], 0
	}
}

// has reports whether all content from offset on is kept, given that what has
// come ends at end.
func (r *retained) has(offset, end int64) bool {
	return offset >= end || r.head < len(r.chunks) && r.chunks[r.head].Offset <= offset
}

// at returns the chunk that has the byte at offset, with a reference for the
// caller, or nil when it has not come yet.
func (r *retained) at(offset int64) *protocol.Chunk {
	kept := r.chunks[r.head:]
	i := sort.Search(len(kept), func(i int) bool { return kept[i].End() > offset })
	if i == len(kept) || kept[i].Offset > offset {
		return nil
	}
	return kept[i].Retain()
}

// limit lets go of the oldest chunks that end at or before offset, until there
// are no more than n: a byte of content may come in a chunk of its own, which
// takes 4 KiB.
func (r *retained) limit(n int, offset int64) {
	for len(r.chunks)-r.head > n && r.chunks[r.head].End() <= offset {
		r.drop(r.chunks[r.head].End())
	}
}
