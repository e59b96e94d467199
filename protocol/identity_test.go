// Identity: who is let in, and who is not, before any byte of smux.

package protocol

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sbcast/sbcast/protocol/ca"
)

// authority makes an authority with a certificate of each role, for localhost.
func authority(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, ca.Init(dir))
	for _, role := range []ca.Role{ca.RoleClient, ca.RoleBroadcaster, ca.RoleReader} {
		require.NoError(t, ca.Issue(dir, string(role), role, []string{"localhost", "127.0.0.1"}, time.Hour))
	}
	return dir
}

// files are those of name, which trusts the authority.
func files(dir, name string) IdentityFiles {
	return IdentityFiles{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+"-key.pem"), CA: filepath.Join(dir, "ca.pem")}
}

func load(t *testing.T, f IdentityFiles) *Identity {
	t.Helper()
	id, err := LoadIdentity(f, nil)
	require.NoError(t, err)
	return id
}

// meet makes a session over TCP and returns what both ends have to say.
func meet(t *testing.T, server, client SessionConfig) (who Peer, serverErr, clientErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := ln.Accept()
		if !assert.NoError(t, err) {
			return
		}
		var s *Session
		if s, serverErr = AcceptSession(t.Context(), conn, server); serverErr == nil {
			who = s.Client()
			<-s.Done()
			s.Close()
		}
	}()
	d := NewDialer(ln.Addr().String(), client)
	_, clientErr = d.Connect(t.Context())
	d.Close()
	<-done
	return who, serverErr, clientErr
}

func TestIdentityWhoIsLetIn(t *testing.T) {
	dir, other := authority(t), authority(t)
	require.NoError(t, ca.Issue(dir, "expired", ca.RoleClient, nil, -time.Minute))
	require.NoError(t, ca.Issue(dir, "elsewhere", ca.RoleReader, []string{"elsewhere.example"}, time.Hour))
	nobody := IdentityFiles{CA: filepath.Join(dir, "ca.pem")}
	mixed := files(other, "client")
	mixed.CA = filepath.Join(dir, "ca.pem")
	for _, tt := range []struct {
		name           string
		server, client IdentityFiles
		want           string // the client's name; "" when it is not let in
		text           string // of the client's error
	}{
		{"a client", files(dir, "reader"), files(dir, "client"), "client", ""},
		{"a broadcaster", files(dir, "reader"), files(dir, "broadcaster"), "broadcaster", ""},
		{"a broadcaster takes too", files(dir, "broadcaster"), files(dir, "client"), "client", ""},
		{"a reader does not push", files(dir, "reader"), files(dir, "reader"), "", "does not let this end in"},
		{"a client does not take", files(dir, "client"), files(dir, "client"), "", "not to be trusted"},
		{"expired", files(dir, "reader"), files(dir, "expired"), "", "in its time"},
		{"of another authority", files(dir, "reader"), mixed, "", "does not let this end in"},
		{"a server of another authority", files(other, "reader"), files(dir, "client"), "", "not to be trusted"},
		{"a server of another name", files(dir, "elsewhere"), files(dir, "client"), "", `not for "127.0.0.1"`},
		{"nobody", files(dir, "reader"), nobody, "", "certificate required"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			who, serverErr, clientErr := meet(t, SessionConfig{Identity: load(t, tt.server)}, SessionConfig{Identity: load(t, tt.client)})
			if tt.want != "" {
				require.NoError(t, serverErr)
				require.NoError(t, clientErr)
				assert.Equal(t, Peer{Name: tt.want, Scope: ScopePush}, who)
				return
			}
			assert.True(t, HasCode(serverErr, CodeUnauthorised), "%v", serverErr)
			assert.True(t, HasCode(clientErr, CodeUnauthorised), "%v", clientErr)
			assert.ErrorContains(t, clientErr, tt.text)
		})
	}
}

func TestIdentityTokens(t *testing.T) {
	dir := authority(t)
	token, line, err := NewToken("ci", ScopeStatus)
	require.NoError(t, err)
	path := filepath.Join(dir, "tokens")
	require.NoError(t, os.WriteFile(path, []byte("# those we know\n\n"+line), 0o600))
	tokens, err := LoadTokens(path, nil)
	require.NoError(t, err)
	nobody := load(t, IdentityFiles{CA: filepath.Join(dir, "ca.pem")})
	server := SessionConfig{Identity: load(t, files(dir, "reader")), Tokens: tokens}

	who, serverErr, clientErr := meet(t, server, SessionConfig{Identity: nobody, Token: token})
	require.NoError(t, serverErr)
	require.NoError(t, clientErr)
	assert.Equal(t, Peer{Name: "ci", Scope: ScopeStatus}, who)
	assert.NoError(t, who.May(ScopeStatus))
	assert.True(t, HasCode(who.May(ScopePush), CodeUnauthorised))

	who, _, clientErr = meet(t, server, SessionConfig{Identity: load(t, files(dir, "client"))})
	require.NoError(t, clientErr, "a certificate is as good")
	assert.Equal(t, "client", who.Name)

	wrong, _, err := NewToken("ci", ScopePush)
	require.NoError(t, err)
	for _, bad := range []string{"", wrong, token + "0", token[:len(token)-1], token + "\x00", line} {
		_, serverErr, clientErr = meet(t, server, SessionConfig{Identity: nobody, Token: bad})
		assert.True(t, HasCode(serverErr, CodeUnauthorised), "%v", serverErr)
		assert.True(t, HasCode(clientErr, CodeUnauthorised), "%v", clientErr)
		assert.NotContains(t, clientErr.Error()+serverErr.Error(), tokenPrefix, "a secret is not in an error")
	}
	// A certificate that is not good is not forgiven for a good token.
	reader := load(t, files(dir, "reader"))
	_, serverErr, _ = meet(t, server, SessionConfig{Identity: reader, Token: token})
	assert.True(t, HasCode(serverErr, CodeUnauthorised), "%v", serverErr)
}

// Outside TLS a token is not told, whatever the configuration says.
func TestIdentityTokenStaysInsideTLS(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		defer near.Close()
		_ = sayHello(near, SessionConfig{Token: tokenPrefix + "secret"}.withDefaults())
	}()
	h, err := readHello(far)
	require.NoError(t, err)
	assert.Empty(t, h.Token)
}

// What is not TLS 1.3 with our ALPN ends in the handshake.
func TestIdentityRefusesOtherTLS(t *testing.T) {
	dir := authority(t)
	client := load(t, files(dir, "client"))
	for name, change := range map[string]func(c *tls.Config){
		"TLS 1.2":    func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"other ALPN": func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"no ALPN":    func(c *tls.Config) { c.NextProtos = nil },
	} {
		t.Run(name, func(t *testing.T) {
			near, far := tcpPair(t)
			ended := make(chan error, 1)
			go func() {
				_, err := AcceptSession(t.Context(), far, SessionConfig{Identity: load(t, files(dir, "reader"))})
				ended <- err
			}()
			c := client.client("localhost")
			change(c)
			tc := tls.Client(near, c)
			if tc.HandshakeContext(t.Context()) == nil { // without ALPN TLS has nothing against it
				_, err := tc.Read(make([]byte, 1))
				assert.Error(t, err, "and not a byte of ours")
			}
			near.Close()
			assert.Error(t, <-ended)
		})
	}
}

// A session is never resumed: a certificate that is not trusted any more would
// be let in with it.
func TestIdentityIsAskedForEachTime(t *testing.T) {
	dir := authority(t)
	client := load(t, files(dir, "client"))
	server := SessionConfig{Identity: load(t, files(dir, "reader"))}
	cache := tls.NewLRUClientSessionCache(4)
	for range 2 {
		near, far := tcpPair(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if s, err := AcceptSession(ctx, far, server); err == nil {
				s.Close()
			}
		}()
		c := client.client("localhost")
		c.ClientSessionCache = cache
		tc := tls.Client(near, c)
		require.NoError(t, tc.HandshakeContext(ctx))
		assert.False(t, tc.ConnectionState().DidResume)
		_ = sayHello(tc, SessionConfig{}.withDefaults())
		_, _ = readHello(tc) // session tickets would come with the first bytes
		tc.Close()
		<-ended
		cancel()
	}
}

// Whom the files let in changes with them; what cannot be read changes nothing.
func TestIdentityFollowsItsFiles(t *testing.T) {
	dir, other := authority(t), authority(t)
	ca := filepath.Join(dir, "ca.pem")
	old, err := os.ReadFile(ca)
	require.NoError(t, err)
	fresh, err := os.ReadFile(filepath.Join(other, "ca.pem"))
	require.NoError(t, err)
	var told []error
	id, err := LoadIdentity(files(dir, "reader"), func(err error) { told = append(told, err) })
	require.NoError(t, err)
	server := SessionConfig{Identity: id}
	lets := func(from string) bool {
		f := files(from, "client")
		f.CA = filepath.Join(t.TempDir(), "ca.pem")
		require.NoError(t, os.WriteFile(f.CA, old, 0o600))
		_, err, _ := meet(t, server, SessionConfig{Identity: load(t, f)})
		return err == nil
	}
	assert.True(t, lets(dir))
	assert.False(t, lets(other))
	require.NoError(t, os.WriteFile(ca, append(fresh, old...), 0o600))
	id.Reload()
	assert.True(t, lets(dir))
	assert.True(t, lets(other))
	require.NoError(t, os.WriteFile(ca, []byte("nonsense"), 0o600))
	id.Reload()
	assert.True(t, lets(other))
	require.Len(t, told, 2)
	assert.NoError(t, told[0])
	assert.ErrorContains(t, told[1], "PEM")
}
