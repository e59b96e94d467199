// What the tests of this package share: a gateway on loopback, and readers
// that do as they are told.

package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sbcast/sbcast/daemon/gateway"
	"github.com/sbcast/sbcast/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait. It is generous: only a test that fails waits for so long.
const patience = 2 * time.Minute

// pushed is a file that was read to its end.
type pushed struct {
	gateway.File
	content string
}

// readers is a Pusher. It publishes what it can read to its end, unless push
// says what to do.
type readers struct {
	ask    func(ctx context.Context) ([]gateway.Reader, error)
	push   func(ctx context.Context, f gateway.File, progress func(gateway.Progress)) ([]protocol.Receipt, error)
	there  []gateway.Reader
	mu     sync.Mutex
	files  []pushed
	failed []error // of reading
}

func (r *readers) Push(ctx context.Context, f gateway.File, progress func(gateway.Progress)) ([]protocol.Receipt, error) {
	if r.push != nil {
		return r.push(ctx, f, progress)
	}
	return r.take(f)
}

func (r *readers) take(f gateway.File) ([]protocol.Receipt, error) {
	b, err := io.ReadAll(f.Content)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failed = append(r.failed, err)
		return nil, fmt.Errorf("read %s: %w", f.Name, err)
	}
	r.files = append(r.files, pushed{f, string(b)})
	return published(int64(len(b))), nil
}

func (r *readers) Readers(ctx context.Context) ([]gateway.Reader, error) {
	if r.ask != nil {
		return r.ask(ctx)
	}
	return r.there, nil
}

func (r *readers) published() []pushed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.files
}

func published(n int64) []protocol.Receipt {
	return []protocol.Receipt{
		{Leaf: "oslo", Status: protocol.LeafPublished, Bytes: n, Location: "/srv/oslo", Digest: "xxh128:00"},
		{Leaf: "lima", Status: protocol.LeafPublished, Bytes: n},
	}
}

// front is a gateway that runs.
type front struct {
	*testing.T
	g    *gateway.Gateway
	addr string
	to   *readers
}

func serve(t *testing.T, to *readers, opts gateway.Options) *front {
	g := gateway.New(to, opts)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- g.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		assert.NoError(t, g.Shutdown(ctx))
		assert.NoError(t, <-served)
		http.DefaultClient.CloseIdleConnections()
	})
	return &front{t, g, ln.Addr().String(), to}
}

// reply is an answer as a client sees it.
type reply struct {
	http    int
	header  http.Header
	Status  int
	Message string
	Code    protocol.Code
	Data    map[string]json.RawMessage
}

func (f *front) do(req *http.Request) reply {
	f.Helper()
	res, err := http.DefaultClient.Do(req)
	require.NoError(f, err)
	return f.read(res)
}

func (f *front) read(res *http.Response) (a reply) {
	f.Helper()
	defer res.Body.Close()
	require.Equal(f, "application/json", res.Header.Get("Content-Type"))
	b, err := io.ReadAll(res.Body)
	require.NoError(f, err)
	require.NoError(f, json.Unmarshal(b, &a), "%s", b)
	a.http, a.header = res.StatusCode, res.Header
	assert.Equal(f, a.http, a.Status, "the body says what the status line says")
	return a
}

func (f *front) request(method, path string, body io.Reader) *http.Request {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), method, "http://"+f.addr+path, body)
	require.NoError(f, err)
	return req
}

func (f *front) put(path, content string) reply {
	f.Helper()
	return f.do(f.request(http.MethodPut, path, strings.NewReader(content)))
}

func (f *front) get(path string) reply {
	f.Helper()
	return f.do(f.request(http.MethodGet, path, nil))
}

// files are names and contents, in turn.
func form(t *testing.T, files ...string) (kind string, body []byte) {
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w, err := m.CreateFormFile("file", files[i])
		require.NoError(t, err)
		_, err = io.WriteString(w, files[i+1])
		require.NoError(t, err)
	}
	require.NoError(t, m.Close())
	return m.FormDataContentType(), b.Bytes()
}

func (f *front) post(path string, files ...string) reply {
	f.Helper()
	kind, body := form(f.T, files...)
	req := f.request(http.MethodPost, path, bytes.NewReader(body))
	req.Header.Set("Content-Type", kind)
	return f.do(req)
}

// dial is a connection to speak HTTP on by hand.
func (f *front) dial() (*net.TCPConn, *bufio.Reader) {
	f.Helper()
	conn, err := net.Dial("tcp", f.addr)
	require.NoError(f, err)
	f.Cleanup(func() { conn.Close() })
	require.NoError(f, conn.SetDeadline(time.Now().Add(patience)))
	return conn.(*net.TCPConn), bufio.NewReader(conn)
}

func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		require.FailNow(t, "waited in vain: "+what)
		panic("unreachable")
	}
}
