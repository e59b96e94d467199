// Lists of leaves, which may be longer than one control frame holds.

package protocol

import "encoding/json"

const (
	// pageSize is how many bytes of leaves go into one frame, at most: half of
	// what it may hold, as a single leaf can take 28 KiB of escaped text.
	pageSize = MaxControl / 2
	// maxPaged bounds the leaves of one list: a tree of so many readers.
	maxPaged = 1 << 16
	// maxHeld bounds what a receiver can make its sender hold of leaves: names
	// and texts, and leafSize for each. Of 65,536 leaves each may have 168 bytes.
	maxHeld  = 16 << 20
	leafSize = 88
)

// appendPaged makes the frames of a message that carries leaves: Leaves frames
// with those that do not fit into the last, which has the rest. The texts of
// leaves are cut to what a message may carry.
func appendPaged(leaves []Leaf, last func(rest []Leaf) Message) (frames []byte, err error) {
	leaves = clipLeaves(leaves)
	from, size := 0, 0
	for i := range leaves {
		encoded, err := json.Marshal(&leaves[i])
		if err != nil {
			return nil, err
		}
		if size += len(encoded) + 1; size > pageSize && i > from {
			if frames, err = AppendMessage(frames, &Leaves{Leaves: leaves[from:i]}); err != nil {
				return nil, err
			}
			from, size = i, len(encoded)+1
		}
	}
	return AppendMessage(frames, last(leaves[from:]))
}

// clipLeaves returns leaves with the texts cut to what a message may carry.
// Names are left as they are: one that is cut would be another's.
func clipLeaves(leaves []Leaf) []Leaf {
	clipped := make([]Leaf, len(leaves))
	for i, l := range leaves {
		l.Text = clip(l.Text, maxTextLen)
		if l.Code != "" {
			l.Code = clipCode(l.Code)
		}
		clipped[i] = l
	}
	return clipped
}

// held is what l takes in memory, in bytes.
func (l *Leaf) held() int { return leafSize + len(l.Name) + len(l.Text) + len(l.Code) + len(l.State) }

// pages gathers the frames that appendPaged made. It is the reader's side.
type pages struct {
	leaves []Leaf
	held   int // bytes
}

// add notes the first leaves of a list.
func (p *pages) add(m *Leaves) error {
	for i := range m.Leaves {
		p.held += m.Leaves[i].held()
	}
	if len(p.leaves)+len(m.Leaves) > maxPaged || p.held > maxHeld {
		return Errorf(CodeProtocol, "a list of more than %d leaves or %d bytes", maxPaged, maxHeld)
	}
	p.leaves = append(p.leaves, m.Leaves...)
	return nil
}

// complete returns the whole list that ends with rest.
func (p *pages) complete(rest []Leaf) []Leaf {
	if len(p.leaves) == 0 {
		return rest
	}
	all := append(p.leaves, rest...)
	*p = pages{}
	return all
}

// roll counts what was told of leaves in Progress, each with its latest text.
type roll struct {
	sizes map[string]int
	held  int
}

// note counts the leaves of one Progress.
func (r *roll) note(leaves []Leaf) error {
	if r.sizes == nil {
		r.sizes = map[string]int{}
	}
	for i := range leaves {
		size := leaves[i].held()
		r.held += size - r.sizes[leaves[i].Name]
		r.sizes[leaves[i].Name] = size
	}
	if len(r.sizes) > maxPaged || r.held > maxHeld {
		return Errorf(CodeProtocol, "progress of more than %d leaves or %d bytes", maxPaged, maxHeld)
	}
	return nil
}

// AllUnchanged reports whether all leaves that have not failed had the content
// before: then the sender need not have read it, and has no digest.
func AllUnchanged(leaves []Leaf) bool {
	for _, l := range leaves {
		if l.State != LeafUnchanged && l.State != LeafFailed {
			return false
		}
	}
	return true
}
