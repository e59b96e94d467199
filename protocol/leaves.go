// Lists of leaves, which may be longer than one control frame holds.

package protocol

import "encoding/json"

const (
	// pageSize is how many bytes of leaves go into one frame, at most: half of
	// what it may hold, as a single leaf can take 28 KiB of escaped text.
	pageSize = MaxControl / 2
	// maxPaged bounds the leaves of one list: a tree of so many readers.
	maxPaged = 1 << 16
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

// pages gathers the frames that appendPaged made. It is the reader's side.
type pages []Leaf

// add notes the first leaves of a list.
func (p *pages) add(m *Leaves) error {
	if len(*p)+len(m.Leaves) > maxPaged {
		return Errorf(CodeProtocol, "a list of more than %d leaves", maxPaged)
	}
	*p = append(*p, m.Leaves...)
	return nil
}

// complete returns the whole list that ends with rest.
func (p *pages) complete(rest []Leaf) []Leaf {
	if len(*p) == 0 {
		return rest
	}
	all := append(*p, rest...)
	*p = nil
	return all
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
