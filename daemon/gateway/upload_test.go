package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/gateway"
	"github.com/sbcast/sbcast/protocol"
)

func TestPut(t *testing.T) {
	to := &readers{}
	f := serve(t, to, gateway.Options{})
	a := f.put("/broadcast/dir/a%20b%2Bc?force&require=2&compress=none&digest=sha256&timeout=5", "content")
	assert.Equal(t, 200, a.Status)
	assert.Equal(t, "ok", a.Message)
	assert.JSONEq(t, `{"status":"published","bytes":7,"digest":"xxh128:00","location":"/srv/oslo","seconds":0}`, string(a.Data["oslo"]))
	assert.Contains(t, a.Data, "duration")
	assert.Len(t, a.Data, 3)
	got := to.published()[0]
	assert.EqualValues(t, "dir/a b+c", got.Name)
	assert.Equal(t, int64(7), got.Size)
	assert.Equal(t, "content", got.content)
	require2, _ := protocol.ParsePolicy("2")
	assert.Equal(t, gateway.PushOptions{Force: true, Require: require2, Compress: protocol.CompressNone, Digest: protocol.DigestSHA256, Timeout: 5 * time.Second}, got.Options)

	a = f.do(f.request(http.MethodPut, "/broadcast/chunked", io.MultiReader(strings.NewReader("of no known "), strings.NewReader("size"))))
	assert.Equal(t, 200, a.Status)
	got = to.published()[1]
	assert.Equal(t, int64(-1), got.Size)
	assert.Equal(t, "of no known size", got.content)

	assert.Equal(t, 200, f.put("/broadcast?name=given", "x").Status)
	assert.Equal(t, 200, f.put("/broadcast/else?name=given2&dry_run=false", "").Status)
	assert.EqualValues(t, "given", to.published()[2].Name)
	assert.EqualValues(t, "given2", to.published()[3].Name)
	assert.Equal(t, int64(0), to.published()[3].Size)
}

func TestForm(t *testing.T) {
	to := &readers{}
	f := serve(t, to, gateway.Options{})
	a := f.post("/broadcast", "video.mp4", strings.Repeat("frame", 50000))
	assert.Equal(t, 200, a.Status)
	assert.Contains(t, a.Data, "oslo")
	assert.Contains(t, a.Data, "duration")
	assert.Equal(t, strings.Repeat("frame", 50000), to.published()[0].content)

	// What browsers send for a name, and a content that looks like a boundary.
	a = f.post("/broadcast", `C:\dir\one`, "\r\n--boundary", "/dir/two", "")
	require.Equal(t, 200, a.Status, a.Message)
	assert.EqualValues(t, "one", to.published()[1].Name)
	assert.Equal(t, "\r\n--boundary", to.published()[1].content)
	assert.EqualValues(t, "two", to.published()[2].Name)
	assert.Len(t, a.Data, 2)
	assert.Regexp(t, `^\[\{"name":"one","status":200,"message":"ok","data":\{.*"oslo".*\}\},\{"name":"two",.*\}\]$`, string(a.Data["files"]))
}

// The first file that fails ends a form; those before it are published.
func TestFormFails(t *testing.T) {
	to := &readers{}
	to.push = func(_ context.Context, file gateway.File, _ func(gateway.Progress)) ([]protocol.Receipt, error) {
		if file.Name == "two" {
			return nil, protocol.Errorf(protocol.CodeExists, "it is there")
		}
		return to.take(file)
	}
	f := serve(t, to, gateway.Options{})
	a := f.post("/broadcast", "one", "1", "two", "2", "three", "3")
	assert.Equal(t, 409, a.Status)
	assert.Equal(t, "two: it is there (what came behind it was not read)", a.Message)
	assert.Equal(t, protocol.CodeExists, a.Code)
	assert.Len(t, to.published(), 1)

	// What is wrong with the form is not said of a file.
	req := f.request(http.MethodPost, "/broadcast", strings.NewReader("--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"one\"\r\n\r\n1\r\n"+
		"--b\r\nContent-Disposition: form-data; name=\"force\"\r\n\r\n1\r\n--b--\r\n"))
	req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	a = f.do(req)
	assert.Equal(t, 400, a.Status)
	assert.Regexp(t, `^the form's field "force" is not a file`, a.Message)
}

func TestStatus(t *testing.T) {
	to := &readers{}
	f := serve(t, to, gateway.Options{})
	for code, want := range map[protocol.Code]int{
		protocol.CodeExists: 409, protocol.CodeConflict: 409, protocol.CodePolicy: 409,
		protocol.CodeNoSpace: 507, protocol.CodeDenied: 502, protocol.CodeIO: 502, protocol.CodeUnreachable: 502,
		protocol.CodeDead: 502, protocol.CodeDigest: 502, protocol.CodeStalled: 504, protocol.CodeBusy: 503,
		protocol.CodeShutdown: 503, protocol.CodeInternal: 500, protocol.CodeName: 400, protocol.CodeTooLarge: 413,
		protocol.CodeTruncated: 502, protocol.CodeUnauthorised: 502,
	} {
		to.push = func(context.Context, gateway.File, func(gateway.Progress)) ([]protocol.Receipt, error) {
			return []protocol.Receipt{{Leaf: "duration", Status: protocol.LeafFailed, Code: code, Text: "why"}}, &protocol.Error{Code: code, Text: "why", Leaf: "duration"}
		}
		a := f.put("/broadcast/x", "content")
		assert.Equal(t, want, a.Status, code)
		assert.Equal(t, code, a.Code)
		assert.Equal(t, "duration: why", a.Message)
		assert.Equal(t, want == 503, a.header.Get("Retry-After") != "", code)
		assert.Contains(t, string(a.Data["/duration"]), `"message":"why"`, "a reader with an odd name is told apart")
	}
	to.push = func(context.Context, gateway.File, func(gateway.Progress)) ([]protocol.Receipt, error) {
		return nil, protocol.Errorf(protocol.CodeDenied, "the name is not one of those taken here")
	}
	assert.Equal(t, 403, f.put("/broadcast/x", "content").Status, "no reader has said so")

	// Options are called what they are called here.
	to.push = func(_ context.Context, _ gateway.File, progress func(gateway.Progress)) ([]protocol.Receipt, error) {
		progress(gateway.Progress{Leaves: []protocol.Leaf{{Name: "oslo", State: protocol.LeafFailed, Text: "exists; --force replaces it"}}})
		return []protocol.Receipt{{Leaf: "oslo", Status: protocol.LeafFailed, Text: "exists; --force replaces it"}},
			protocol.Errorf(protocol.CodeExists, "exists; --force replaces it (--require is all)")
	}
	watched := f.events("upload-1")
	a := f.put("/broadcast/x?id=upload-1", "content")
	assert.Equal(t, "exists; ?force replaces it (?require is all)", a.Message)
	assert.Contains(t, string(a.Data["oslo"]), "; ?force replaces it")
	for e := range watched {
		assert.NotContains(t, e.data, "--force", e.kind)
	}

	to.push = func(context.Context, gateway.File, func(gateway.Progress)) ([]protocol.Receipt, error) {
		all := published(1)
		all[0].Status, all[0].Code = protocol.LeafFailed, protocol.CodeNoSpace
		return all, nil
	}
	a = f.put("/broadcast/x?require=any", "c")
	assert.Equal(t, 207, a.Status)
	assert.Equal(t, "1 of 2 readers failed", a.Message)
}

func TestBadRequests(t *testing.T) {
	to := &readers{}
	f := serve(t, to, gateway.Options{})
	for path, want := range map[string]string{
		"/broadcast/x?frce":                      `unknown parameter "frce"`,
		"/broadcast/x?force=maybe":               "force",
		"/broadcast/x?require=-1":                "require",
		"/broadcast/x?compress=zip":              "compress",
		"/broadcast/x?digest=md5":                "digest",
		"/broadcast/x?timeout=0":                 "timeout",
		"/broadcast/x?timeout=1000h":             "timeout",
		"/broadcast/x?id=short":                  "id",
		"/broadcast/x?id=../../../etc":           "id",
		"/broadcast/x?name=../x":                 "name",
		"/broadcast/x?force&force":               "2 times",
		"/broadcast/x?force;require=any":         "query",
		"/broadcast":                             "no name",
		"/broadcast/":                            "no name",
		"/broadcast/%2e%2e/x":                    "bad name",
		"/broadcast//x":                          "bad name",
		"/broadcast/-x":                          "bad name",
		"/broadcast/a%00b":                       "bad name",
		"/broadcast/.sbcast-x.part":              "bad name",
		"/broadcast/" + strings.Repeat("x", 300): "bad name",
	} {
		a := f.put(path, "content")
		assert.Equal(t, 400, a.Status, path)
		assert.Contains(t, a.Message, want, path)
	}
	header := func(key, value string) reply {
		req := f.request(http.MethodPut, "/broadcast/x", strings.NewReader("content"))
		req.Header.Set(key, value)
		return f.do(req)
	}
	assert.Equal(t, 400, header("Content-Range", "bytes 0-6/100").Status, "a part is no file")
	assert.Equal(t, 415, header("Content-Encoding", "gzip").Status)
	assert.Equal(t, 403, header("Sec-Fetch-Site", "cross-site").Status)
	assert.Equal(t, 403, header("Origin", "http://elsewhere.example").Status)
	assert.Equal(t, 200, header("Origin", "http://"+f.addr).Status)

	for _, body := range []string{
		"--b\r\nContent-Disposition: form-data; name=\"force\"\r\n\r\n1\r\n--b--\r\n",
		"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"..\"\r\n\r\n1\r\n--b--\r\n",
		"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"/\"\r\n\r\n1\r\n--b--\r\n",
		"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=41\r\n--b--\r\n",
		"--b--\r\n", "no form", "",
	} {
		req := f.request(http.MethodPost, "/broadcast", strings.NewReader(body))
		req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		assert.Equal(t, 400, f.do(req).Status, "%q", body)
	}
	assert.Equal(t, 415, f.do(f.request(http.MethodPost, "/broadcast", strings.NewReader("x"))).Status)
	conn, r := f.dial()
	_, err := io.WriteString(conn, "PUT /broadcast/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(t, err)
	res, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	assert.Equal(t, 411, f.read(res).Status, "no body is not an empty file")
	a := f.do(f.request(http.MethodPost, "/broadcast/x", nil))
	assert.Equal(t, 405, a.Status)
	assert.Equal(t, "PUT", a.header.Get("Allow"))
	assert.Len(t, to.published(), 1, "of the one that was in order")
}

// A body that is cut off anywhere is never read to a clean end.
func TestTruncated(t *testing.T) {
	kind, body := form(t, "one", "the content of the one file")
	for name, whole := range map[string]string{
		"form": fmt.Sprintf("POST /broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind, len(body), body),
		"form in chunks": fmt.Sprintf("POST /broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n",
			kind, len(body), body),
		"size":   "PUT /broadcast/one HTTP/1.1\r\nHost: localhost\r\nContent-Length: 27\r\n\r\nthe content of the one file",
		"chunks": "PUT /broadcast/one HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nthe \r\n17\r\ncontent of the one file\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			to := &readers{}
			f := serve(t, to, gateway.Options{})
			for cut := strings.Index(whole, "\r\n\r\n"); cut < len(whole); cut++ {
				conn, _ := f.dial()
				_, err := conn.Write([]byte(whole[:cut]))
				require.NoError(t, err)
				require.NoError(t, conn.CloseWrite())
				answer, _ := io.ReadAll(conn)
				require.NotContains(t, string(answer), "HTTP/1.1 200", "cut at %d: %q", cut, whole[:cut])
				require.Empty(t, to.published(), "cut at %d: %q", cut, whole[:cut])
				conn.Close()
			}
			conn, r := f.dial()
			_, err := conn.Write([]byte(whole))
			require.NoError(t, err)
			res, err := http.ReadResponse(r, nil)
			require.NoError(t, err)
			assert.Equal(t, 200, f.read(res).Status)
			assert.Equal(t, "the content of the one file", to.published()[0].content)
		})
	}
}

// A form whose length is right and whose last boundary is missing is no less cut.
func TestFormWithoutEnd(t *testing.T) {
	to := &readers{}
	f := serve(t, to, gateway.Options{})
	kind, body := form(t, "one", "content")
	for _, n := range []int{2, 4, 5, 10, 30} {
		req := f.request(http.MethodPost, "/broadcast", bytes.NewReader(body[:len(body)-n]))
		req.Header.Set("Content-Type", kind)
		a := f.do(req)
		if n == 2 { // only the line break behind the boundary
			assert.Equal(t, 200, a.Status)
			continue
		}
		assert.Equal(t, 400, a.Status, n)
		assert.Equal(t, protocol.CodeTruncated, a.Code, n)
	}
	assert.Len(t, to.published(), 1)
}

// What is refused without its content is refused before the content is sent.
func TestExpectContinue(t *testing.T) {
	to := &readers{push: func(context.Context, gateway.File, func(gateway.Progress)) ([]protocol.Receipt, error) {
		return nil, protocol.Errorf(protocol.CodeExists, "it is there")
	}}
	f := serve(t, to, gateway.Options{})
	conn, r := f.dial()
	_, err := io.WriteString(conn, "PUT /broadcast/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
	require.NoError(t, err)
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "HTTP/1.1 409 Conflict\r\n", line)
}

// A client that is still sending gets the answer, not a reset.
func TestEarlyAnswer(t *testing.T) {
	to := &readers{push: func(_ context.Context, f gateway.File, _ func(gateway.Progress)) ([]protocol.Receipt, error) {
		_, err := io.ReadFull(f.Content, make([]byte, 1000))
		return nil, errors.Join(err, protocol.Errorf(protocol.CodeNoSpace, "the disk is full"))
	}}
	f := serve(t, to, gateway.Options{})
	a := f.put("/broadcast/x", strings.Repeat("x", 8<<20))
	assert.Equal(t, 507, a.Status)
}

// Content is read as it is asked for, not before.
func TestBackpressure(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	to := &readers{}
	to.push = func(_ context.Context, f gateway.File, _ func(gateway.Progress)) ([]protocol.Receipt, error) {
		close(begun)
		<-goOn
		return to.take(f)
	}
	f := serve(t, to, gateway.Options{Stall: 100 * time.Millisecond})
	conn, r := f.dial()
	const size = 64 << 20 // more than all socket buffers hold
	_, err := fmt.Fprintf(conn, "PUT /broadcast/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", size)
	require.NoError(t, err)
	receive(t, begun, "the push")
	require.NoError(t, conn.SetWriteDeadline(time.Now().Add(300*time.Millisecond))) // longer than the client may stall
	piece := make([]byte, 1<<20)
	sent := 0
	for {
		n, err := conn.Write(piece)
		sent += n
		if err != nil {
			break
		}
	}
	require.Less(t, sent, size, "the client was held up")
	close(goOn)
	require.NoError(t, conn.SetWriteDeadline(time.Now().Add(patience)))
	for sent < size {
		n, err := conn.Write(piece[:min(len(piece), size-sent)])
		require.NoError(t, err)
		sent += n
	}
	res, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	assert.Equal(t, 200, f.read(res).Status, "whom the readers keep waiting does not stall")
}

// A client that hangs up before the answer takes its push back.
func TestHangUp(t *testing.T) {
	ended := make(chan error, 1)
	taken := make(chan struct{})
	to := &readers{push: func(ctx context.Context, f gateway.File, _ func(gateway.Progress)) ([]protocol.Receipt, error) {
		_, _ = io.Copy(io.Discard, f.Content)
		close(taken)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	}}
	f := serve(t, to, gateway.Options{})
	conn, _ := f.dial()
	_, err := io.WriteString(conn, "PUT /broadcast/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
	require.NoError(t, err)
	receive(t, taken, "the content")
	conn.Close()
	require.ErrorIs(t, receive(t, ended, "the end of the push"), protocol.ErrForget)
}

func TestDryRun(t *testing.T) {
	var asked []string
	to := &readers{push: func(_ context.Context, f gateway.File, _ func(gateway.Progress)) ([]protocol.Receipt, error) {
		assert.True(t, f.Options.DryRun)
		asked = append(asked, string(f.Name))
		return []protocol.Receipt{{Leaf: "oslo", Status: protocol.LeafReady}}, nil
	}}
	f := serve(t, to, gateway.Options{})
	assert.Equal(t, 200, f.do(f.request(http.MethodPut, "/broadcast/x?dry-run", nil)).Status, "without a body too")
	assert.Equal(t, 200, f.put("/broadcast/y?dry-run", "content").Status)
	assert.Equal(t, 200, f.post("/broadcast?dry-run", "one", strings.Repeat("x", 100000), "two", "").Status)
	assert.True(t, slices.Equal([]string{"x", "y", "one", "two"}, asked), asked)
}
