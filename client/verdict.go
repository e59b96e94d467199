// Verdicts: what the states and receipts of the readers mean for a push.

package client

import (
	"fmt"

	"github.com/sbcast/sbcast/protocol"
)

// allUnchanged reports whether nothing needs to be sent, nor read.
func (p *push) allUnchanged(a *protocol.Accept) bool {
	return a.Offset == p.offer.Size && protocol.AllUnchanged(a.Leaves)
}

// enough checks the policy against how the leaves stand.
func (p *push) enough(leaves []protocol.Leaf) error {
	good := 0
	for _, l := range leaves {
		if l.State != protocol.LeafFailed {
			good++
		}
	}
	needs := p.offer.Policy.Needs(len(leaves))
	switch {
	case good >= needs:
		return nil
	case good < len(leaves):
		e := protocol.Combine(leaves)
		return &protocol.Error{
			Code: e.Code, Leaf: e.Leaf, Leaves: leaves,
			Text: fmt.Sprintf("%s (%d of %d readers could, --require is %s)", e.Text, good, len(leaves), p.offer.Policy),
		}
	default:
		return protocol.Errorf(protocol.CodePolicy, "--require %s, but there are only %d readers", p.offer.Policy, len(leaves))
	}
}

// verdict is what the results mean for the push, when err was the last error.
func (p *push) verdict(err error) error {
	failed, total := p.results.count()
	switch met := p.met(); {
	case failed > 0 && met:
		return &PartialError{Failed: failed, Total: total}
	case err == nil && failed > 0:
		return protocol.Combine(p.results.leaves())
	case failed == 0 && met:
		return nil
	default:
		return err
	}
}

// met reports whether the results meet the policy.
func (p *push) met() bool {
	failed, total := p.results.count()
	return total > 0 && total-failed >= p.offer.Policy.Needs(total)
}

// failed makes receipts for the leaves that have none, when err ended an
// attempt: before the commit nobody has published, after it they may have.
func (p *push) failed(err error, have []Receipt) []Receipt {
	has := map[string]bool{}
	for _, r := range have {
		has[r.Leaf] = true
	}
	e := protocol.AsError(err)
	culprit := e.Leaf
	if culprit == "" {
		culprit = p.results.host // a reader that was pushed to directly
	}
	leaves := e.Leaves
	if len(leaves) == 0 {
		leaves = p.board.snapshot().Leaves
	}
	var all []Receipt
	for _, l := range leaves {
		if has[l.Name] || has[""] {
			continue
		}
		r := Receipt{Leaf: l.Name, Status: protocol.LeafFailed, Bytes: l.Offset, Code: l.Code, Text: l.Text, Seconds: p.board.seconds()}
		switch {
		case l.State == protocol.LeafFailed:
		case p.committed:
			r.Code, r.Text = e.Code, "no receipt came, it may have published: push again to find out ("+err.Error()+")"
		case l.Name == culprit || l.Name == "":
			r.Code, r.Text = e.Code, e.Text
		default:
			r.Code, r.Text = protocol.CodePolicy, "not published: "+err.Error()
		}
		all = append(all, r)
	}
	return all
}

// dryRun makes receipts of the readers' answers to the offer: ready or failed.
func (p *push) dryRun(leaves []protocol.Leaf) []Receipt {
	p.sender.Abort("dry run")
	var all []Receipt
	for _, l := range leaves {
		r := Receipt{Leaf: l.Name, Status: protocol.LeafReady, Code: l.Code, Text: l.Text}
		if l.State == protocol.LeafFailed || l.State == protocol.LeafUnchanged {
			r.Status = l.State
		}
		all = append(all, r)
	}
	return all
}
