// Tokens: for clients that have no certificate, inside TLS only.

package protocol

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// tokenSize is how many random bytes a token has: none can be guessed.
const tokenSize = 32

// tokenPrefix tells what a token is to whoever finds one, secret scanners
// among them.
const tokenPrefix = "sbcast_"

// wrongTokenDelay is how long a client with a wrong token waits for its
// answer. It holds a place among the handshakes meanwhile, which are few.
const wrongTokenDelay = time.Second

// Scope is what a peer may do.
type Scope string

// The scopes, each with what is in those before it.
const (
	ScopeStatus Scope = "status" // ask what daemons are doing
	ScopePush   Scope = "push"   // send files
)

// ParseScope reads the name of a scope.
func ParseScope(s string) (Scope, error) {
	switch c := Scope(s); c {
	case ScopeStatus, ScopePush:
		return c, nil
	default:
		return "", fmt.Errorf("unknown scope %q, want status or push", s)
	}
}

// Peer is who is at the other end of a session. The zero value is somebody
// unknown who may do nothing.
type Peer struct {
	Name  string // of the certificate or token; "" where nobody has to say
	Scope Scope
}

// May returns an error when the peer may not do what needs scope.
func (p Peer) May(scope Scope) error {
	if p.Scope == ScopePush || p.Scope == scope {
		return nil
	}
	return Errorf(CodeUnauthorised, "%q may not %s here", p.Name, scope)
}

// NewToken returns a fresh token and the line that lets name in with it, in
// the file of a daemon's tokens. That file has its hash only.
func NewToken(name string, scope Scope) (token, line string, err error) {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' }) {
		return "", "", fmt.Errorf("%q is no name for a token: want letters, digits and signs, without spaces", name)
	}
	var b [tokenSize]byte
	_, _ = rand.Read(b[:]) // never fails
	token = tokenPrefix + hex.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(token))
	return token, fmt.Sprintf("%s %s %s\n", name, scope, hex.EncodeToString(sum[:])), nil
}

// ReadToken reads a client's token from the first line of a file.
func ReadToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token, _, _ := strings.Cut(string(b), "\n")
	if token = strings.TrimSpace(token); !validToken(token) {
		return "", fmt.Errorf("%s has no token on its first line", path)
	}
	return token, nil
}

func validToken(token string) bool {
	rest, ok := strings.CutPrefix(token, tokenPrefix)
	raw, err := hex.DecodeString(rest)
	return ok && err == nil && len(raw) == tokenSize
}

// Tokens are those that a daemon lets in, read from a file, and read again
// when it changes.
type Tokens struct{ *watched[[]tokenEntry] }

type tokenEntry struct {
	hash [sha256.Size]byte
	peer Peer
}

// LoadTokens reads the file of a daemon's tokens: lines of a name, a scope and
// a hash, as NewToken makes them; empty ones and those with # in front do not
// count. Reloaded is as in LoadIdentity.
func LoadTokens(path string, reloaded func(error)) (*Tokens, error) {
	w, err := watch([]string{path}, func() ([]tokenEntry, error) { return readTokens(path) }, reloaded)
	return &Tokens{w}, err
}

// Reload reads the file again, changed or not.
func (t *Tokens) Reload() { t.reload() }

func readTokens(path string) (all []tokenEntry, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		e, err := parseTokenEntry(strings.Fields(text))
		if err != nil { // the line may hold a secret: it is not quoted
			return nil, fmt.Errorf("%s, line %d: %w", path, n, err)
		}
		all = append(all, e)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no tokens: sbcast ca token makes them", path)
	}
	return all, nil
}

func parseTokenEntry(fields []string) (e tokenEntry, err error) {
	if len(fields) != 3 {
		return e, errors.New("want a name, a scope and a hash")
	}
	if e.peer.Scope, err = ParseScope(fields[1]); err != nil {
		return e, err
	}
	sum, err := hex.DecodeString(fields[2])
	if err != nil || len(sum) != sha256.Size {
		return e, errors.New("the hash is not one of a token: sbcast ca token makes the line")
	}
	e.peer.Name = fields[0]
	copy(e.hash[:], sum)
	return e, nil
}

// Find returns who has token. How long it takes says nothing about any.
func (t *Tokens) Find(token string) (p Peer, ok bool) {
	sum := sha256.Sum256([]byte(token))
	for _, e := range t.get() {
		if subtle.ConstantTimeCompare(sum[:], e.hash[:]) == 1 {
			p, ok = e.peer, true
		}
	}
	return p, ok && validToken(token)
}
