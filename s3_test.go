//go:build unix

// Commands of the scripts that run an S3 server, and one that has faults.

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sbcast/sbcast/daemon/sink/s3test"
)

// s3Server is the server of a script, nil before it was started.
type s3Server struct{ *s3test.Server }

type s3Key struct{}

func serverOf(ts *testscript.TestScript) *s3Server { return ts.Value(s3Key{}).(*s3Server) }

// s3Condition is the condition [s3]: there is a server to test against.
func s3Condition(name string) (bool, error) {
	if name != "s3" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	return s3test.Program() != "", nil
}

// cmdS3 starts the server of a script, which has the bucket "bucket" and keeps
// its objects as files of s3/bucket, or stops it. $s3 is its endpoint, which
// stays.
func cmdS3(ts *testscript.TestScript, args []string) error {
	server := serverOf(ts)
	switch {
	case len(args) == 1 && args[0] == "start":
		root := ts.MkAbs("s3")
		if err := os.MkdirAll(filepath.Join(root, "bucket"), 0o777); err != nil {
			return err
		}
		addr := ""
		if server.Server != nil { // again, where it was
			addr = server.Addr
		}
		running, err := s3test.Start(s3test.Program(), root, addr)
		if err != nil {
			return err
		}
		server.Server = running
		ts.Defer(running.Stop)
		ts.Setenv("s3", server.URL())
		ts.Setenv("AWS_ACCESS_KEY_ID", s3test.AccessKey)
		ts.Setenv("AWS_SECRET_ACCESS_KEY", s3test.SecretKey)
		return nil
	case len(args) == 1 && args[0] == "stop":
		server.Stop()
		return nil
	default:
		return errors.New("usage: s3 start|stop")
	}
}

// cmdUploads demands how many uploads are under way in the bucket.
func cmdUploads(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: uploads N")
	}
	all, err := serverOf(ts).Uploads("bucket")
	if err == nil && strconv.Itoa(len(all)) != args[0] {
		err = fmt.Errorf("there are %d uploads under way: %q", len(all), all)
	}
	return err
}

// slowly reads 4 MiB a second at most.
type slowly struct{ io.Reader }

func (s slowly) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	time.Sleep(time.Duration(n) * time.Second / (4 << 20))
	return n, err
}

// cmdS3Faults starts a proxy before the server; $NAME is its endpoint. What it
// does wrong:
//
//	parts     the first try of every part fails: one is answered before it is
//	          read, one after, one is cut off, in turn
//	complete  a publish is done, and its answer is lost; asked again, as the
//	          client library does, the store does not know the upload any more
//	racer     just before a publish another object takes the name
//	slow      it takes 4 MiB a second of a part
func cmdS3Faults(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: s3faults NAME parts|complete|racer|slow")
	}
	server := serverOf(ts)
	target, err := url.Parse(server.URL())
	if err != nil {
		return err
	}
	other, err := minio.New(server.Addr, &minio.Options{Creds: credentials.NewStaticV4(s3test.AccessKey, s3test.SecretKey, "")})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	seen := map[string]bool{}
	first := func(r *http.Request) (bool, int) {
		mu.Lock()
		defer mu.Unlock()
		again := seen[r.URL.String()]
		seen[r.URL.String()] = true
		return !again, len(seen)
	}
	forward := httputil.NewSingleHostReverseProxy(target)
	h := func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		complete := r.Method == http.MethodPost && query.Has("uploadId")
		switch {
		case args[1] == "parts" && query.Has("partNumber") && r.Method == http.MethodPut:
			if fails, n := first(r); fails {
				switch n % 3 {
				case 0:
					_, _ = io.Copy(io.Discard, r.Body)
					w.WriteHeader(http.StatusInternalServerError)
				case 1:
					w.WriteHeader(http.StatusServiceUnavailable)
				case 2:
					_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
					panic(http.ErrAbortHandler)
				}
				return
			}
		case args[1] == "complete" && complete:
			if fails, _ := first(r); fails {
				forward.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "<Error><Code>NoSuchUpload</Code></Error>")
			return
		case args[1] == "slow" && query.Has("partNumber"):
			r.Body = io.NopCloser(slowly{r.Body})
		case args[1] == "racer" && complete:
			key := strings.TrimPrefix(r.URL.Path, "/bucket/")
			if _, err := other.PutObject(r.Context(), "bucket", key, strings.NewReader("first\n"), 6, minio.PutObjectOptions{}); err != nil {
				ts.Logf("racer: %v", err)
			}
		}
		forward.ServeHTTP(w, r)
	}
	proxy := httptest.NewServer(http.HandlerFunc(h))
	ts.Defer(proxy.Close)
	ts.Setenv(args[0], proxy.URL)
	return nil
}
