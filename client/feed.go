// The feed: content on its way from a source into a Sender, over as many
// attempts as it takes.

package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/time/rate"

	"github.com/sbcast/sbcast/protocol"
)

// feed reads a source once, if all goes well: it keeps the last chunks that it
// sent, a window of them, so that an attempt that follows one that was cut off
// goes on without reading again. Only when the readers have lost more than
// that is the source read from its beginning, where it can be.
type feed struct {
	src      Source
	size     int64 // -1 when unknown
	chunk    int
	alg      protocol.DigestAlg
	compress protocol.Compression
	limit    *rate.Limiter

	r       io.ReadCloser // nil before the first attempt
	pipe    *pipe         // what reads r when its size is unknown
	hasher  *protocol.Hasher
	encoder *protocol.Encoder
	offset  int64             // of what comes next
	end     bool              // of the source
	sent    []*protocol.Chunk // the last window, in order; one reference each
}

// errRewind says that the readers have lost content that is not kept any more.
func (f *feed) errRewind(offset, kept int64) error {
	return &InputError{Err: fmt.Errorf(
		"%s cannot be read again, and the readers need it from byte %d on, of which only what follows byte %d is kept: push it from a file", f.src.Name(), offset, kept)}
}

// send sends everything from where the readers are.
func (f *feed) send(ctx context.Context, s *protocol.Sender, a *protocol.Accept, sent func(int)) error {
	offset := a.Offset
	fits := f.chunk <= a.MaxChunk
	f.chunk = min(f.chunk, a.MaxChunk)
	if f.r == nil || offset < f.offset && (!fits || !f.keeps(offset)) {
		if err := f.rewind(ctx, offset); err != nil {
			return err
		}
	}
	for _, c := range f.sent {
		if c.End() > offset {
			if err := s.Send(ctx, c.Retain()); err != nil {
				return err
			}
			sent(c.RawLen)
		}
	}
	for !f.end {
		c, err := f.next(ctx, s, offset)
		if err != nil {
			return err
		}
		if c == nil {
			continue
		}
		f.keep(c.Retain(), a.Window)
		n := c.RawLen
		if err := s.Send(ctx, c); err != nil {
			return err
		}
		sent(n)
	}
	return nil
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
func (f *feed) rewind(ctx context.Context, offset int64) error {
	again := f.r != nil
	if again {
		if _, once := f.src.(stream); once {
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
	f.hasher, f.encoder = protocol.NewHasher(f.alg), protocol.NewEncoder(f.compress)
	f.offset, f.end = 0, false
	if f.size < 0 {
		f.pipe = newPipe(f.r)
	}
	return nil
}

// next reads the next chunk. What the readers have, before offset, is hashed
// and not returned.
func (f *feed) next(ctx context.Context, s *protocol.Sender, offset int64) (*protocol.Chunk, error) {
	c := protocol.NewChunk(f.chunk)
	var n int
	var err error
	if f.size >= 0 {
		n, err = fill(f.r, c.Buffer()[:f.chunk])
	} else if n, err = f.pipe.read(ctx, s.Done(), c.Buffer()[:f.chunk]); n == 0 && err == nil {
		c.Release()
		return nil, s.Err()
	}
	at := f.offset
	f.offset += int64(n)
	_, _ = f.hasher.Write(c.Buffer()[:n])
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
	if err == nil && n > 0 && f.offset > offset && f.limit != nil {
		err = f.limit.WaitN(ctx, n)
	}
	if err != nil || n == 0 || f.offset <= offset {
		c.Release()
		return nil, err
	}
	return f.encoder.Seal(c, at, n), nil
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
