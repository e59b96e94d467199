// Clients that are slow, cut off, greedy, or sent by a page from elsewhere.

package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/daemon/gateway"
	"github.com/sbcast/sbcast/protocol"
)

// A body that nobody wants is not waited for: connections are bounded, and
// whoever holds them all would shut everybody else out.
func TestUnwantedBody(t *testing.T) {
	f := serve(t, &readers{}, gateway.Options{})
	type answer struct {
		request string
		want    int
		r       *bufio.Reader
	}
	var answers []answer // they wait together
	for request, want := range map[string]int{
		"GET /healthz HTTP/1.1\r\nHost: localhost\r\n":                                  200,
		"GET / HTTP/1.1\r\nHost: localhost\r\n":                                         200,
		"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n":                                  404,
		"POST /broadcast/x HTTP/1.1\r\nHost: localhost\r\n":                             405,
		"POST /broadcast HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n": 403,
		"PUT /broadcast/x?bad HTTP/1.1\r\nHost: localhost\r\n":                          400,
	} {
		conn, r := f.dial()
		_, err := io.WriteString(conn, request+"Content-Length: 10\r\n\r\n")
		require.NoError(t, err)
		answers = append(answers, answer{request, want, r})
	}
	for _, a := range answers {
		request, want, r := a.request, a.want, a.r
		res, err := http.ReadResponse(r, nil)
		require.NoError(t, err, request)
		assert.Equal(t, want, res.StatusCode, request)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		_, err = r.ReadByte()
		require.ErrorIs(t, err, io.EOF, "the connection ends: %s", request)
	}
}

// A client that goes on sending after an early answer is read for a while: a
// connection that is closed over what it sent is reset, and the answer lost.
func TestEarlyAnswerToWhoGoesOn(t *testing.T) {
	begun := make(chan struct{})
	to := &readers{push: func(_ context.Context, f gateway.File, _ func(gateway.Progress)) ([]protocol.Receipt, error) {
		_, err := io.ReadFull(f.Content, make([]byte, 3))
		go func() { _, _ = f.Content.Read(make([]byte, 1)) }() // as a client of the broadcaster reads ahead
		close(begun)
		if err != nil {
			return nil, err
		}
		return nil, protocol.Errorf(protocol.CodeNoSpace, "the disk is full")
	}}
	f := serve(t, to, gateway.Options{})
	const size = 8 << 20
	goOn := func(conn io.Writer, r *bufio.Reader, want int) {
		res, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		assert.Equal(t, want, f.read(res).Status)
		for range size >> 20 {
			_, err := conn.Write(make([]byte, 1<<20))
			require.NoError(t, err)
		}
	}
	conn, r := f.dial()
	_, err := fmt.Fprintf(conn, "PUT /broadcast/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\nabc", size+3)
	require.NoError(t, err)
	receive(t, begun, "the push")
	goOn(conn, r, 507)

	conn, r = f.dial()
	_, err = fmt.Fprintf(conn, "PUT /broadcast/x?bad HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", size)
	require.NoError(t, err)
	goOn(conn, r, 400)
}

// A byte now and then is not enough to hold an upload.
func TestTrickle(t *testing.T) {
	f := serve(t, &readers{}, gateway.Options{Stall: 300 * time.Millisecond})
	conn, r := f.dial()
	_, err := io.WriteString(conn, "PUT /broadcast/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
	require.NoError(t, err)
	answered := make(chan struct{})
	trickle := make(chan struct{})
	go func() {
		defer close(trickle)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-tick.C:
			case <-answered:
				return
			}
			if _, err := conn.Write([]byte("x")); err != nil {
				return
			}
		}
	}()
	res, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	a := f.read(res)
	close(answered)
	<-trickle
	assert.Equal(t, 408, a.Status)
	assert.Contains(t, a.Message, "less than 256 bytes a second for 1.5s")
}

// What is wrong with the body is the answer even when the push hears first that
// the connection has failed.
func TestWhyTheConnectionFailed(t *testing.T) {
	ended := make(chan error, 1)
	to := &readers{push: func(ctx context.Context, f gateway.File, _ func(gateway.Progress)) ([]protocol.Receipt, error) {
		go func() { _, _ = io.Copy(io.Discard, f.Content) }()
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	}}
	f := serve(t, to, gateway.Options{Stall: 100 * time.Millisecond})
	for _, head := range []string{"Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"} {
		for _, cut := range []bool{false, true} {
			conn, r := f.dial()
			_, err := io.WriteString(conn, "PUT /broadcast/x HTTP/1.1\r\nHost: localhost\r\n"+head)
			require.NoError(t, err)
			want, code := 408, protocol.CodeStalled
			if cut {
				want, code = 400, protocol.CodeTruncated
				require.NoError(t, conn.CloseWrite())
			}
			res, err := http.ReadResponse(r, nil)
			require.NoError(t, err)
			a := f.read(res)
			assert.Equal(t, want, a.Status, a.Message)
			assert.Equal(t, code, a.Code)
			require.ErrorIs(t, receive(t, ended, "the end of the push"), protocol.ErrForget)
		}
	}
}

// What a form says before the content of a file is kept, and so bounded.
func TestFormHeading(t *testing.T) {
	to := &readers{}
	f := serve(t, to, gateway.Options{})
	long := strings.Repeat("x", 1<<20)
	part := func(name, more string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"" + name + "\"\r\n" + more + "\r\n" + long + "\r\n"
	}
	for body, want := range map[string]int{
		part("one", "") + part("two", "") + "--b--\r\n":                     200,
		strings.Repeat("x\r\n", 1<<18) + part("one", "") + "--b--\r\n":      400,
		part("one", "X-Long: "+long+"\r\n") + "--b--\r\n":                   400,
		part("one", "") + part("two", "X-Long: "+long+"\r\n") + "--b--\r\n": 400,
	} {
		req := f.request(http.MethodPost, "/broadcast", strings.NewReader(body))
		req.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		a := f.do(req)
		assert.Equal(t, want, a.Status, a.Message)
		if want == 400 {
			assert.Contains(t, a.Message, "65536 bytes before the content")
		}
	}
	for _, file := range to.published() {
		assert.Equal(t, long, file.content)
	}
}

// A page whose name comes to mean this machine is of the gateway's own origin,
// to a browser.
func TestRebinding(t *testing.T) {
	for name, hosts := range map[string][]string{"none": nil, "one": {"files.example"}, "any": {gateway.AnyHost}} {
		f := serve(t, &readers{}, gateway.Options{Hosts: hosts})
		for host, good := range map[string]bool{
			"localhost": true, "localhost:7080": true, "LocalHost.": true, "box.localhost:1": true,
			"127.0.0.1": true, "192.0.2.1:7080": true, "[::1]:7080": true, "[::1]": true,
			"evil.example": name == "any", "evil.example:7080": name == "any", "localhost.evil.example": name == "any", "127.0.0.1.evil.example": name == "any",
			"files.example": name != "none", "Files.Example:80": name != "none",
		} {
			req := f.request(http.MethodPut, "/broadcast/x", strings.NewReader("content"))
			req.Host = host
			req.Header.Set("Origin", "http://"+host)
			a := f.do(req)
			if good {
				assert.Equal(t, 200, a.Status, host)
			} else {
				assert.Equal(t, 421, a.Status, host)
				assert.Contains(t, a.Message, "--http-host")
			}
		}
	}
}
