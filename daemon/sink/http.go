// The store that sends files to a web server.

package sink

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// The deadlines of HTTPOptions, when those are 0. A stall is found before a
// broadcaster gives the reader up for it, so that the receipt names the cause.
const (
	DefaultHTTPStall  = 20 * time.Second
	DefaultHTTPAnswer = 10 * time.Minute
)

// httpDial bounds each of connecting, the TLS handshake, and asking whether
// there is a file already.
const httpDial = 10 * time.Second

// publishedFor is how long a file that was published elsewhere is remembered,
// so that the same push again costs a round trip.
const publishedFor = 30 * 24 * time.Hour

// nameInURL is what a URL has where the name of a file goes.
const nameInURL = "{name}"

// HTTPOptions say how the stores http: and https: send. The zero value is good.
type HTTPOptions struct {
	Method  string        // PUT or POST; "": PUT
	Header  http.Header   // further fields for each request
	CA      string        // file of PEM certificates to trust; "": the system's
	Trailer bool          // send the digest after the content, which needs chunked coding
	Stall   time.Duration // how long the server may take nothing; 0: DefaultHTTPStall
	Answer  time.Duration // how long it may think when it has all; 0: DefaultHTTPAnswer
}

// httpStore makes a request of each file. The end of its body is held back
// until commit; an abort cuts the connection, so that the server sees a body
// that is not whole. Requests have a connection each, HTTP/1.1: there, a cut
// is nothing but a cut.
type httpStore struct {
	url    *url.URL // of which path and query may have nameInURL
	opts   HTTPOptions
	client *http.Client
	notes  *records // what was published, and names in use
}

// ownFields are set by the store, or mean something to the connection.
var ownFields = []string{
	"Connection", "Content-Length", "Content-Range", "Expect", "Host", "If-None-Match", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func openHTTP(spec string, opts HTTPOptions, state string) (*httpStore, error) {
	u, err := url.Parse(spec)
	if err != nil {
		return nil, fmt.Errorf("sink: that is not a URL: %w", errors.Unwrap(err)) // without the URL, which may have a secret
	}
	s := &httpStore{url: u, opts: opts}
	switch {
	case u.User != nil:
		return nil, fmt.Errorf("sink %s: a password does not belong into a command line: put the line \"Authorization: Basic ...\" into a file for --http-header-file", s)
	case u.Host == "" || u.Opaque != "":
		return nil, fmt.Errorf("sink %s: needs a host, as in https://host/path/", s)
	case u.Fragment != "":
		return nil, fmt.Errorf("sink %s: a fragment (#) is not sent to servers", s)
	}
	if s.opts.Method == "" {
		s.opts.Method = http.MethodPut
	}
	if s.opts.Method != http.MethodPut && s.opts.Method != http.MethodPost {
		return nil, fmt.Errorf("sink %s: the method is PUT or POST, not %q", s, opts.Method)
	}
	for _, name := range ownFields {
		if _, ok := opts.Header[name]; ok {
			return nil, fmt.Errorf("sink %s: the header field %s is not yours to set", s, name)
		}
	}
	if s.opts.Stall == 0 {
		s.opts.Stall = DefaultHTTPStall
	}
	if s.opts.Answer == 0 {
		s.opts.Answer = DefaultHTTPAnswer
	}
	if s.client, err = httpClient(opts.CA); err != nil {
		return nil, fmt.Errorf("sink %s: %w", s, err)
	}
	if s.notes, err = openRecords(state, s.String()+" "+stateKey(spec)); err != nil {
		return nil, fmt.Errorf("sink %s: %w", s, err)
	}
	s.clean()
	return s, nil
}

// clean forgets what was published long ago.
func (s *httpStore) clean() {
	s.notes.expire(publishedFor, func(context.Context, json.RawMessage) bool { return true })
}

// Close is for when no file is under way any more.
func (s *httpStore) Close() error {
	s.notes.close()
	return nil
}

// httpClient returns a client that follows no redirect: content that was
// streamed cannot be sent again, and not to just anywhere.
func httpClient(ca string) (*http.Client, error) {
	roots, err := rootCAs(ca)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: httpDial}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    httpDial,
			ExpectContinueTimeout:  time.Second,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
			WriteBufferSize:        64 << 10,
		},
	}, nil
}

func rootCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // no pool means the system's
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no PEM certificate in it", file)
	}
	return pool, nil
}

// ParseHeader adds "Name: value" to h.
func ParseHeader(h http.Header, line string) error {
	field, err := textproto.NewReader(bufio.NewReader(strings.NewReader(line + "\r\n\r\n"))).ReadMIMEHeader()
	if err != nil || len(field) != 1 || strings.ContainsAny(line, "\r\n") {
		return errors.New("not a header field: want Name: value") // without the line, which may be a secret
	}
	for name, values := range field {
		h[name] = append(h[name], values...)
	}
	return nil
}

func (s *httpStore) String() string { return shownURL(s.url) }

// shownURL is u without what may be secret: users, passwords, and queries,
// where signatures are.
func shownURL(u *url.URL) string {
	shown := *u
	shown.User, shown.RawQuery, shown.Fragment, shown.RawFragment = nil, "", "", ""
	text := strings.NewReplacer("%7B", "{", "%7D", "}").Replace(shown.String())
	if u.RawQuery != "" {
		text += "?..."
	}
	return text
}

// target is the URL for a file.
func (s *httpStore) target(name string) *url.URL {
	u := *s.url
	switch {
	case strings.Contains(u.Path, nameInURL):
		u.Path, u.RawPath = replaceName(u.Path, name), replaceName(u.EscapedPath(), escapePath(name))
	case strings.HasSuffix(u.Path, "/"):
		u.RawPath = u.EscapedPath() + escapePath(name)
		u.Path += name
	}
	u.RawQuery = replaceName(u.RawQuery, url.QueryEscape(name))
	return &u
}

func replaceName(s, name string) string {
	return strings.NewReplacer(nameInURL, name, "%7Bname%7D", name).Replace(s)
}

func escapePath(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/")
}

// httpNote is what is known of a file that was published.
type httpNote struct {
	Name   string          `json:"name"`
	Source string          `json:"source"`
	Digest protocol.Digest `json:"digest"`
	Size   int64           `json:"size"`
	ETag   string          `json:"etag,omitempty"`
}

// Create implements Store. A PUT replaces what is there, so without force the
// server is asked first. Not all servers can tell: the request itself says
// If-None-Match too.
func (s *httpStore) Create(ctx context.Context, r Request) (_ File, have Have, err error) {
	s.clean()
	target := s.target(string(r.Name))
	f := &httpFile{store: s, url: target, key: target.String(), offer: r.Offer, life: ctx}
	if s.opts.Method == http.MethodPost { // the same URL makes something of each file
		f.key += " " + string(r.Name)
	}
	if err := s.notes.take(f.key); err != nil {
		return nil, have, err
	}
	defer func() {
		if err != nil {
			s.notes.release(f.key)
		}
	}()
	if s.opts.Method == http.MethodPost || r.Force {
		return f, have, nil
	}
	there, err := s.head(ctx, target)
	if err != nil || there == nil {
		return f, have, err
	}
	var note httpNote
	if s.notes.load(f.key, &note) && note.Source == sourceKey(r.Offer) && note.Digest.Algorithm() == r.Digest && note.is(there) {
		f.published = true
		return f, Have{Offset: note.Size, Published: true, Digest: note.Digest}, nil
	}
	return nil, have, protocol.Errorf(protocol.CodeExists, "%s exists; --force replaces it", shownURL(target))
}

// is reports whether the answer to a HEAD is about what was published.
func (n *httpNote) is(there *http.Response) bool {
	etag := there.Header.Get("ETag")
	return n.ETag != "" && etag == n.ETag && (there.ContentLength < 0 || there.ContentLength == n.Size)
}

// head asks for what is at u; nil is nothing, or a server that does not say.
func (s *httpStore) head(ctx context.Context, u *url.URL) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, httpDial)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, u.String(), nil)
	if err != nil {
		return nil, protocol.Errorf(protocol.CodeName, "%s: %w", shownURL(u), unwrapURL(err))
	}
	s.fields(req)
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("HEAD %s: %w", shownURL(u), webError(err))
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return nil, nil //nolint:nilnil // nothing is there
	}
	return resp, nil
}

func (s *httpStore) fields(req *http.Request) {
	req.Header.Set("User-Agent", "sbcast")
	for name, values := range s.opts.Header {
		req.Header[name] = values
	}
}

// webError is why there was no answer, without the URL and with a code.
func webError(err error) error {
	err = unwrapURL(err)
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted):
		return protocol.Errorf(protocol.CodeDenied, "%w", err)
	case protocol.HasCode(err, protocol.CodeInternal): // net/http has more to complain about than the system
		return protocol.Errorf(protocol.CodeIO, "%w", err)
	default:
		return err
	}
}

// unwrapURL takes the URL out of an error of net/http.
func unwrapURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
