// Push: from a source to the receipts, over as many attempts as it takes.

package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/sbcast/sbcast/protocol"
)

// Backoff between attempts.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
)

// Push sends the content of src and returns a receipt for each reader that is
// known, in the order of the tree. The error is nil when all of them have the
// file, a *PartialError when enough of them for the policy have it, an
// *InputError when the source could not be read, and else says why nothing was
// published.
//
// What fails for reasons that may pass is tried again, from where the readers
// are, until opts.Timeout is over without progress. When ctx ends before the
// commit, the readers keep what helps to resume, or forget the push when the
// cause is protocol.ErrForget.
func (c *Client) Push(ctx context.Context, src Source, opts Options) ([]Receipt, error) {
	if err := opts.setDefaults(src); err != nil {
		return nil, err
	}
	p := &push{src: src, opts: opts, board: newBoard(c.host, string(opts.Name), opts.OnProgress), staged: map[string]bool{}, results: results{host: c.host}}
	defer p.board.stop()
	if err := p.start(); err != nil {
		return nil, err
	}
	defer func() { p.feed.close() }()

	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = retryFirst, retryMost
	var last error
	for attempt := 1; ; attempt++ {
		p.offer.Attempt = attempt
		begun := time.Now()
		receipts, err := p.attempt(ctx, c.dialer)
		if errors.Is(err, errNoAnswer) && last != nil { // what came before says more
			err = last
		}
		last = err
		p.results.merge(receipts)
		if p.board.movedSince(begun) {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		left := p.opts.Timeout - p.board.idle()
		if ctx.Err() != nil || !p.again(err) || left <= 0 {
			return p.results.receipts(), p.verdict(err)
		}
		if err == nil {
			p.board.note("feeding the readers that were left behind")
		} else {
			p.board.note(fmt.Sprintf("%v; trying again", err))
		}
		select {
		case <-time.After(min(wait, left)):
		case <-ctx.Done():
			return p.results.receipts(), context.Cause(ctx)
		}
		if err := p.refresh(); err != nil {
			return p.results.receipts(), err
		}
	}
}

// push is one transfer, seen from its source.
type push struct {
	src   Source
	opts  Options
	stat  Stat
	offer *protocol.Offer
	feed  *feed
	board *board

	sender    *protocol.Sender
	small     *small // what goes with the offer; nil: nothing
	results   results
	staged    map[string]bool // leaves that staged the file in an attempt that got as far as the commit
	committed bool            // the last attempt got as far as the commit
	resumed   bool            // the last attempt did not begin at zero
	fresh     bool            // an attempt has begun again because of a wrong digest
}

// start makes the offer and the feed, of the source as it is now.
func (p *push) start() error {
	stat, err := p.src.Stat()
	if err != nil {
		return err
	}
	fingerprint, err := p.src.Fingerprint()
	if err != nil {
		return err
	}
	p.stat = stat
	p.offer = &protocol.Offer{
		ID: uuid.Must(uuid.NewV7()).String(), Name: p.opts.Name, Size: stat.Size,
		Mode: uint32(stat.Mode.Perm()), MTime: stat.MTime, Fingerprint: fingerprint,
		Digest: p.opts.Digest, Codec: p.opts.Compress.Codec(), Policy: p.opts.Require,
		Force: p.opts.Force, Preserve: p.opts.Preserve,
	}
	p.feed = &feed{src: p.src, size: stat.Size, pace: newPace(p.opts.ChunkSize), alg: p.opts.Digest, compress: p.opts.Compress}
	if stat.Size >= 0 { // a small file needs a small buffer; one byte more, to see its end
		p.feed.pace.begin(int(min(stat.Size+1, protocol.MaxChunk)), 0)
	}
	if p.feed.limit = p.opts.limit; p.feed.limit == nil && p.opts.BWLimit > 0 {
		p.feed.limit = rate.NewLimiter(rate.Limit(p.opts.BWLimit), p.feed.pace.most)
	}
	p.board.begin(stat.Size)
	return nil
}

// refresh begins again from zero when the source has changed since the push
// began.
func (p *push) refresh() error {
	if p.offer.Fingerprint == "" {
		return nil
	}
	fingerprint, err := p.src.Fingerprint()
	if err != nil || fingerprint == p.offer.Fingerprint {
		return err
	}
	p.feed.close()
	attempt := p.offer.Attempt
	err = p.start()
	p.offer.Attempt = attempt
	p.board.note(p.src.Name() + " has changed since the push began: starting again from zero")
	return err
}

// again decides whether what ended an attempt may pass.
func (p *push) again(err error) bool {
	var input *InputError
	var dns *net.DNSError
	switch {
	case err == nil: // readers that are slow or came back get a pass of their own, lost receipts are asked for again
		return p.results.behind() || !p.met() && p.results.retryable()
	case errors.As(err, &input), errors.As(err, &dns) && dns.IsNotFound:
		return false
	case protocol.HasCode(err, protocol.CodeConflict): // of two pushes of a name each may have got some readers
		return true
	case protocol.HasCode(err, protocol.CodeDigest) && p.resumed && !p.fresh:
		p.fresh = true // what was resumed was not of this content: the readers have dropped it
		return true
	default:
		return protocol.AsError(err).Code.Retryable()
	}
}

// attempt does the transfer on a fresh stream.
func (p *push) attempt(ctx context.Context, dialer protocol.Opener) ([]Receipt, error) {
	stream, err := dialer.Open(ctx)
	if err != nil {
		return nil, err
	}
	p.sender = protocol.NewSender(stream, protocol.SenderConfig{
		OnAccept: p.accepted, OnAck: func(offset int64) { p.feed.acked.Store(offset); p.board.ack(offset) },
		OnProgress: p.board.leaves, Stall: p.opts.Timeout * 3 / 4,
	})
	p.board.over(p.sender)
	defer p.board.over(nil)
	defer p.sender.Wait()
	defer p.sender.Close()

	receipts, err := p.transfer(ctx)
	if err == nil {
		return receipts, nil
	}
	if e := protocol.AsError(err); e.Code == protocol.CodeStalled && e.Leaf == "" && len(e.Leaves) == 0 {
		if slow := p.board.slowest(); slow != p.results.host {
			err = e.On(slow)
		}
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var input *InputError
	if errors.Is(err, protocol.ErrForget) || errors.As(err, &input) {
		p.sender.Abort("the sender took it back: " + err.Error())
	}
	return append(receipts, p.failed(err, receipts)...), err
}

// accepted tells the board, before what was sent with the offer is
// acknowledged.
func (p *push) accepted(a *protocol.Accept) {
	p.board.settle(a)
	if p.small != nil && p.small.err == nil {
		p.board.sent(int(max(p.small.finish.Size-a.Offset, 0)))
	}
}

// transfer goes through the exchange: offer, content, finish, commit.
func (p *push) transfer(ctx context.Context) ([]Receipt, error) {
	p.small = p.early(ctx)
	accept, err := p.propose(ctx)
	if err != nil {
		return nil, err
	}
	p.resumed, p.committed = accept.Offset > 0, false
	if p.opts.onAccept != nil {
		p.opts.onAccept(accept.Leaves)
	}
	if err := p.enough(accept.Leaves); err != nil {
		if p.small != nil { // they have all of it, and nobody is to keep it
			p.sender.Abort(err.Error())
		}
		return nil, err
	}
	if p.opts.DryRun {
		return p.dryRun(accept.Leaves), nil
	}
	finish := &protocol.Finish{Size: accept.Offset}
	switch {
	case p.small != nil && p.small.err != nil:
		return nil, p.small.err
	case p.small != nil:
		finish = p.small.finish
	case !p.allUnchanged(accept):
		if err := p.feed.send(ctx, p.sender, accept, p.board.sent); err != nil {
			return nil, err
		}
		finish = p.feed.finish()
	}
	ready, err := p.sender.Finish(ctx, finish)
	if err != nil {
		return nil, err
	}
	p.board.leaves(ready.Leaves)
	if err := p.enough(ready.Leaves); err != nil {
		return nil, err
	}
	p.committed = true
	receipts, err := p.sender.Commit(ctx)
	for i := range receipts { // published by an earlier attempt whose receipt was lost
		if r := &receipts[i]; r.Status == protocol.LeafUnchanged && p.staged[r.Leaf] {
			r.Status = protocol.LeafPublished
		}
	}
	for _, l := range ready.Leaves {
		if l.State == protocol.LeafReady {
			p.staged[l.Name] = true
		}
	}
	p.board.receipts(receipts)
	return receipts, err
}

// propose makes the offer, and waits for the answer until nothing has moved
// for the timeout: readers say so while they check what they have.
func (p *push) propose(ctx context.Context) (*protocol.Accept, error) {
	wait, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begun := time.Now()
	watch := time.NewTicker(max(p.opts.Timeout/20, time.Millisecond))
	defer watch.Stop()
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for {
			select {
			case <-watch.C:
				if min(p.board.idle(), time.Since(begun)) > p.opts.Timeout {
					cancel(errNoAnswer)
				}
			case <-done:
				return
			}
		}
	})
	var accept *protocol.Accept
	var err error
	if p.small != nil {
		accept, err = p.small.offer(wait, p.sender, p.offer)
	} else {
		accept, err = p.sender.Offer(wait, p.offer)
	}
	close(done)
	watcher.Wait()
	if errors.Is(err, errNoAnswer) {
		return nil, protocol.Errorf(protocol.CodeStalled, "%w to the offer for %v%s", errNoAnswer, p.opts.Timeout, p.board.waitingFor())
	}
	return accept, err
}

var errNoAnswer = errors.New("no answer")
