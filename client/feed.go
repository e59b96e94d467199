// The feed: content on its way from a source into a Sender, over as many
// attempts as it takes.

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/sbcast/sbcast/protocol"
)

// receiver is what a feed needs of a Sender.
type receiver interface {
	Send(ctx context.Context, c *protocol.Chunk) error
	Done() <-chan struct{}
	Err() error
}

// feed reads a source once, if all goes well: it keeps the last chunks that it
// sent, a window of them, so that an attempt that follows one that was cut off
// goes on without reading again. Only when the readers have lost more than
// that is the source read from its beginning, where it can be.
//
// One goroutine reads, and sends what the pipeline has sealed. The goroutines
// beside it, compressors and a slow digest, live as long as send does.
type feed struct {
	src      Source
	size     int64 // -1 when unknown
	pace     pace
	alg      protocol.DigestAlg
	compress protocol.Compression
	limit    *rate.Limiter

	r        io.ReadCloser // nil before the first attempt
	pipe     *pipe         // what reads r when it can be read once
	hasher   *protocol.Hasher
	governor *governor
	offset   int64             // of what comes next
	end      bool              // of the source
	sent     []*protocol.Chunk // the last window, in order; one reference each

	// While send runs.
	digester *digester
	pipeline *pipeline
	idle     time.Duration // of the source and the limit, since a chunk was sent
	acked    atomic.Int64  // offset, told by the Sender's goroutine
}

// errRewind says that the readers have lost content that is not kept any more.
func (f *feed) errRewind(offset, kept int64) error {
	return &InputError{Err: protocol.Errorf(protocol.CodeTruncated,
		"%s cannot be read again, and the readers need it from byte %d on, of which only what follows byte %d is kept: push it from a file", f.src.Name(), offset, kept)}
}

// send sends everything from where the readers are.
func (f *feed) send(ctx context.Context, s receiver, a *protocol.Accept, sent func(int)) error {
	offset := a.Offset
	f.acked.Store(offset)
	fits := f.pace.most <= a.MaxChunk
	f.pace.begin(a.MaxChunk, offset)
	if f.r == nil || offset < f.offset && (!fits || !f.keeps(offset)) || f.misses(a) {
		if err := f.rewind(ctx, offset, a.CRC); err != nil {
			return err
		}
	}
	for _, c := range f.sent {
		if c.End() > offset {
			sent(c.RawLen)
			if err := s.Send(ctx, c.Retain()); err != nil {
				return err
			}
		}
	}
	f.start(a.Window, max(offset, f.offset))
	defer f.stop()
	for !f.end || !f.pipeline.empty() {
		var err error
		if f.pipeline.ready() || f.pipeline.full() || f.end {
			err = f.forward(ctx, s, a.Window, sent)
		} else {
			err = f.next(ctx, s, offset)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// start starts what works beside send.
func (f *feed) start(window, offset int64) {
	f.digester = newDigester(f.hasher, aside(f.alg))
	f.pipeline = newPipeline(f.pace.most, window)
	f.governor.start(time.Now(), window, offset, f.size-offset)
	f.idle = 0
}

// stop waits for what start has started. What was read and not sent is kept
// too: the source may not give it again.
func (f *feed) stop() {
	f.digester.close()
	f.pipeline.close()
	for !f.pipeline.empty() {
		c, _ := f.pipeline.take()
		f.sent = append(f.sent, c)
	}
}

// forward sends the next chunk of the pipeline.
func (f *feed) forward(ctx context.Context, s receiver, window int64, sent func(int)) error {
	c, busy := f.pipeline.take()
	f.keep(c.Retain(), window)
	if f.limit != nil {
		begun := time.Now()
		if err := f.limit.WaitN(ctx, c.RawLen); err != nil {
			c.Release()
			return err
		}
		f.waited(begun)
	}
	sent(c.RawLen) // before, for its ack may be told first
	p := passed{content: int64(c.RawLen), wire: int64(len(c.Data())), end: c.End(), busy: busy, idle: f.idle}
	if err := s.Send(ctx, c); err != nil {
		return err
	}
	p.acked = f.acked.Load()
	f.governor.sent(time.Now(), p)
	f.idle = 0
	return nil
}

// waited notes that the source, or the limit, was waited for since begun.
func (f *feed) waited(begun time.Time) { f.idle += time.Since(begun) }

// misses reports whether a wants a CRC that was not computed, and could be: a
// reader that needs one has come late.
func (f *feed) misses(a *protocol.Accept) bool {
	_, once := f.src.(stream)
	return a.CRC && f.hasher.CRC() == nil && !once
}

// keeps reports whether what was sent from offset on is at hand.
func (f *feed) keeps(offset int64) bool {
	return len(f.sent) > 0 && offset >= f.sent[0].Offset
}

// keep adds a chunk to those kept, and lets go of what is older than window.
func (f *feed) keep(c *protocol.Chunk, window int64) {
	f.sent = append(f.sent, c)
	i := 0
	for f.sent[i].End() <= c.Offset-window { // c itself is not sent yet
		f.sent[i].Release()
		i++
	}
	rest := copy(f.sent, f.sent[i:])
	clear(f.sent[rest:])
	f.sent = f.sent[:rest]
}

// rewind begins at the beginning.
func (f *feed) rewind(ctx context.Context, offset int64, crc bool) error {
	again := f.r != nil
	if again {
		if readOnce(f.src) {
			kept := f.offset
			if len(f.sent) > 0 {
				kept = f.sent[0].Offset
			}
			return f.errRewind(offset, kept)
		}
		f.close()
	}
	var err error
	if f.r, err = f.src.Open(ctx); err != nil {
		f.r = nil
		return err
	}
	f.hasher = protocol.NewHasher(f.alg)
	if crc {
		f.hasher.AddCRC(0)
	}
	f.governor = newGovernor(f.compress, runtime.GOMAXPROCS(0))
	f.offset, f.end = 0, false
	if readOnce(f.src) {
		f.pipe = newPipe(f.r)
	}
	return nil
}

// next reads the next chunk and puts it into the pipeline. What the readers
// have, before offset, is only hashed.
func (f *feed) next(ctx context.Context, s receiver, offset int64) error {
	for f.governor.probing(time.Now(), f.acked.Load()) {
		time.Sleep(probePoll)
	}
	size := f.pace.chunk(time.Now(), f.acked.Load())
	var c *protocol.Chunk
	var n int
	var err error
	if f.pipe == nil {
		c = protocol.NewChunk(size)
		n, err = fill(f.r, c.Buffer()[:size])
	} else {
		begun := time.Now()
		n, err = f.pipe.await(ctx, s.Done(), f.pipeline.wake)
		f.waited(begun)
		if n == 0 && err == nil {
			return s.Err()
		}
		n = min(n, size)
		c = protocol.NewChunk(n) // no larger: a window of them is kept
		f.pipe.take(c.Buffer()[:n])
	}
	at := f.offset
	f.offset += int64(n)
	f.digester.write(c, n)
	switch {
	case f.size >= 0 && f.offset > f.size:
		err = f.changed("it has grown beyond the %d bytes it had", f.size)
	case errors.Is(err, io.EOF) && f.size >= 0 && f.offset < f.size:
		err = f.changed("it ended after %d of the %d bytes it had", f.offset, f.size)
	case errors.Is(err, io.EOF):
		f.end, err = true, nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err != nil:
		err = &InputError{Err: fmt.Errorf("read %s: %w", f.src.Name(), withoutOp(err))}
	}
	if err != nil || n == 0 || f.offset <= offset {
		c.Release()
		return err
	}
	compress := f.governor.compress()
	if f.compress == protocol.CompressAuto && f.size >= 0 && f.size <= sampleBytes {
		compress = true // a sample would be all of it
	} else if !compress {
		compress = f.sample(c.Buffer()[:min(n, sampleBytes)])
	}
	f.pipeline.put(c, at, n, compress)
	return nil
}

// sample tells the governor how content compresses, when it wants to know, and
// asks again whether to.
func (f *feed) sample(content []byte) (compress bool) {
	if begun := time.Now(); f.governor.due(begun) {
		encoder := encoders.Get().(*protocol.Encoder)
		size := encoder.Sample(content)
		encoders.Put(encoder)
		now := time.Now()
		f.governor.sample(now, len(content), size, now.Sub(begun))
	}
	return f.governor.compress()
}

// fill reads all of b, unless the file ends.
func fill(r io.Reader, b []byte) (n int, err error) {
	n, err = io.ReadFull(r, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (f *feed) changed(format string, args ...any) error {
	return &InputError{Err: fmt.Errorf("%s changed while it was being read: %s", f.src.Name(), fmt.Sprintf(format, args...))}
}

// finish is the end of what was sent.
func (f *feed) finish() *protocol.Finish {
	return &protocol.Finish{Size: f.offset, Digest: f.hasher.Digest(), CRC: f.hasher.CRC()}
}

// close closes the source and lets go of what is kept.
func (f *feed) close() {
	if f.pipe != nil {
		f.pipe.stop()
		f.pipe = nil
	}
	if f.r != nil {
		f.r.Close()
	}
	for _, c := range f.sent {
		c.Release()
	}
	f.r, f.sent = nil, nil
}
