// Results: the receipts of a push, over all its attempts.

package client

import "github.com/sbcast/sbcast/protocol"

// results keeps the best word of each reader: what is published stays so.
type results struct {
	host   string // what a reader is called that has no name of its own
	order  []string
	byLeaf map[string]Receipt
}

// merge adds the receipts of an attempt.
func (r *results) merge(receipts []Receipt) {
	if r.byLeaf == nil {
		r.byLeaf = map[string]Receipt{}
	}
	for _, rc := range receipts {
		if rc.Leaf == "" {
			rc.Leaf = r.host
		}
		old, known := r.byLeaf[rc.Leaf]
		if !known {
			r.order = append(r.order, rc.Leaf)
		}
		if rc.Status == protocol.LeafFailed {
			rc.Bytes = max(rc.Bytes, old.Bytes)
		}
		if !known || old.Status == protocol.LeafFailed {
			r.byLeaf[rc.Leaf] = rc
		}
	}
}

// receipts is one receipt for each reader.
func (r *results) receipts() []Receipt {
	var all []Receipt
	for _, name := range r.order {
		all = append(all, r.byLeaf[name])
	}
	return all
}

func (r *results) leaves() []protocol.Leaf {
	var all []protocol.Leaf
	for _, name := range r.order {
		rc := r.byLeaf[name]
		all = append(all, protocol.Leaf{Name: rc.Leaf, State: rc.Status, Code: rc.Code, Text: rc.Text})
	}
	return all
}

func (r *results) count() (failed, total int) {
	for _, rc := range r.byLeaf {
		if rc.Status == protocol.LeafFailed {
			failed++
		}
	}
	return failed, len(r.byLeaf)
}

// behind reports whether a reader was left behind that another pass may help:
// it was parked because it is slow, or was lost after it had taken content.
func (r *results) behind() bool {
	return r.any(func(rc Receipt) bool {
		return rc.Code == protocol.CodeParked || rc.Bytes > 0 && rc.Code != protocol.CodeStalled && rc.Code.Retryable()
	})
}

// retryable reports whether a reader failed for a reason that may pass.
func (r *results) retryable() bool {
	return r.any(func(rc Receipt) bool { return rc.Code.Retryable() })
}

func (r *results) any(is func(Receipt) bool) bool {
	for _, rc := range r.byLeaf {
		if rc.Status == protocol.LeafFailed && is(rc) {
			return true
		}
	}
	return false
}
