//go:build unix

// Commands of the scripts that stand in for the web: a server that keeps what
// it is sent, and YouTube.

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sbcast/sbcast/daemon/sink"
	"github.com/sbcast/sbcast/daemon/sink/youtubetest"
)

// receiver is a web server that keeps what it is sent in a directory.
type receiver struct {
	dir string
	mu  sync.Mutex // of the log
}

func cmdReceiver(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: receiver NAME DIR")
	}
	r := &receiver{dir: ts.MkAbs(args[1])}
	if err := os.MkdirAll(r.dir, 0o777); err != nil {
		return err
	}
	s := httptest.NewServer(r)
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
	return nil
}

// ServeHTTP keeps a body that is whole. /full/, /moved/ and /closed/ are
// places where it does not.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := filepath.Join(r.dir, filepath.FromSlash(filepath.Clean("/"+req.URL.Path)))
	switch place, _, _ := strings.Cut(req.URL.Path[1:], "/"); {
	case place == "full" && req.Method != http.MethodHead:
		http.Error(w, "quota of 1 GB is used up", http.StatusInsufficientStorage)
	case place == "moved" && req.Method != http.MethodHead:
		http.Redirect(w, req, "/in/elsewhere?secret", http.StatusTemporaryRedirect)
	case place == "closed" && req.Header.Get("Authorization") != "Bearer letmein":
		http.Error(w, "who are you?", http.StatusUnauthorized)
	case req.Method == http.MethodHead:
		b, err := os.ReadFile(path)
		if err != nil {
			http.NotFound(w, req)
			return
		}
		w.Header().Set("ETag", etag(b))
	default:
		b, err := io.ReadAll(req.Body)
		if err != nil {
			r.log("cut %s %s after %d bytes", req.Method, req.URL.Path, len(b))
			return
		}
		err = os.MkdirAll(filepath.Dir(path), 0o777)
		if err == nil {
			err = os.WriteFile(path, b, 0o666)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		r.log("%s %s length %d trailer %q", req.Method, req.URL.Path, req.ContentLength, req.Trailer.Get("Sbcast-Digest"))
		w.Header().Set("ETag", etag(b))
		w.WriteHeader(http.StatusCreated)
	}
}

func etag(b []byte) string {
	sum := sha256.Sum256(b)
	return strconv.Quote(hex.EncodeToString(sum[:8]))
}

func (r *receiver) log(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(r.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, format+"\n", args...)
}

// tubes are the stand-ins that scripts have started, by URL.
var tubes sync.Map

func tube(ts *testscript.TestScript, name string) (*youtubetest.Server, error) {
	if s, ok := tubes.Load(ts.Getenv(name)); ok {
		return s.(*youtubetest.Server), nil
	}
	return nil, fmt.Errorf("no stand-in %q is running", name)
}

func cmdYouTube(ts *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: youtube NAME [FAULT...]")
	}
	s, err := tube(ts, args[0])
	if err != nil {
		s = youtubetest.New()
		web := httptest.NewServer(s)
		ts.Defer(func() { tubes.Delete(web.URL); web.Close() })
		tubes.Store(web.URL, s)
		ts.Setenv(args[0], web.URL)
		if err := os.WriteFile(ts.MkAbs(args[0]+".client"), youtubetest.ClientSecret(web.URL), 0o600); err != nil {
			return err
		}
		if err := grant(s, web.URL, ts.MkAbs(args[0]+".token")); err != nil {
			return err
		}
	}
	for _, text := range args[1:] {
		f, err := parseFault(text)
		if err != nil {
			return err
		}
		s.Fail(f)
	}
	return nil
}

// grant stores a token for s, as a login would.
func grant(s *youtubetest.Server, base, path string) error {
	access, refresh := s.Grant()
	token := sink.YouTubeToken{
		ClientID: youtubetest.ClientID, ClientSecret: youtubetest.Secret(), TokenURL: base + "/token",
		Access: access, Refresh: refresh, Expiry: time.Now().Add(time.Hour),
	}
	return token.Save(path)
}

func parseFault(text string) (f youtubetest.Fault, err error) {
	words := append(strings.SplitN(text, ":", 3), "", "")
	f.On, f.Reason = words[0], words[2]
	switch what := words[1]; {
	case what == "lose":
		f.Lose = true
	case what == "forget":
		f.Forget = true
	case strings.HasPrefix(what, "cut="):
		f.Cut, err = strconv.ParseInt(what[4:], 10, 64)
	default:
		f.Status, err = strconv.Atoi(what)
	}
	return f, err
}

// cmdVisit does what a user's browser does.
func cmdVisit(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: visit NAME")
	}
	p, err := find(ts, args[0])
	if err != nil {
		return err
	}
	match, err := p.await(&p.stderr, regexp.MustCompile(`(?m)^(http://\S+)$`))
	if err != nil {
		return err
	}
	page, err := url.Parse(string(match[1]))
	if err != nil {
		return err
	}
	client := http.Client{Timeout: scriptWait}
	resp, err := client.Get(page.String())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	client.CloseIdleConnections()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the page answered %s", resp.Status)
	}
	return nil
}

func cmdVideos(ts *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: videos NAME [FILE...]")
	}
	s, err := tube(ts, args[0])
	if err != nil {
		return err
	}
	var want, got []string
	for _, file := range args[1:] {
		b, err := os.ReadFile(ts.MkAbs(file))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		want = append(want, hex.EncodeToString(sum[:]))
	}
	for _, v := range s.Videos() {
		got = append(got, v.SHA256)
	}
	if !slices.Equal(want, got) {
		return fmt.Errorf("the stand-in has %+v, want %q", s.Videos(), want)
	}
	return nil
}

func cmdAsked(ts *testscript.TestScript, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: asked COUNT NAME REGEXP")
	}
	s, err := tube(ts, args[1])
	if err != nil {
		return err
	}
	re, err := regexp.Compile(args[2])
	if err != nil {
		return err
	}
	n := 0
	for _, request := range s.Requests() {
		if re.MatchString(request) {
			n++
		}
	}
	if strconv.Itoa(n) != args[0] {
		return fmt.Errorf("%d of its requests match %q: %q", n, re, s.Requests())
	}
	return nil
}
