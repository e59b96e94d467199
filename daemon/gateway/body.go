// The body of an upload, which may be slow, endless or cut off.

package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// A client that is waited for sends so much, on average over so many stall
// timeouts of waiting: one that sends a byte now and then would hold an upload
// for as long as it likes.
const (
	minRate    = 256 // bytes a second
	slowStalls = 5
)

// body reads the content of a request. Whoever reads waits no longer than the
// stall timeout for the client, and not for long where little comes; while
// nobody reads, because the readers have no room, the client may wait for as
// long as they take. The first error stays.
type body struct {
	r     io.Reader
	until func(time.Time) error // sets the deadline of a read
	stall time.Duration
	asks  bool // the client sends nothing until it is told to, by the first read

	reading sync.Mutex // held during a read, guards these
	waited  time.Duration
	got     int64 // bytes, while waited

	mu      sync.Mutex // guards the rest
	begun   bool
	stopped bool
	err     error
}

func newBody(r *http.Request, control *http.ResponseController, stall time.Duration) *body {
	return &body{r: r.Body, until: control.SetReadDeadline, stall: stall, asks: r.Header.Get("Expect") != ""}
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if err := b.arm(); err != nil {
		return 0, err
	}
	begun := time.Now()
	n, err := b.r.Read(p)
	if err == nil {
		err = b.keepUp(n, time.Since(begun))
	}
	if err != nil {
		err = b.end(err)
	}
	return n, err
}

// errSlow is what keepUp finds.
var errSlow = errors.New("too slow")

// keepUp notes that n bytes came in a time, and fails when it were too few for
// too long.
func (b *body) keepUp(n int, in time.Duration) error {
	b.waited += in
	b.got += int64(n)
	if b.waited < slowStalls*b.stall {
		return nil
	}
	if float64(b.got) < minRate*b.waited.Seconds() {
		return errSlow
	}
	b.waited, b.got = 0, 0
	return nil
}

// arm sets the deadline for the next read.
func (b *body) arm() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	b.begun = true
	_ = b.until(time.Now().Add(b.stall))
	return nil
}

// end notes why nothing more comes, in the words of the answer.
func (b *body) end(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case errors.Is(err, io.EOF):
		_ = b.until(time.Time{}) // net/http waits for the client to hang up
	case b.stopped:
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = refuse(http.StatusRequestTimeout, protocol.CodeStalled, "the client sent nothing for %v: nothing is published", b.stall)
	case errors.Is(err, errSlow):
		err = refuse(http.StatusRequestTimeout, protocol.CodeStalled, "the client sent less than %d bytes a second for %v: nothing is published", minRate, slowStalls*b.stall)
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = refuse(http.StatusBadRequest, protocol.CodeTruncated, "the body ended before its end: nothing is published")
	default:
		err = refuse(http.StatusBadRequest, protocol.CodeTruncated, "the body could not be read: %v: nothing is published", err)
	}
	if b.err == nil {
		b.err = err
	}
	return b.err
}

// stop is for when the answer is known: there are no more reads, and one that
// is under way ends soon; linger waits for it. It is not cut off, as the end of
// a body in chunks cannot be found after that. Stop reports whether the body
// had been read to its end, so that the connection can go on.
func (b *body) stop() (whole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if errors.Is(b.err, io.EOF) {
		return true
	}
	b.stopped = true
	if b.err == nil {
		b.err = errStopped
	}
	_ = b.until(time.Now().Add(lingerTimeout))
	return false
}

var errStopped = errors.New("nobody reads the body any more")

// failure is why the body could not be read, nil when that is not why an
// upload has failed.
func (b *body) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var r *refusal
	if errors.As(b.err, &r) {
		return r
	}
	return nil
}

// gone ends a push whose client's connection has failed: nobody comes back for
// it, so the readers are to forget it. A read that has just found out why is
// waited for.
func (b *body) gone() error {
	b.reading.Lock()
	defer b.reading.Unlock()
	if why := b.failure(); why != nil {
		return &goneError{why}
	}
	return &goneError{errors.New("the HTTP client went away")}
}

type goneError struct{ why error }

func (e *goneError) Error() string { return e.why.Error() }

func (e *goneError) Unwrap() []error { return []error{e.why, protocol.ErrForget, context.Canceled} }

// linger reads on for a while, after stop and the answer, unless the client has
// nothing to send. One that has not seen the answer yet goes on sending, and a
// connection closed over what it sent would be reset, and the answer lost with
// it. When linger returns nobody reads any more.
func (b *body) linger() {
	b.mu.Lock()
	silent := b.asks && !b.begun
	b.mu.Unlock()
	b.reading.Lock()
	defer b.reading.Unlock()
	if !silent {
		_, _ = io.Copy(io.Discard, b.r)
	}
}

// limited is the content of one file, which may not be larger than most.
type limited struct {
	r    io.Reader
	left int64
	most int64
	err  error
}

// limit bounds r to most bytes; 0 is no bound.
func limit(r io.Reader, most int64) io.Reader {
	if most == 0 {
		return r
	}
	return &limited{r: r, left: most, most: most}
}

func (l *limited) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	if int64(len(p))-1 > l.left { // one more, to see that there is more
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	if int64(n) > l.left {
		l.err = errTooLarge(l.most)
		return int(l.left), l.err
	}
	l.left -= int64(n)
	return n, err
}

func errTooLarge(most int64) error {
	return refuse(http.StatusRequestEntityTooLarge, protocol.CodeTooLarge, "the file is larger than the %d bytes that --http-max-size allows", most)
}
