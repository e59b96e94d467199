package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/gateway"
	"github.com/sbcast/sbcast/protocol"
)

func TestLimits(t *testing.T) {
	to := &readers{}
	f := serve(t, to, gateway.Options{MaxSize: 1000, MaxUploads: 1, Stall: 50 * time.Millisecond})
	most, more := strings.Repeat("x", 1000), strings.Repeat("x", 1001)
	unsized := func(s string) reply {
		return f.do(f.request(http.MethodPut, "/broadcast/x", io.MultiReader(strings.NewReader(s))))
	}
	assert.Equal(t, 200, f.put("/broadcast/x", most).Status)
	assert.Equal(t, 413, f.put("/broadcast/x", more).Status)
	assert.Equal(t, 200, unsized(most).Status)
	assert.Equal(t, 413, unsized(more).Status)
	assert.Equal(t, 200, f.post("/broadcast", "a", most, "b", most).Status, "it is each file's")
	a := f.post("/broadcast", "a", more)
	assert.Equal(t, 413, a.Status)
	assert.Contains(t, a.Message, "1000 bytes")
	assert.Len(t, to.published(), 4)

	// A client that sends nothing is not waited for.
	conn, r := f.dial()
	_, err := io.WriteString(conn, "PUT /broadcast/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\ncon")
	require.NoError(t, err)
	res, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	a = f.read(res)
	assert.Equal(t, 408, a.Status)
	assert.Equal(t, protocol.CodeStalled, a.Code)

	f2 := serve(t, &readers{}, gateway.Options{MaxSize: math.MaxInt64})
	assert.Equal(t, 200, f2.do(f2.request(http.MethodPut, "/broadcast/x", io.MultiReader(strings.NewReader(most)))).Status)

	var many []string
	for range 1001 {
		many = append(many, "x", "")
	}
	assert.Equal(t, 413, f.post("/broadcast", many...).Status)
}

// gate is a push that waits for its context, or to be let go on.
func gate() (to *readers, begun chan struct{}, goOn chan struct{}) {
	begun, goOn = make(chan struct{}, 10), make(chan struct{})
	to = &readers{}
	to.push = func(ctx context.Context, f gateway.File, progress func(gateway.Progress)) ([]protocol.Receipt, error) {
		progress(gateway.Progress{Name: string(f.Name), Size: f.Size, Leaves: []protocol.Leaf{{Name: "oslo", State: protocol.LeafReceiving, Offset: 3}}})
		begun <- struct{}{}
		select {
		case <-goOn:
			return to.take(f)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return to, begun, goOn
}

func (f *front) putAside(path string) chan reply {
	answered := make(chan reply, 1)
	go func() { answered <- f.put(path, "content") }()
	return answered
}

func TestMaxUploads(t *testing.T) {
	to, begun, goOn := gate()
	f := serve(t, to, gateway.Options{MaxUploads: 1})
	first := f.putAside("/broadcast/x")
	receive(t, begun, "the first upload")
	a := f.put("/broadcast/y", "content")
	assert.Equal(t, 503, a.Status)
	assert.Equal(t, "5", a.header.Get("Retry-After"))
	close(goOn)
	assert.Equal(t, 200, receive(t, first, "its answer").Status)
	assert.Equal(t, 200, f.put("/broadcast/y", "content").Status)
}

// Uploads that are under way end first, or when they must.
func TestShutdown(t *testing.T) {
	for _, interrupted := range []bool{false, true} {
		to, begun, goOn := gate()
		f := serve(t, to, gateway.Options{})
		first := f.putAside("/broadcast/x")
		receive(t, begun, "the upload")
		ctx, cancel := context.WithCancelCause(t.Context())
		down := make(chan error, 1)
		go func() { down <- f.g.Shutdown(ctx) }()
		if interrupted {
			cancel(protocol.ErrInterrupted)
			require.ErrorIs(t, receive(t, down, "the end"), context.Canceled)
			a := receive(t, first, "the answer")
			assert.Equal(t, 503, a.Status)
			assert.Equal(t, protocol.CodeInterrupted, a.Code)
			continue
		}
		close(goOn)
		assert.Equal(t, 200, receive(t, first, "the answer").Status)
		require.NoError(t, receive(t, down, "the end"))
		_, err := http.Get("http://" + f.addr + "/healthz") //nolint:bodyclose // there is none
		require.Error(t, err)
		cancel(nil)
	}
}

// event is one of a stream of them.
type event struct{ kind, data string }

// events opens the events of an upload; the channel is closed at their end.
func (f *front) events(id string) chan event {
	f.Helper()
	res, err := http.DefaultClient.Do(f.request(http.MethodGet, "/events/"+id, nil))
	require.NoError(f, err)
	require.Equal(f, 200, res.StatusCode)
	require.Equal(f, "text/event-stream", res.Header.Get("Content-Type"))
	all := make(chan event, 100)
	go func() {
		defer close(all)
		defer res.Body.Close()
		var e event
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), ": ")
			switch key {
			case "event":
				e.kind = value
			case "data":
				all <- event{e.kind, value}
			}
		}
	}()
	return all
}

func TestEvents(t *testing.T) {
	to, begun, goOn := gate()
	f := serve(t, to, gateway.Options{})
	early := f.events("upload-1")
	first := f.putAside("/broadcast/x?id=upload-1")
	receive(t, begun, "the upload")
	late := f.events("upload-1")
	assert.Equal(t, 409, f.put("/broadcast/y?id=upload-1", "").Status, "an id is one upload's")
	for _, watcher := range []chan event{early, late} {
		e := receive(t, watcher, "progress")
		assert.Equal(t, "progress", e.kind)
		assert.JSONEq(t, `{"name":"x","size":7,"sent":0,"acked":0,"readers":[{"name":"oslo","state":"receiving","offset":3}]}`, e.data)
	}
	close(goOn)
	a := receive(t, first, "the answer")
	for _, watcher := range []chan event{early, late} {
		e := receive(t, watcher, "the last event")
		assert.Equal(t, "done", e.kind)
		var done reply
		require.NoError(t, json.Unmarshal([]byte(e.data), &done))
		assert.Equal(t, a.Data, done.Data)
		_, more := <-watcher
		assert.False(t, more, "the events end")
	}
	assert.Equal(t, 200, f.put("/broadcast/x?id=upload-1", "").Status, "the id is free again")

	assert.Equal(t, 400, f.get("/events/short").Status)
	assert.Equal(t, 400, f.get("/events/no%20such%20characters").Status)
	assert.Equal(t, 405, f.put("/events/upload-1", "").Status)
}

func TestWatchersAreBounded(t *testing.T) {
	f := serve(t, &readers{}, gateway.Options{})
	var all []chan event
	for i := range 256 {
		all = append(all, f.events(fmt.Sprintf("upload-%d", i)))
	}
	assert.Equal(t, 503, f.get("/events/upload-256").Status)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, f.g.Shutdown(ctx), "who watches nothing does not hold the end up")
	for _, watcher := range all {
		_, more := <-watcher
		assert.False(t, more)
	}
}

func TestHealth(t *testing.T) {
	to := &readers{there: []gateway.Reader{{Name: "oslo", Sink: "dir:/srv"}, {Name: "lima", Error: "connection refused"}}}
	f := serve(t, to, gateway.Options{})
	assert.Equal(t, 200, f.get("/healthz").Status)
	a := f.get("/readyz")
	assert.Equal(t, 200, a.Status)
	assert.Equal(t, "1 of 2 readers are there", a.Message)
	assert.JSONEq(t, `{"sink":"dir:/srv"}`, string(a.Data["oslo"]))
	assert.JSONEq(t, `{"error":"connection refused"}`, string(a.Data["lima"]))

	f = serve(t, &readers{there: to.there[1:]}, gateway.Options{})
	assert.Equal(t, 503, f.get("/readyz").Status)
	assert.Equal(t, 405, f.put("/healthz", "").Status)
}

// Who asks and does not wait for the answer does not spoil that of the next.
func TestHealthWhenTheAskerLeaves(t *testing.T) {
	to := &readers{}
	f := serve(t, to, gateway.Options{})
	ctx, leave := context.WithCancel(t.Context())
	to.ask = func(ctx context.Context) ([]gateway.Reader, error) {
		leave()
		return []gateway.Reader{{Name: "oslo"}}, ctx.Err()
	}
	f.g.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/readyz", nil))
	assert.Equal(t, 200, f.get("/readyz").Status)
}

func TestPageFiles(t *testing.T) {
	f := serve(t, &readers{}, gateway.Options{})
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/app.js": "text/javascript; charset=utf-8", "/app.css": "text/css; charset=utf-8", "/icon.svg": "image/svg+xml",
	} {
		res, err := http.DefaultClient.Do(f.request(http.MethodGet, path, nil))
		require.NoError(t, err)
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		res.Body.Close()
		assert.Equal(t, 200, res.StatusCode, path)
		assert.Equal(t, kind, res.Header.Get("Content-Type"))
		assert.Contains(t, res.Header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; style-src 'self'")
		assert.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"))
		assert.Equal(t, "no-referrer", res.Header.Get("Referrer-Policy"))
		assert.NotContains(t, string(b), "style=")
		assert.NotContains(t, string(b), "onclick=")

		req := f.request(http.MethodGet, path, nil)
		req.Header.Set("If-None-Match", res.Header.Get("ETag"))
		res, err = http.DefaultClient.Do(req)
		require.NoError(t, err)
		res.Body.Close()
		assert.Equal(t, 304, res.StatusCode, path)
	}
	assert.Equal(t, 404, f.get("/page/app.js").Status)
	assert.Equal(t, 404, f.get("/index.htm").Status)
	assert.Equal(t, 404, f.get("/x/app.js").Status)
	assert.Equal(t, 405, f.put("/app.js", "").Status)
}
