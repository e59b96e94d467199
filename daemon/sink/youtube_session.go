// The requests of a resumable upload, and what their answers mean.

package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/sbcast/sbcast/protocol"
)

const (
	// youtubeStall is how long a request may send nothing, or wait for its answer.
	youtubeStall = 20 * time.Second
	// youtubeCancel bounds the giving up of a session.
	youtubeCancel = 5 * time.Second
	// maxAnswer is how much of an answer is read.
	maxAnswer = 256 << 10

	youtubeMedia = "application/octet-stream" // YouTube finds out what it is
)

// youtubeReply is how far a session is.
type youtubeReply struct {
	have  int64  // bytes
	video string // its id, when the session is done
}

// temporary is an error that may pass by itself.
type temporary struct {
	err   error
	after int // seconds to wait, when the service has said so
}

func (t *temporary) Error() string { return t.err.Error() }

func (t *temporary) Unwrap() error { return t.err }

// persist calls try until it succeeds, fails for good, or patience is over. The
// last try is then cut off.
func (y *youtube) persist(parent context.Context, patience time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(parent, patience, protocol.Errorf(protocol.CodeStalled, "no answer within %v", patience))
	defer cancel()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 5*time.Second
	var last error
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		now := try(ctx)
		if now != nil && last != nil && ctx.Err() != nil { // cut off: what the service said before says more
			return struct{}{}, backoff.Permanent(last)
		}
		last = now
		var t *temporary
		switch {
		case last == nil:
			return struct{}{}, nil
		case !errors.As(last, &t):
			return struct{}{}, backoff.Permanent(last)
		case t.after > 0:
			return struct{}{}, &backoff.RetryAfterError{Duration: time.Duration(t.after) * time.Second}
		default:
			return struct{}{}, last
		}
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(patience))
	switch {
	case err == nil:
		return nil
	case parent.Err() != nil:
		return context.Cause(parent)
	default:
		return last
	}
}

// start asks for a session for a file of size bytes, -1 when that is not known.
func (y *youtube) start(ctx context.Context, name string, size int64) (session string, err error) {
	about, err := y.metadata(name)
	if err != nil {
		return "", err
	}
	head := http.Header{"Content-Type": {"application/json; charset=UTF-8"}, "X-Upload-Content-Type": {youtubeMedia}}
	if size >= 0 {
		head.Set("X-Upload-Content-Length", strconv.FormatInt(size, 10))
	}
	a, err := y.call(ctx, http.MethodPost, y.endpoint+"/upload/youtube/v3/videos?uploadType=resumable&part=snippet,status", head, about)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || !y.trusts(u) {
		return "", protocol.Errorf(protocol.CodeIO, "youtube: the service began an upload and did not say where")
	}
	return u.String(), nil
}

// trusts reports whether u may see the token: it is where it was asked for.
func (y *youtube) trusts(u *url.URL) bool {
	endpoint, err := url.Parse(y.endpoint)
	return err == nil && u.Scheme == endpoint.Scheme && (u.Host == endpoint.Host ||
		strings.HasSuffix(endpoint.Host, ".googleapis.com") && strings.HasSuffix(u.Host, ".googleapis.com"))
}

// put sends content that begins at from. Total is -1 when it is not known.
func (y *youtube) put(ctx context.Context, session string, from int64, p []byte, total int64) (youtubeReply, error) {
	text := fmt.Sprintf("bytes %d-%d/%s", from, from+int64(len(p))-1, totalText(total))
	return y.inSession(ctx, session, text, p)
}

// ask asks how far a session is.
func (y *youtube) ask(ctx context.Context, session string, total int64) (youtubeReply, error) {
	return y.inSession(ctx, session, "bytes */"+totalText(total), nil)
}

func totalText(total int64) string {
	if total < 0 {
		return "*"
	}
	return strconv.FormatInt(total, 10)
}

func (y *youtube) inSession(ctx context.Context, session, contentRange string, p []byte) (r youtubeReply, err error) {
	a, err := y.call(ctx, http.MethodPut, session, http.Header{"Content-Range": {contentRange}, "Content-Type": {youtubeMedia}}, p)
	if err != nil {
		return r, err
	}
	if a.status != http.StatusPermanentRedirect {
		var video struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(a.body, &video) != nil || video.ID == "" {
			return r, protocol.Errorf(protocol.CodeIO, "youtube: the service has the video and did not say its id")
		}
		r.video = video.ID
		return r, nil
	}
	// 308 here is "Resume Incomplete"; without a Range there is nothing yet.
	if text := a.header.Get("Range"); text != "" {
		end, ok := strings.CutPrefix(text, "bytes=0-")
		last, err := strconv.ParseInt(end, 10, 62)
		if !ok || err != nil || last < 0 {
			return r, protocol.Errorf(protocol.CodeIO, "youtube: the service says that it has %q", text)
		}
		r.have = last + 1
	}
	return r, nil
}

// cancel gives a session up, as well as that goes.
func (y *youtube) cancel(session string) {
	ctx, stop := context.WithTimeout(context.Background(), youtubeCancel)
	defer stop()
	_, _ = y.call(ctx, http.MethodDelete, session, http.Header{}, nil) // it expires by itself
}

// youtubeAnswer is one that is no error: 2xx or 308.
type youtubeAnswer struct {
	status int
	header http.Header
	body   []byte
}

// call makes a request, and makes it again with a new token when the service
// does not take the old one.
func (y *youtube) call(ctx context.Context, method, to string, head http.Header, body []byte) (*youtubeAnswer, error) {
	token, err := y.key.get(ctx, y.client, "")
	if err != nil {
		return nil, err
	}
	a, err := y.once(ctx, method, to, head, body, token)
	if err == nil && a.status == http.StatusUnauthorized {
		if token, err = y.key.get(ctx, y.client, token); err != nil {
			return nil, err
		}
		a, err = y.once(ctx, method, to, head, body, token)
	}
	if err != nil {
		return nil, err
	}
	return a, a.err()
}

// once makes a request, which is cut off when it stands still.
func (y *youtube) once(ctx context.Context, method, to string, head http.Header, body []byte, token string) (*youtubeAnswer, error) {
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	timer := time.AfterFunc(youtubeStall, func() {
		cut(protocol.Errorf(protocol.CodeStalled, "nothing went on for %v", youtubeStall))
	})
	defer timer.Stop()
	req, err := http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return nil, protocol.Errorf(protocol.CodeInternal, "youtube: %w", unwrapURL(err))
	}
	req.Header = head.Clone()
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("User-Agent", "sbcast")
	if len(body) > 0 {
		content := &moving{r: bytes.NewReader(body), timer: timer}
		defer content.Close()
		req.Body, req.ContentLength = content, int64(len(body))
	}
	resp, err := y.client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		a := &youtubeAnswer{status: resp.StatusCode, header: resp.Header}
		if a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err == nil {
			return a, nil
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return nil, &temporary{err: fmt.Errorf("youtube: %w", webError(err))}
}

// moving is the body of a request that tells when it is read. After an early
// answer the transport may go on reading it for a while; closed, it no longer
// looks at content that belongs to the caller again.
type moving struct {
	timer *time.Timer

	mu sync.Mutex
	r  io.Reader // nil when closed
}

func (m *moving) Read(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.r == nil {
		return 0, io.ErrClosedPipe
	}
	m.timer.Reset(youtubeStall)
	return m.r.Read(p)
}

func (m *moving) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.r = nil
	return nil
}

// err is what an answer means when it is not a good one.
func (a *youtubeAnswer) err() error {
	if a.status/100 == 2 || a.status == http.StatusPermanentRedirect {
		return nil
	}
	var said struct {
		Error struct {
			Message string `json:"message"`
			Errors  []struct {
				Reason string `json:"reason"`
			} `json:"errors"`
		} `json:"error"`
	}
	reason, message := http.StatusText(a.status), ""
	if json.Unmarshal(a.body, &said) == nil {
		message = said.Error.Message
		if len(said.Error.Errors) > 0 {
			reason = said.Error.Errors[0].Reason
		}
	}
	fail := func(code protocol.Code, what string) error {
		return protocol.Errorf(code, "youtube: %s (%d %s: %s)", what, a.status, reason, quoteAnswerText(message))
	}
	switch reason {
	case "quotaExceeded", "dailyLimitExceeded":
		return fail(protocol.CodeNoSpace, "the daily quota of the Google project is used up, it is given anew at midnight, Pacific time")
	case "uploadLimitExceeded":
		return fail(protocol.CodeNoSpace, "the channel may not upload more videos now, try again tomorrow")
	case "rateLimitExceeded", "userRateLimitExceeded":
		return a.temporary(fail(protocol.CodeBusy, "too many requests"))
	case "youtubeSignupRequired":
		return fail(protocol.CodeDenied, "the account has no channel: make one on youtube.com")
	}
	switch {
	case a.status == http.StatusNotFound, a.status == http.StatusGone:
		return fmt.Errorf("%w (%d %s)", errGone, a.status, reason)
	case a.status == http.StatusUnauthorized:
		return fail(protocol.CodeDenied, "the token is not taken: run sbcast youtube login again")
	case a.status == http.StatusForbidden:
		return fail(protocol.CodeDenied, "the upload is not allowed")
	case a.status == http.StatusTooManyRequests, a.status == http.StatusRequestTimeout, a.status >= 500:
		return a.temporary(fail(protocol.CodeBusy, "the service cannot take it now"))
	default:
		return fail(protocol.CodeIO, "the service refused the upload")
	}
}

func (a *youtubeAnswer) temporary(err error) error {
	after, _ := strconv.Atoi(a.header.Get("Retry-After")) // a date is rare: then as it comes
	return &temporary{err: err, after: after}
}

func quoteAnswerText(text string) string {
	if text == "" {
		return "no explanation"
	}
	return strconv.Quote(text[:min(len(text), answerQuote)])
}
