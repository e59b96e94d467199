// OAuth: what gives out tokens, for an application that a user has installed.

package youtubetest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// What the stand-in knows its one client by.
const (
	ClientID     = "standin.apps.example"
	clientSecret = "standin-client-secret"
)

// code is an authorisation that a client may turn into tokens, once.
type code struct {
	redirect  string
	challenge string
	pending   int // times that a device has to ask in vain
}

// ClientSecret is the file that Google's console gives the owner of a client,
// for a stand-in whose URL is base.
func ClientSecret(base string) []byte {
	b, _ := json.Marshal(map[string]any{"installed": map[string]any{
		"client_id": ClientID, "client_secret": clientSecret, "project_id": "standin",
		"auth_uri": base + "/o/oauth2/auth", "token_uri": base + "/token", "device_auth_uri": base + "/device/code",
		"redirect_uris": []string{"http://localhost"},
	}})
	return b
}

// Secret is the secret of the client.
func Secret() string { return clientSecret }

// Grant returns tokens as after a login: one that uploads, and one that gets
// more of them.
func (s *Server) Grant() (access, refresh string) {
	access, refresh = s.name("access"), s.name("refresh")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.access[access], s.refresh[refresh] = true, true
	return access, refresh
}

// Expire makes all tokens that upload bad. With withdraw those that get more
// of them are bad too.
func (s *Server) Expire(withdraw bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.access = map[string]bool{}
	if withdraw {
		s.refresh = map[string]bool{}
	}
}

// Rotate makes each refresh give out a new refresh token, and the old one bad.
func (s *Server) Rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rotate = true
}

func (s *Server) authorised(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	return ok && s.access[token]
}

// authorise is the page that asks the user, who says yes at once.
func (s *Server) authorise(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	switch {
	case q.Get("client_id") != ClientID, q.Get("response_type") != "code", !strings.Contains(q.Get("scope"), "auth/youtube.upload"):
		http.Error(w, "invalid_request", http.StatusBadRequest)
		return
	case err != nil || back.Scheme != "http" || back.Hostname() != "127.0.0.1":
		http.Error(w, "redirect_uri_mismatch", http.StatusBadRequest)
		return
	case q.Get("state") == "" || q.Get("code_challenge") == "" || q.Get("code_challenge_method") != "S256" || q.Get("access_type") != "offline":
		http.Error(w, "invalid_request", http.StatusBadRequest)
		return
	}
	name := s.name("code")
	s.mu.Lock()
	s.codes[name] = code{redirect: q.Get("redirect_uri"), challenge: q.Get("code_challenge")}
	s.mu.Unlock()
	back.RawQuery = url.Values{"code": {name}, "state": {q.Get("state")}, "scope": {q.Get("scope")}}.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

// device begins the login of something that has no browser.
func (s *Server) device(w http.ResponseWriter, r *http.Request) {
	if r.PostFormValue("client_id") != ClientID || r.PostFormValue("scope") == "" {
		refuse(w, http.StatusBadRequest, "invalid_request")
		return
	}
	name := s.name("device")
	s.mu.Lock()
	s.codes[name] = code{pending: 1}
	s.mu.Unlock()
	answer(w, http.StatusOK, map[string]any{
		"device_code": name, "user_code": "STAND-IN", "verification_url": "http://" + r.Host + "/device", "expires_in": 1800, "interval": 1,
	})
}

// token turns an authorisation, or a refresh token, into tokens.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	fault := s.note(Token, r.PostFormValue("grant_type"))
	if fault.Status != 0 {
		refuse(w, fault.Status, fault.Reason)
		return
	}
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if id != ClientID || secret != clientSecret {
		refuse(w, http.StatusUnauthorized, "invalid_client")
		return
	}
	old := ""
	switch r.PostFormValue("grant_type") {
	case "authorization_code":
		c, ok := s.redeem(r.PostFormValue("code"))
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		if !ok || c.redirect != r.PostFormValue("redirect_uri") || c.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) {
			refuse(w, http.StatusBadRequest, "invalid_grant")
			return
		}
	case "urn:ietf:params:oauth:grant-type:device_code":
		name := r.PostFormValue("device_code")
		c, ok := s.redeem(name)
		if !ok {
			refuse(w, http.StatusBadRequest, "invalid_grant")
			return
		}
		if c.pending > 0 {
			s.mu.Lock()
			s.codes[name] = code{pending: c.pending - 1}
			s.mu.Unlock()
			refuse(w, http.StatusPreconditionRequired, "authorization_pending")
			return
		}
	case "refresh_token":
		old = r.PostFormValue("refresh_token")
		s.mu.Lock()
		ok := s.refresh[old]
		s.mu.Unlock()
		if !ok {
			refuse(w, http.StatusBadRequest, "invalid_grant")
			return
		}
	default:
		refuse(w, http.StatusBadRequest, "unsupported_grant_type")
		return
	}
	access, refresh := s.Grant()
	tokens := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 3600}
	s.mu.Lock()
	switch {
	case old != "" && !s.rotate:
		delete(s.refresh, refresh)
	case old != "":
		delete(s.refresh, old)
		fallthrough
	default:
		tokens["refresh_token"] = refresh
	}
	s.mu.Unlock()
	answer(w, http.StatusOK, tokens)
}

// redeem uses up an authorisation.
func (s *Server) redeem(name string) (code, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.codes[name]
	delete(s.codes, name)
	return c, ok
}

func refuse(w http.ResponseWriter, status int, reason string) {
	answer(w, status, map[string]string{"error": reason, "error_description": "the stand-in says so"})
}
