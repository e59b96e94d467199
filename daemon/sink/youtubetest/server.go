// Package youtubetest is a stand-in for YouTube, for tests and demonstrations:
// the resumable uploads of its Data API (v3), and the OAuth endpoints that
// give out the tokens for them. It is stricter than YouTube where that may let
// something pass, and can be told to fail.
//
// What it takes and answers follows
// https://developers.google.com/youtube/v3/guides/using_resumable_upload_protocol
// and https://developers.google.com/identity/protocols/oauth2/native-app;
// tools/youtube checks it with Google's own client. Content is hashed and not
// kept, so memory does not grow with it.
package youtubetest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// UnitsOfInsert is what one upload takes of the quota of a project.
const UnitsOfInsert = 1600

// Server is the stand-in, an http.Handler. Its zero value is of no use: New.
type Server struct {
	mux *http.ServeMux

	mu       sync.Mutex
	last     int // of the numbers that name things
	sessions map[string]*session
	videos   []Video
	faults   []Fault
	requests []string
	units    int // left of the quota; -1: no end of it

	access  map[string]bool // tokens that are good
	refresh map[string]bool
	codes   map[string]code // of authorisations that were not used yet
	rotate  bool
}

// Video is one that was uploaded, whole.
type Video struct {
	ID          string   `json:"id"`
	Title       string   `json:"title"`
	Description string   `json:"description,omitempty"`
	Tags        []string `json:"tags,omitempty"`
	CategoryID  string   `json:"categoryId,omitempty"`
	Privacy     string   `json:"privacyStatus,omitempty"`
	Size        int64    `json:"size"`
	SHA256      string   `json:"sha256"`
}

// Steps of an upload, for Fault.On and Requests.
const (
	Start  = "start"  // a session is asked for
	Piece  = "piece"  // content comes
	Ask    = "ask"    // bytes */N: where to go on
	Cancel = "cancel" // the session is given up
	Token  = "token"  // OAuth: a token is asked for
)

// Fault is something that goes wrong with one request.
type Fault struct {
	On     string // the step; "": the next request of any
	Status int    // answer this, having taken nothing
	Reason string // in the answer, as in quotaExceeded
	After  string // seconds, in the field Retry-After

	Lose   bool  // do what is asked, and cut the connection in place of an answer
	Cut    int64 // of a piece, cut the connection when this many bytes of content have come
	Short  int64 // of a piece, take so many bytes, a multiple of Unit, and say so
	Forget bool  // answer 404 to this and all that follows of the session
}

// New returns a stand-in without videos.
func New() *Server {
	s := &Server{
		mux: http.NewServeMux(), sessions: map[string]*session{}, units: -1,
		access: map[string]bool{}, refresh: map[string]bool{}, codes: map[string]code{},
	}
	for _, path := range []string{"/upload/youtube/v3/videos", "/resumable/upload/youtube/v3/videos"} {
		s.mux.HandleFunc(path, s.upload)
	}
	s.mux.HandleFunc("GET /o/oauth2/auth", s.authorise)
	s.mux.HandleFunc("POST /token", s.token)
	s.mux.HandleFunc("POST /device/code", s.device)
	s.mux.HandleFunc("GET /standin/videos", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.Videos()) })
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Fail makes requests go wrong, each fault for the next that it fits.
func (s *Server) Fail(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// Pending returns how many faults have not come about.
func (s *Server) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.faults)
}

// Heal forgets the faults that have not come about.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// SetQuota says how many units the project has left.
func (s *Server) SetQuota(units int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.units = units
}

// Videos returns what was uploaded.
func (s *Server) Videos() []Video {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Video{}, s.videos...)
}

// Requests returns the steps that were asked for, as "piece bytes 0-262143/*".
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.requests...)
}

// Open returns how many sessions are neither done nor cancelled.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, u := range s.sessions {
		if u.video == nil {
			n++
		}
	}
	return n
}

// note notes a request and returns the fault that it meets, if any.
func (s *Server) note(step, detail string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, strings.TrimSpace(step+" "+detail))
	for i, f := range s.faults {
		if f.On == "" || f.On == step {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			return f
		}
	}
	return Fault{}
}

// name makes a name that is not easy to guess wrong.
func (s *Server) name(what string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return fmt.Sprintf("%s-%08d", what, s.last)
}

// strike carries out what a fault says of the answer, and reports whether that
// was it. It comes after the content of r: Google's client has a data race
// with answers that come earlier.
func (f *Fault) strike(w http.ResponseWriter, r *http.Request) bool {
	if f.Status == 0 {
		return false
	}
	_, _ = io.Copy(io.Discard, r.Body)
	if f.After != "" {
		w.Header().Set("Retry-After", f.After)
	}
	fail(w, f.Status, f.Reason, "a fault that was asked for")
	return true
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that has gone
}

// fail answers with an error in the form of Google's APIs.
func fail(w http.ResponseWriter, status int, reason, message string) {
	type detail struct {
		Domain  string `json:"domain"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	}
	type body struct {
		Code    int      `json:"code"`
		Message string   `json:"message"`
		Errors  []detail `json:"errors"`
	}
	answer(w, status, map[string]body{"error": {status, message, []detail{{"youtube", reason, message}}}})
}

// cut ends the connection without an answer.
func cut() { panic(http.ErrAbortHandler) }
