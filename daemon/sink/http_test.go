// Files to a web server: what it is sent, and what its answers mean.

package sink_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/protocol"
)

// taken is a request as a server saw it to its end.
type taken struct {
	*http.Request
	content string
	err     error // of reading the content
}

// webServer answers with answer once it has read a request to its end, and
// sends what it saw.
func webServer(t *testing.T, answer http.HandlerFunc) (url string, requests <-chan taken) {
	t.Helper()
	seen := make(chan taken, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		content, err := io.ReadAll(r.Body)
		seen <- taken{r, string(content), err}
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, seen
}

func created(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }

func web(t *testing.T, spec string, opts sink.HTTPOptions) sink.Store {
	t.Helper()
	store, err := sink.Open(spec, sink.Options{HTTP: opts, State: t.TempDir()})
	require.NoError(t, err)
	return store
}

// stage fills a file with content and its digest.
func stage(t *testing.T, f sink.File, alg protocol.DigestAlg, content string) {
	t.Helper()
	for i := 0; i < len(content); i += 100_000 {
		_, err := f.Write([]byte(content[i:min(i+100_000, len(content))]))
		require.NoError(t, err)
	}
	require.NoError(t, f.Stage(t.Context(), digest(alg, []byte(content))))
}

func TestHTTPSendsAFile(t *testing.T) {
	big := strings.Repeat("some content ", 50_000)
	sum := sha256.Sum256([]byte(big))
	tests := map[string]struct {
		content string
		size    int64
		alg     protocol.DigestAlg
		opts    sink.HTTPOptions
		length  int64
		trailer http.Header
	}{
		"size known":     {content: big, size: int64(len(big)), alg: protocol.DigestXXH128, length: int64(len(big))},
		"one byte":       {content: "x", size: 1, alg: protocol.DigestXXH128, length: 1},
		"empty":          {content: "", size: 0, alg: protocol.DigestXXH128, length: 0},
		"empty, no size": {content: "", size: -1, alg: protocol.DigestNone, length: -1},
		"size unknown": {
			content: big, size: -1, alg: protocol.DigestXXH128, length: -1,
			trailer: http.Header{"Sbcast-Digest": {string(digest(protocol.DigestXXH128, []byte(big)))}},
		},
		"trailer": {
			content: big, size: int64(len(big)), alg: protocol.DigestSHA256, length: -1, opts: sink.HTTPOptions{Trailer: true, Method: http.MethodPost},
			trailer: http.Header{
				"Sbcast-Digest": {string(digest(protocol.DigestSHA256, []byte(big)))},
				"Repr-Digest":   {"sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"},
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			url, requests := webServer(t, created)
			tt.opts.Header = http.Header{"Authorization": {"Bearer secret"}, "Content-Type": {"text/plain"}}
			store := web(t, url+"/in/", tt.opts)
			o := offer("sub/a b%?.txt", tt.size)
			o.Digest = tt.alg
			f, have, err := store.Create(t.Context(), request(o))
			require.NoError(t, err)
			assert.Zero(t, have)
			stage(t, f, tt.alg, tt.content)
			assert.Empty(t, requests, "the server has all before the commit")
			p, err := f.Publish(t.Context())
			require.NoError(t, err)
			assert.Equal(t, sink.Published{Location: url + "/in/sub/a%20b%25%3F.txt"}, p)

			r := receive(t, requests, "the request")
			require.NoError(t, r.err)
			assert.Equal(t, tt.content, r.content)
			assert.Equal(t, "/in/sub/a b%?.txt", r.URL.Path)
			assert.Equal(t, tt.length, r.ContentLength)
			assert.Equal(t, "Bearer secret", r.Header.Get("Authorization"))
			assert.Equal(t, "text/plain", r.Header.Get("Content-Type"))
			assert.Equal(t, `"0197-test"`, r.Header.Get("Idempotency-Key"))
			if tt.opts.Method == http.MethodPost {
				assert.Equal(t, http.MethodPost, r.Method)
				assert.Empty(t, r.Header.Get("If-None-Match"))
			} else {
				assert.Equal(t, http.MethodPut, r.Method)
				assert.Equal(t, "*", r.Header.Get("If-None-Match"))
			}
			if len(tt.trailer) > 0 || len(r.Trailer) > 0 {
				assert.Equal(t, tt.trailer, r.Trailer)
			}
		})
	}
}

func TestHTTPTargets(t *testing.T) {
	url, requests := webServer(t, created)
	for path, want := range map[string]string{
		"/in/":               "/in/d/a%20b",
		"/in/?token=x":       "/in/d/a%20b?token=x",
		"/fixed":             "/fixed",
		"/signed?sig=%2F+x":  "/signed?sig=%2F+x",
		"/up/{name}/content": "/up/d/a%20b/content",
		"/up?name={name}&x=": "/up?name=d%2Fa+b&x=",
	} {
		p, err := put(t, web(t, url+path, sink.HTTPOptions{}), offer("d/a b", 4), "data")
		require.NoError(t, err)
		assert.Equal(t, want, receive(t, requests, "the request").RequestURI)
		shown, _, _ := strings.Cut(want, "?")
		if shown != want {
			shown += "?..."
		}
		assert.Equal(t, url+shown, p.Location, "a query may be secret")
	}
}

func TestHTTPLocationOfTheServer(t *testing.T) {
	url, _ := webServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/files/17?key=secret")
		w.WriteHeader(http.StatusCreated)
	})
	p, err := put(t, web(t, url+"/in", sink.HTTPOptions{Method: http.MethodPost}), offer("f", 4), "data")
	require.NoError(t, err)
	assert.Equal(t, url+"/files/17?...", p.Location)
}

// What is given up must never look like a whole file to the server.
func TestHTTPDiscardCutsTheConnection(t *testing.T) {
	for name, o := range map[string]*protocol.Offer{"size known": offer("f", 200_000), "size unknown": offer("f", -1), "one byte": offer("f", 1)} {
		for _, how := range []string{"discard", "context"} {
			t.Run(name+", "+how, func(t *testing.T) {
				url, requests := webServer(t, created)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				f, _, err := web(t, url+"/", sink.HTTPOptions{}).Create(ctx, request(o))
				require.NoError(t, err)
				stage(t, f, protocol.DigestXXH128, strings.Repeat("x", int(max(o.Size, 1))))
				if how == "context" {
					cancel()
				}
				within(t, "Discard", func() { f.Discard(false) })
				if o.Size != 1 || len(requests) > 0 { // one whose head did not get out is seen by nobody
					assert.Error(t, receive(t, requests, "the request").err)
				}
			})
		}
	}
}

// Who only asks whether a file would be taken sends no request for it.
func TestHTTPWithoutContentSendsNothing(t *testing.T) {
	url, requests := webServer(t, created)
	f, _, err := web(t, url+"/", sink.HTTPOptions{}).Create(t.Context(), request(offer("f", 10)))
	require.NoError(t, err)
	f.Discard(false)
	assert.Empty(t, requests)
}

func TestHTTPAnswers(t *testing.T) {
	for status, want := range map[int]struct {
		code protocol.Code
		text string
	}{
		400: {protocol.CodeIO, `400 Bad Request: "because I say so"`},
		401: {protocol.CodeDenied, "401 "},
		403: {protocol.CodeDenied, "403 Forbidden"},
		409: {protocol.CodeExists, "409 Conflict"},
		412: {protocol.CodeExists, "--force replaces"},
		413: {protocol.CodeTooLarge, "413 Request Entity Too Large"},
		429: {protocol.CodeBusy, "429 Too Many Requests"},
		500: {protocol.CodeBusy, "500 Internal Server Error"},
		503: {protocol.CodeBusy, "503 Service Unavailable"},
		507: {protocol.CodeNoSpace, "507 Insufficient Storage"},
		302: {protocol.CodeIO, "redirects are not followed"},
		307: {protocol.CodeIO, "307 Temporary Redirect to https://elsewhere.example/f?...:"},
	} {
		url, _ := webServer(t, func(w http.ResponseWriter, _ *http.Request) {
			if status/100 == 3 {
				w.Header().Set("Location", "https://user:secret@elsewhere.example/f?secret")
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "because  I\nsay so")
		})
		_, err := put(t, web(t, url+"/in/?secret", sink.HTTPOptions{}), offer("f", 4), "data")
		assertCode(t, want.code, err)
		require.ErrorContains(t, err, want.text)
		require.ErrorContains(t, err, url+"/in/f?...: ")
		assert.NotContains(t, err.Error(), "secret")
	}
}

// A server that does not want the content says so before it has come.
func TestHTTPEarlyAnswer(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodHead {
			http.Error(w, "at most 1 MB", http.StatusRequestEntityTooLarge)
		}
	}))
	defer s.Close()
	store := web(t, s.URL+"/", sink.HTTPOptions{})
	o := offer("f", 1<<40)
	o.Force = true
	f, _, err := store.Create(t.Context(), request(o))
	require.NoError(t, err)
	within(t, "the answer", func() {
		for err == nil {
			_, err = f.Write(make([]byte, 64<<10))
		}
	})
	assertCode(t, protocol.CodeTooLarge, err)
	require.ErrorContains(t, err, `413 Request Entity Too Large: "at most 1 MB"`)
	f.Discard(false)
}

// A success that comes before the end of the content is none.
func TestHTTPSuccessTooEarly(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	store := web(t, s.URL+"/", sink.HTTPOptions{Method: http.MethodPost})
	f, _, err := store.Create(t.Context(), request(offer("f", -1)))
	require.NoError(t, err)
	within(t, "the answer", func() {
		for err == nil {
			_, err = f.Write(make([]byte, 64<<10))
		}
	})
	require.ErrorContains(t, err, "answered 200 OK before it had all content")
	f.Discard(false)
}

func TestHTTPStalls(t *testing.T) {
	t.Run("content", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts, or reads
		require.NoError(t, err)
		defer ln.Close()
		store := web(t, "http://"+ln.Addr().String()+"/", sink.HTTPOptions{Method: http.MethodPost, Stall: 50 * time.Millisecond})
		f, _, err := store.Create(t.Context(), request(offer("f", -1)))
		require.NoError(t, err)
		within(t, "the stall", func() {
			for err == nil {
				_, err = f.Write(make([]byte, 1<<20))
			}
		})
		assertCode(t, protocol.CodeStalled, err)
		require.ErrorContains(t, err, "took nothing for 50ms")
		f.Discard(false)
	})
	t.Run("answer", func(t *testing.T) {
		answer := make(chan struct{})
		url, _ := webServer(t, func(http.ResponseWriter, *http.Request) { <-answer })
		defer close(answer)
		store := web(t, url+"/", sink.HTTPOptions{Answer: 50 * time.Millisecond})
		_, err := put(t, store, offer("f", 4), "data")
		assertCode(t, protocol.CodeStalled, err)
		require.ErrorContains(t, err, "no answer for 50ms; whether the file is there is not known")
	})
}

func TestHTTPServerIsNotThere(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ln.Close()
	store := web(t, "http://"+ln.Addr().String()+"/in/?secret", sink.HTTPOptions{})
	_, _, err = store.Create(t.Context(), request(offer("f", 4)))
	assertCode(t, protocol.CodeUnreachable, err)
	require.ErrorContains(t, err, "connection refused")
	assert.NotContains(t, err.Error(), "secret")
}

// keeper is a server that keeps files, and knows ETags and conditions.
func keeper(t *testing.T) (url string, files map[string]string) {
	t.Helper()
	files = map[string]string{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		old, there := files[r.URL.Path]
		switch {
		case r.Method == http.MethodHead && !there:
			w.WriteHeader(http.StatusNotFound)
			return
		case r.Method == http.MethodHead:
		case there && r.Header.Get("If-None-Match") == "*":
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		default:
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			old, files[r.URL.Path] = string(b), string(b)
		}
		w.Header().Set("ETag", `"`+string(digest(protocol.DigestXXH128, []byte(old)))+`"`)
	}))
	t.Cleanup(s.Close)
	return s.URL, files
}

func TestHTTPFileThatIsThere(t *testing.T) {
	url, files := keeper(t)
	store := web(t, url+"/", sink.HTTPOptions{})
	o := offer("f", 4)
	o.Fingerprint = "data"
	f, _, err := store.Create(t.Context(), request(o))
	require.NoError(t, err)
	stage(t, f, protocol.DigestXXH128, "data")
	_, err = f.Publish(t.Context())
	require.NoError(t, err)

	// The same push again has nothing to do.
	f, have, err := store.Create(t.Context(), request(o))
	require.NoError(t, err)
	assert.Equal(t, sink.Have{Offset: 4, Published: true, Digest: digest(protocol.DigestXXH128, []byte("data"))}, have)
	p, err := f.Publish(t.Context())
	require.NoError(t, err)
	assert.Equal(t, sink.Published{Location: url + "/f", Unchanged: true}, p)

	// Something else is refused, and so is the same where somebody changed the file.
	other := offer("f", 5)
	_, _, err = store.Create(t.Context(), request(other))
	assertCode(t, protocol.CodeExists, err)
	files["/f"] = "mine"
	_, _, err = store.Create(t.Context(), request(o))
	assertCode(t, protocol.CodeExists, err)
	require.ErrorContains(t, err, "--force")

	o.Force = true
	_, err = put(t, store, o, "data")
	require.NoError(t, err)
	assert.Equal(t, "data", files["/f"])
}

func TestHTTPNameInUse(t *testing.T) {
	url, _ := webServer(t, created)
	store := web(t, url+"/fixed", sink.HTTPOptions{})
	f, _, err := store.Create(t.Context(), request(offer("a", 4)))
	require.NoError(t, err)
	_, _, err = store.Create(t.Context(), request(offer("b", 4)))
	assertCode(t, protocol.CodeConflict, err)
	f.Discard(false)
	_, err = put(t, store, offer("b", 4), "data")
	require.NoError(t, err)
}

// A server that is posted to makes something of each file, whatever the URL.
func TestHTTPPostsAtOnce(t *testing.T) {
	url, requests := webServer(t, created)
	store := web(t, url+"/fixed", sink.HTTPOptions{Method: http.MethodPost})
	f, _, err := store.Create(t.Context(), request(offer("a", 4)))
	require.NoError(t, err)
	_, _, err = store.Create(t.Context(), request(offer("a", 4)))
	assertCode(t, protocol.CodeConflict, err)
	_, err = put(t, store, offer("b", 4), "data")
	require.NoError(t, err)
	f.Discard(false)
	_, err = put(t, store, offer("a", 4), "data")
	require.NoError(t, err)
	assert.Len(t, requests, 2)
}

func TestHTTPSTrustsACertificate(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake that is to fail
	s.StartTLS()
	defer s.Close()
	_, err := put(t, web(t, s.URL+"/", sink.HTTPOptions{}), offer("f", 4), "data")
	require.ErrorContains(t, err, "certificate")
	assertCode(t, protocol.CodeDenied, err)
	_, err = put(t, web(t, strings.Replace(s.URL, "https", "http", 1)+"/", sink.HTTPOptions{}), offer("f", 4), "data")
	assertCode(t, protocol.CodeIO, err)
	plain, _ := webServer(t, created)
	_, err = put(t, web(t, strings.Replace(plain, "http", "https", 1)+"/", sink.HTTPOptions{}), offer("f", 4), "data")
	require.ErrorContains(t, err, "HTTP response to HTTPS client")
	assertCode(t, protocol.CodeIO, err)

	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	_, err = put(t, web(t, s.URL+"/", sink.HTTPOptions{CA: ca}), offer("f", 4), "data")
	require.NoError(t, err)
}

func TestHTTPBadOptions(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for _, tt := range []struct {
		spec string
		opts sink.HTTPOptions
		text string
	}{
		{spec: "http://", text: "needs a host"},
		{spec: "http:files", text: "needs a host"},
		{spec: "http://host:secret/", text: "not a URL"},
		{spec: "http://user:secret@host/", text: "--http-header-file"},
		{spec: "http://host/#part", text: "fragment"},
		{spec: "http://host/?secret", opts: sink.HTTPOptions{Method: "DELETE"}, text: "PUT or POST"},
		{spec: "http://host/", opts: sink.HTTPOptions{Header: http.Header{"Content-Length": {"1"}}}, text: "Content-Length is not yours"},
		{spec: "https://host/", opts: sink.HTTPOptions{CA: empty}, text: "no PEM certificate"},
	} {
		_, err := sink.Open(tt.spec, sink.Options{HTTP: tt.opts})
		require.ErrorContains(t, err, tt.text, tt.spec)
		assert.NotContains(t, err.Error(), "secret@")
	}
	for _, line := range []string{"", "no colon", ": empty", "A\tb: c", "A: b\nC: d"} {
		require.Error(t, sink.ParseHeader(http.Header{}, line), "%q", line)
	}
	h := http.Header{}
	require.NoError(t, sink.ParseHeader(h, "x-key:  a, b "))
	require.NoError(t, sink.ParseHeader(h, "X-Key: c"))
	assert.Equal(t, http.Header{"X-Key": {"a, b", "c"}}, h)
}
