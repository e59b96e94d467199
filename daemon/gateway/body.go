// The body of an upload, which may be slow, endless or cut off.

package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// body reads the content of a request. Whoever reads waits no longer than the
// stall timeout for the client; while nobody reads, because the readers have no
// room, the client may wait for as long as they take. The first error stays.
type body struct {
	r     io.Reader
	until func(time.Time) error // sets the deadline of a read
	stall time.Duration

	reading sync.Mutex // held during a read

	mu      sync.Mutex // guards the rest
	begun   bool
	stopped bool
	err     error
}

func newBody(r io.Reader, control *http.ResponseController, stall time.Duration) *body {
	return &body{r: r, until: control.SetReadDeadline, stall: stall}
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if err := b.arm(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if err != nil {
		err = b.end(err)
	}
	return n, err
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

// stop ends a read under way and waits for it. It reports whether the body had
// been read to its end, so that the connection can go on.
func (b *body) stop() (whole bool) {
	b.mu.Lock()
	whole = errors.Is(b.err, io.EOF)
	if !whole {
		b.stopped = true
		if b.err == nil {
			b.err = errStopped
		}
		_ = b.until(time.Unix(1, 0))
	}
	b.mu.Unlock()
	b.reading.Lock() // a read that is over notices nothing
	defer b.reading.Unlock()
	return whole
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

// linger reads on for a while, after stop and the answer. A client that has not
// seen the answer yet goes on sending, and a connection closed over what it
// sent would be reset, and the answer lost with it.
func (b *body) linger(w http.ResponseWriter) {
	b.mu.Lock()
	begun := b.begun
	b.mu.Unlock()
	if !begun {
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.Copy(io.Discard, b.r)
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
	if int64(len(p)) > l.left+1 { // one more, to see that there is more
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
