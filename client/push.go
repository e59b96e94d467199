// Push: from a source to the receipts.

package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/sbcast/sbcast/protocol"
)

// Push sends the content of src and returns a receipt for each reader that is
// known, in the order of the tree. The error is nil when all of them have the
// file, a *PartialError when enough of them for the policy have it, an
// *InputError when the source could not be read, and else says why nothing was
// published. When ctx ends before the commit, the readers forget the push.
func (c *Client) Push(ctx context.Context, src Source, opts Options) ([]Receipt, error) {
	if err := opts.setDefaults(src); err != nil {
		return nil, err
	}
	stat, err := src.Stat()
	if err != nil {
		return nil, err
	}
	p := &push{
		src: src, opts: opts, host: c.host, board: newBoard(c.host, opts.Name, stat.Size, opts.OnProgress),
		offer: &protocol.Offer{
			ID: uuid.Must(uuid.NewV7()).String(), Attempt: 1,
			Name: opts.Name, Size: stat.Size, Mode: uint32(stat.Mode.Perm()), MTime: stat.MTime,
			Digest: opts.Digest, Codec: opts.Compress.Codec(), Policy: opts.Require,
			Force: opts.Force, Preserve: opts.Preserve,
		},
	}
	defer p.board.stop()
	stream, err := c.dialer.Open(ctx)
	if err != nil {
		return nil, err
	}
	receipts, err := p.run(ctx, stream)
	return p.label(receipts), err
}

// push is one transfer, seen from its source.
type push struct {
	src   Source
	opts  Options
	host  string
	offer *protocol.Offer
	board *board

	sender *protocol.Sender
	bytes  int64
	digest protocol.Digest
}

// run does the transfer on stream.
func (p *push) run(ctx context.Context, stream protocol.Stream) ([]Receipt, error) {
	p.sender = protocol.NewSender(stream, protocol.SenderConfig{
		OnAck: p.board.ack, OnProgress: p.board.leaves, Stall: p.opts.Timeout,
	})
	defer p.sender.Wait()
	defer p.sender.Close()

	receipts, err := p.transfer(ctx)
	if err == nil {
		return receipts, p.verdict(receipts)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	p.sender.Abort(err.Error())
	if receipts == nil {
		receipts = p.failed(err)
	}
	return receipts, err
}

// transfer goes through the exchange: offer, content, finish, commit.
func (p *push) transfer(ctx context.Context) ([]Receipt, error) {
	accept, err := p.propose(ctx)
	if err != nil {
		return nil, err
	}
	p.board.settle(accept.Leaves)
	if err := p.enough(accept.Leaves); err != nil {
		return nil, err
	}
	if p.opts.DryRun {
		return p.dryRun(accept.Leaves), nil
	}
	if err := p.content(ctx, accept); err != nil {
		return nil, err
	}
	ready, err := p.sender.Finish(ctx, &protocol.Finish{Size: p.bytes, Digest: p.digest})
	if err != nil {
		return nil, err
	}
	p.board.leaves(ready.Leaves)
	if err := p.enough(ready.Leaves); err != nil {
		return nil, err
	}
	receipts, err := p.sender.Commit(ctx)
	p.board.receipts(receipts)
	return receipts, err
}

// propose makes the offer, and waits for the answer no longer than the timeout.
func (p *push) propose(ctx context.Context) (*protocol.Accept, error) {
	wait, cancel := context.WithTimeoutCause(ctx, p.opts.Timeout, errNoAnswer)
	defer cancel()
	accept, err := p.sender.Offer(wait, p.offer)
	if errors.Is(err, errNoAnswer) {
		return nil, protocol.Errorf(protocol.CodeStalled, "no answer to the offer for %v%s", p.opts.Timeout, p.board.waitingFor())
	}
	return accept, err
}

var errNoAnswer = errors.New("no answer")

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

// content reads the source and sends it, from where the readers are.
func (p *push) content(ctx context.Context, accept *protocol.Accept) error {
	r, err := p.src.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	size := min(p.opts.ChunkSize, accept.MaxChunk)
	hasher := protocol.NewHasher(p.opts.Digest)
	encoder := protocol.NewEncoder(p.opts.Compress)
	var limit *rate.Limiter
	if p.opts.BWLimit > 0 {
		limit = rate.NewLimiter(rate.Limit(p.opts.BWLimit), size)
	}
	for {
		c := protocol.NewChunk(size)
		n, err := fill(r, c.Buffer()[:size], p.offer.Size >= 0)
		if n == 0 {
			c.Release()
		} else {
			_, _ = hasher.Write(c.Buffer()[:n])
			if limit != nil {
				if err := limit.WaitN(ctx, n); err != nil {
					return err
				}
			}
			if p.bytes += int64(n); p.offer.Size >= 0 && p.bytes > p.offer.Size {
				return p.changed("it has grown beyond the %d bytes it had", p.offer.Size)
			}
			if err := p.sender.Send(ctx, encoder.Seal(c, p.bytes-int64(n), n)); err != nil {
				return err
			}
			p.board.sent(p.bytes)
		}
		switch {
		case errors.Is(err, io.EOF) && p.offer.Size >= 0 && p.bytes < p.offer.Size:
			return p.changed("it ended after %d of the %d bytes it had", p.bytes, p.offer.Size)
		case errors.Is(err, io.EOF):
			p.digest = hasher.Digest()
			return nil
		case err != nil:
			return &InputError{Err: fmt.Errorf("read %s: %w", p.src.Name(), withoutOp(err))}
		}
	}
}

// fill reads into b: all of it from a file, what is there from a pipe, so that
// slow input goes out as it comes.
func fill(r io.Reader, b []byte, whole bool) (n int, err error) {
	if !whole {
		return r.Read(b)
	}
	n, err = io.ReadFull(r, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (p *push) changed(format string, args ...any) error {
	return &InputError{Err: fmt.Errorf("%s changed while it was being read: %s", p.src.Name(), fmt.Sprintf(format, args...))}
}

// verdict is what the receipts mean for the push.
func (p *push) verdict(receipts []Receipt) error {
	failed := 0
	for _, r := range receipts {
		if r.Status == protocol.LeafFailed {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	if len(receipts)-failed >= p.offer.Policy.Needs(len(receipts)) {
		return &PartialError{Failed: failed, Total: len(receipts)}
	}
	var leaves []protocol.Leaf
	for _, r := range receipts {
		leaves = append(leaves, protocol.Leaf{Name: r.Leaf, State: r.Status, Code: r.Code, Text: r.Text})
	}
	return protocol.Combine(leaves)
}

// failed makes receipts out of what is known when err ended the push before
// the commit: nobody has published.
func (p *push) failed(err error) []Receipt {
	e := protocol.AsError(err)
	leaves := e.Leaves
	if len(leaves) == 0 {
		leaves = p.board.snapshot().Leaves
	}
	var all []Receipt
	for _, l := range leaves {
		r := Receipt{Leaf: l.Name, Status: protocol.LeafFailed, Bytes: l.Offset, Code: l.Code, Text: l.Text, Seconds: p.board.seconds()}
		switch {
		case l.State == protocol.LeafFailed:
		case e.Leaf == l.Name:
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
		if l.State == protocol.LeafFailed {
			r.Status = l.State
		}
		all = append(all, r)
	}
	return all
}

// label names a reader that was pushed to directly: it has no name but the host's.
func (p *push) label(receipts []Receipt) []Receipt {
	for i := range receipts {
		if receipts[i].Leaf == "" {
			receipts[i].Leaf = p.host
		}
	}
	return receipts
}
