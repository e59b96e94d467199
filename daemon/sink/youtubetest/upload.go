// Resumable uploads: sessions, pieces, and where to go on.

package youtubetest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Unit is what the length of a piece is a multiple of, but for the last.
const Unit = 256 << 10

// statusIncomplete says that a session wants more content.
const statusIncomplete = http.StatusPermanentRedirect

// statusCancelled answers the DELETE of a session.
const statusCancelled = 499

// resource is what of a video the stand-in looks at.
type resource struct {
	Kind    string `json:"kind,omitempty"`
	ID      string `json:"id,omitempty"`
	Snippet struct {
		Title       string   `json:"title"`
		Description string   `json:"description,omitempty"`
		Tags        []string `json:"tags,omitempty"`
		CategoryID  string   `json:"categoryId,omitempty"`
	} `json:"snippet"`
	Status struct {
		Upload  string `json:"uploadStatus,omitempty"`
		Privacy string `json:"privacyStatus,omitempty"`
	} `json:"status"`
}

// session is an upload under way. One request at a time has it.
type session struct {
	mu     sync.Mutex
	about  resource
	size   int64 // -1 when unknown
	have   int64
	hash   hash.Hash
	video  *Video // when it is done
	forgot bool
	buffer [Unit]byte
}

func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	if !s.authorised(r) {
		fail(w, http.StatusUnauthorized, "authError", "Invalid Credentials")
		return
	}
	if r.URL.Query().Get("uploadType") != "resumable" {
		fail(w, http.StatusBadRequest, "badRequest", "uploadType must be resumable")
		return
	}
	id := r.URL.Query().Get("upload_id")
	switch {
	case id == "" && r.Method == http.MethodPost:
		s.start(w, r)
	case id == "":
		fail(w, http.StatusMethodNotAllowed, "httpMethodNotAllowed", "want POST")
	case r.Method == http.MethodDelete:
		s.cancel(w, r, id)
	case r.Method == http.MethodPut, r.Method == http.MethodPost:
		s.resume(w, r, id)
	default:
		fail(w, http.StatusMethodNotAllowed, "httpMethodNotAllowed", "want PUT")
	}
}

// start makes a session of the description of a video.
func (s *Server) start(w http.ResponseWriter, r *http.Request) {
	fault := s.note(Start, "")
	if fault.strike(w, r) {
		return
	}
	u := &session{size: -1, hash: sha256.New()}
	if err := u.describe(r); err != nil {
		fail(w, http.StatusBadRequest, "invalidMetadata", err.Error())
		return
	}
	if !s.spend() {
		fail(w, http.StatusForbidden, "quotaExceeded", "The request cannot be completed because you have exceeded your quota.")
		return
	}
	id := s.name("upload")
	s.mu.Lock()
	s.sessions[id] = u
	s.mu.Unlock()
	if fault.Lose {
		cut()
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	w.Header().Set("Location", scheme+"://"+r.Host+r.URL.Path+"?uploadType=resumable&upload_id="+id)
	w.WriteHeader(http.StatusOK)
}

func (s *Server) spend() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.units < 0 {
		return true
	}
	if s.units < UnitsOfInsert {
		return false
	}
	s.units -= UnitsOfInsert
	return true
}

// describe reads the description of the video that is to come.
func (u *session) describe(r *http.Request) error {
	if kind := r.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		return fmt.Errorf("Content-Type is %q, want application/json", kind)
	}
	media := r.Header.Get("X-Upload-Content-Type")
	if !strings.HasPrefix(media, "video/") && media != "application/octet-stream" {
		return fmt.Errorf("X-Upload-Content-Type is %q, want video/* or application/octet-stream", media)
	}
	if n := r.Header.Get("X-Upload-Content-Length"); n != "" {
		size, err := strconv.ParseInt(n, 10, 64)
		if err != nil || size <= 0 {
			return fmt.Errorf("X-Upload-Content-Length is %q", n)
		}
		u.size = size
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&u.about); err != nil {
		return fmt.Errorf("not a video resource: %w", err)
	}
	parts := strings.Join(r.URL.Query()["part"], ",")
	title := u.about.Snippet.Title
	switch {
	case !strings.Contains(parts, "snippet") || !strings.Contains(parts, "status"):
		return fmt.Errorf("part is %q, want snippet,status", parts)
	case title == "" || utf8.RuneCountInString(title) > 100 || strings.ContainsAny(title, "<>"):
		return errors.New("invalid title")
	case len(u.about.Snippet.Description) > 5000 || strings.ContainsAny(u.about.Snippet.Description, "<>"):
		return errors.New("invalid description")
	}
	switch u.about.Status.Privacy {
	case "private", "unlisted", "public":
		return nil
	default:
		return fmt.Errorf("privacyStatus is %q", u.about.Status.Privacy)
	}
}

func (s *Server) cancel(w http.ResponseWriter, r *http.Request, id string) {
	fault := s.note(Cancel, "")
	if fault.strike(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.sessions[id]; !ok {
		fail(w, http.StatusNotFound, "notFound", "no such session")
		return
	}
	delete(s.sessions, id)
	w.WriteHeader(statusCancelled)
}

var (
	pieceRange = regexp.MustCompile(`^bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$`)
	askRange   = regexp.MustCompile(`^bytes \*/(\d{1,18}|\*)$`)
)

// resume takes a piece, or says where to go on.
func (s *Server) resume(w http.ResponseWriter, r *http.Request, id string) {
	text := r.Header.Get("Content-Range")
	step := Piece
	if askRange.MatchString(text) {
		step = Ask
	}
	fault := s.note(step, text)
	s.mu.Lock()
	u := s.sessions[id]
	s.mu.Unlock()
	if u == nil {
		fail(w, http.StatusNotFound, "notFound", "no such session")
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forgot = u.forgot || fault.Forget
	switch {
	case u.forgot:
		fail(w, http.StatusNotFound, "notFound", "the session has expired")
		return
	case fault.strike(w, r):
		return
	}
	var err error
	if ask := askRange.FindStringSubmatch(text); ask != nil {
		err = u.ask(r, ask[1])
	} else {
		err = u.piece(r, fault)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, "badRequest", err.Error())
		return
	}
	if u.video == nil && u.size >= 0 && u.have == u.size {
		s.publish(u)
	}
	if fault.Lose {
		cut()
	}
	if u.video == nil {
		u.incomplete(w, r)
		return
	}
	done := u.about
	done.Kind, done.ID, done.Status.Upload = "youtube#video", u.video.ID, "uploaded"
	answer(w, http.StatusOK, done)
}

// incomplete says how much there is.
func (u *session) incomplete(w http.ResponseWriter, r *http.Request) {
	if u.have > 0 {
		w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", u.have-1))
	}
	if r.Header.Get("X-GUploader-No-308") != "" { // as Google's own clients want it
		w.Header().Set("X-Http-Status-Code-Override", strconv.Itoa(statusIncomplete))
		w.WriteHeader(http.StatusOK)
		return
	}
	w.WriteHeader(statusIncomplete)
}

// total notes the size that a request says, which must not change.
func (u *session) total(text string) error {
	if text == "*" {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 || u.size >= 0 && n != u.size || n < u.have {
		return fmt.Errorf("a total of %s bytes after one of %d, with %d here", text, u.size, u.have)
	}
	u.size = n
	return nil
}

func (u *session) ask(r *http.Request, total string) error {
	if r.ContentLength != 0 {
		return errors.New("a question has no content")
	}
	return u.total(total)
}

// piece takes content that begins where the last ended.
func (u *session) piece(r *http.Request, fault Fault) error {
	m := pieceRange.FindStringSubmatch(r.Header.Get("Content-Range"))
	if m == nil {
		return fmt.Errorf("Content-Range is %q", r.Header.Get("Content-Range"))
	}
	first, _ := strconv.ParseInt(m[1], 10, 64) // digits
	last, _ := strconv.ParseInt(m[2], 10, 64)
	if u.video != nil || first != u.have {
		return fmt.Errorf("a piece from %d, with %d here", first, u.have)
	}
	if err := u.total(m[3]); err != nil {
		return err
	}
	length := last - first + 1
	final := last+1 == u.size
	switch {
	case length <= 0 || u.size >= 0 && last >= u.size:
		return fmt.Errorf("Content-Range is %q", r.Header.Get("Content-Range"))
	case r.ContentLength != length:
		return fmt.Errorf("Content-Length is %d, the range has %d", r.ContentLength, length)
	case !final && length%Unit != 0:
		return fmt.Errorf("a piece of %d bytes, which is no multiple of %d, and not the last", length, Unit)
	}
	for took := int64(0); took < length; {
		if fault.Short > 0 && took >= fault.Short {
			_, _ = io.Copy(io.Discard, r.Body)
			return nil
		}
		b := u.buffer[:min(Unit, length-took)]
		if fault.Cut > 0 && took+int64(len(b)) >= fault.Cut {
			_, _ = io.CopyN(io.Discard, r.Body, fault.Cut-took)
			cut()
		}
		if _, err := io.ReadFull(r.Body, b); err != nil {
			cut() // the client has; whole units stay
		}
		u.hash.Write(b)
		took += int64(len(b))
		u.have += int64(len(b))
	}
	return nil
}

// publish makes a video of a session that has all.
func (s *Server) publish(u *session) {
	about := u.about.Snippet
	u.video = &Video{
		ID: s.name("video"), Title: about.Title, Description: about.Description, Tags: about.Tags, CategoryID: about.CategoryID,
		Privacy: u.about.Status.Privacy, Size: u.have, SHA256: hex.EncodeToString(u.hash.Sum(nil)),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.videos = append(s.videos, *u.video)
}
