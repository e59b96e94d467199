// One file on its way to a web server.

package sink

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

const (
	// httpPiece is how much the server must take within HTTPOptions.Stall.
	httpPiece = 64 << 10
	// answerQuote is how much of an answer goes into an error.
	answerQuote = 512
)

// The header fields that tell of a digest: the algorithm of RFC 9530 where it
// has it, and sbcast's own for all.
const (
	digestField     = "Sbcast-Digest"
	reprDigestField = "Repr-Digest"
)

// httpFile is a request whose body is written as content comes. It begins with
// the first byte: who only asks whether a file would be taken sends none.
type httpFile struct {
	store     *httpStore
	url       *url.URL
	key       string // what nobody else may send meanwhile
	offer     *protocol.Offer
	life      context.Context
	published bool // it was there
	released  bool

	// Once the request has begun.
	body   *io.PipeWriter
	cut    context.CancelCauseFunc
	req    *http.Request
	answer chan struct{} // closed when there is resp or err
	resp   *http.Response
	quote  string // of its body
	err    error

	size   int64
	held   []byte // the last byte, where a server that counts would have all with it
	digest protocol.Digest
}

// counted reports whether the size goes ahead of the content.
func (f *httpFile) counted() bool { return f.offer.Size >= 0 && !f.store.opts.Trailer }

// begin sends the head of the request.
func (f *httpFile) begin() error {
	ctx, cut := context.WithCancelCause(f.life)
	r, w := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, f.store.opts.Method, f.url.String(), r)
	if err != nil {
		cut(nil)
		return protocol.Errorf(protocol.CodeName, "%s: %w", f, unwrapURL(err))
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	f.store.fields(req)
	req.Header.Set("Sbcast-Transfer", f.offer.ID)
	req.Header.Set("Sbcast-Name", escapePath(string(f.offer.Name)))
	req.Header.Set("Idempotency-Key", strconv.Quote(f.offer.ID))
	if req.Method == http.MethodPut && !f.offer.Force {
		req.Header.Set("If-None-Match", "*")
	}
	switch {
	case f.counted() && f.offer.Size == 0:
		req.Body = http.NoBody
	case f.counted():
		req.ContentLength = f.offer.Size
		req.Header.Set("Expect", "100-continue") // so that what is not wanted is not sent
	default:
		req.ContentLength = -1
		req.Header.Set("Expect", "100-continue")
		req.Trailer = f.trailer()
	}
	f.body, f.cut, f.req, f.answer = w, cut, req, make(chan struct{})
	go f.run(r)
	return nil
}

// trailer names what is sent after the content.
func (f *httpFile) trailer() http.Header {
	switch f.offer.Digest {
	case protocol.DigestNone:
		return nil
	case protocol.DigestSHA256:
		return http.Header{digestField: nil, reprDigestField: nil}
	default:
		return http.Header{digestField: nil}
	}
}

// run waits for the answer. It ends when the server has answered, or with cut.
func (f *httpFile) run(body *io.PipeReader) {
	defer close(f.answer)
	f.resp, f.err = f.store.client.Do(f.req)
	body.CloseWithError(errAnswered) // a Write under way returns
	if f.err != nil {
		return
	}
	defer f.resp.Body.Close()
	if f.resp.StatusCode/100 != 2 {
		timer := time.AfterFunc(f.store.opts.Stall, func() { f.cut(errAnswered) })
		defer timer.Stop()
		f.quote = quoteAnswer(f.resp.Body)
	}
}

var (
	errAnswered = errors.New("the server has answered")
	errCut      = errors.New("given up")
)

// Write sends p, all but the last byte of a file whose size the server knows.
func (f *httpFile) Write(p []byte) (int, error) {
	if f.published {
		return 0, protocol.Errorf(protocol.CodeInternal, "content for a file that is published already")
	}
	if f.req == nil {
		if err := f.begin(); err != nil {
			return 0, err
		}
	}
	f.size += int64(len(p))
	rest := p
	if f.counted() && f.size >= f.offer.Size {
		rest, f.held = p[:len(p)-1], append(f.held, p[len(p)-1])
	}
	for len(rest) > 0 {
		n, err := f.send(rest[:min(len(rest), httpPiece)])
		if err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// send writes one piece, for which the server has HTTPOptions.Stall.
func (f *httpFile) send(piece []byte) (int, error) {
	stall := protocol.Errorf(protocol.CodeStalled, "%s: the server took nothing for %v", f, f.store.opts.Stall)
	timer := time.AfterFunc(f.store.opts.Stall, func() { f.cut(stall) })
	defer timer.Stop()
	n, err := f.body.Write(piece)
	if err == nil {
		return n, nil
	}
	<-f.answer // which is why the body was closed
	return n, f.early()
}

// early is the error that an answer is before the server has all content.
func (f *httpFile) early() error {
	if f.req == nil {
		return nil
	}
	select {
	case <-f.answer:
		if err := f.verdict(); err != nil {
			return err
		}
		return protocol.Errorf(protocol.CodeIO, "%s: the server answered %s before it had all content", f, f.resp.Status)
	default:
		return nil
	}
}

// Stage waits for nothing: what the server makes durable before it has all is
// not known. An answer that is there already is heard.
func (f *httpFile) Stage(_ context.Context, digest protocol.Digest) error {
	f.digest = digest
	return f.early()
}

// Publish sends the end of the content and waits for the answer.
func (f *httpFile) Publish(ctx context.Context) (Published, error) {
	if f.published {
		f.release()
		return Published{Location: f.String(), Unchanged: true}, nil
	}
	if err := f.early(); err != nil {
		return Published{}, err
	}
	if f.req == nil {
		if err := f.begin(); err != nil {
			return Published{}, err
		}
	}
	stop := context.AfterFunc(ctx, func() { f.cut(context.Cause(ctx)) })
	defer stop()
	f.setTrailer()
	if len(f.held) > 0 {
		if _, err := f.send(f.held); err != nil {
			return Published{}, err
		}
	}
	f.body.Close()
	late := protocol.Errorf(protocol.CodeStalled, "%s: the server has all content and no answer for %v; whether the file is there is not known", f, f.store.opts.Answer)
	timer := time.AfterFunc(f.store.opts.Answer, func() { f.cut(late) })
	defer timer.Stop()
	<-f.answer
	if err := f.verdict(); err != nil {
		return Published{}, err
	}
	f.note()
	p := Published{Location: f.location()}
	f.close()
	return p, nil
}

// setTrailer gives the trailer its values, before the body ends.
func (f *httpFile) setTrailer() {
	if f.req.Trailer == nil || f.digest == "" {
		return
	}
	f.req.Trailer.Set(digestField, string(f.digest))
	if _, sum, ok := strings.Cut(string(f.digest), ":"); ok && f.digest.Algorithm() == protocol.DigestSHA256 {
		if b, err := hex.DecodeString(sum); err == nil {
			f.req.Trailer.Set(reprDigestField, "sha-256=:"+base64.StdEncoding.EncodeToString(b)+":")
		}
	}
}

// verdict is what the answer means; nil is that the server has the file.
func (f *httpFile) verdict() error {
	if cause := context.Cause(f.req.Context()); cause != nil && f.err != nil {
		return cause
	}
	if f.err != nil {
		err := webError(f.err)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return protocol.Errorf(protocol.CodeUnreachable, "%s: the server closed the connection without an answer", f)
		}
		return fmt.Errorf("%s: %w", f, err)
	}
	switch status := f.resp.StatusCode; {
	case status/100 == 2:
		return nil
	case status/100 == 3:
		to := "nowhere"
		if u, err := f.resp.Location(); err == nil {
			to = shownURL(u)
		}
		return protocol.Errorf(protocol.CodeIO, "%s: the server answered %s to %s: redirects are not followed, give the sink that URL", f, f.resp.Status, to)
	default:
		text := fmt.Sprintf("%s: the server answered %s%s", f, f.resp.Status, f.quote)
		if status == http.StatusPreconditionFailed {
			text += "; --force replaces what is there"
		}
		return protocol.Errorf(codeOfStatus(status), "%s", text)
	}
}

// codeOfStatus is what a status that is no success means to the push.
func codeOfStatus(status int) protocol.Code {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusProxyAuthRequired:
		return protocol.CodeDenied
	case status == http.StatusConflict, status == http.StatusPreconditionFailed:
		return protocol.CodeExists
	case status == http.StatusRequestEntityTooLarge:
		return protocol.CodeTooLarge
	case status == http.StatusInsufficientStorage:
		return protocol.CodeNoSpace
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500:
		return protocol.CodeBusy
	default:
		return protocol.CodeIO
	}
}

// quoteAnswer is the beginning of a body, for an error.
func quoteAnswer(body io.Reader) string {
	b, _ := io.ReadAll(io.LimitReader(body, answerQuote))
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(b), "?")), " ")
	if text == "" {
		return ""
	}
	return ": " + strconv.Quote(text)
}

// location is where the server says that the file is, or where it was sent.
func (f *httpFile) location() string {
	if u, err := f.resp.Location(); err == nil {
		return shownURL(u)
	}
	return f.String()
}

// note keeps what makes the same push again cost a round trip: it can be known
// again where the server gives it a strong validator.
func (f *httpFile) note() {
	etag := f.resp.Header.Get("ETag")
	if etag == "" || strings.HasPrefix(etag, "W/") {
		_ = f.store.notes.drop(f.key) // only spares work
		return
	}
	_ = f.store.notes.save(f.key, httpNote{Name: string(f.offer.Name), Source: sourceKey(f.offer), Digest: f.digest, Size: f.size, ETag: etag})
}

// Discard cuts the connection, when the request is not answered yet.
func (f *httpFile) Discard(bool) { f.close() }

func (f *httpFile) close() {
	if f.req != nil {
		f.cut(errCut) // before the body ends, which the server could take for the file's end
		f.body.CloseWithError(errCut)
		<-f.answer
	}
	f.release()
}

func (f *httpFile) release() {
	if !f.released {
		f.released = true
		f.store.notes.release(f.key)
	}
}

// String is the URL as it may be shown.
func (f *httpFile) String() string { return shownURL(f.url) }
