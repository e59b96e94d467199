// Identity: who this end is, and whom it trusts, in TLS.

package protocol

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// ALPN is the name of the protocol in TLS. A peer that does not say it is not
// meant for us.
const ALPN = "sbcast/1"

// IdentityFiles are the PEM files of an Identity.
type IdentityFiles struct {
	Cert string // certificate and intermediates; "": none, which is for clients only
	Key  string // of Cert
	CA   string // whom to trust; "": the system's authorities, for dialling only
}

// Identity is a certificate and whom to trust, read from files, and read again
// when they change. A role is what a certificate may be used for (RFC 5280,
// 4.2.1.12): one with clientAuth may push, one with serverAuth may take. So a
// reader's certificate, which has serverAuth alone, cannot push.
type Identity struct {
	files IdentityFiles
	*watched[credentials]
}

type credentials struct {
	cert *tls.Certificate // nil: none
	pool *x509.CertPool   // nil: the system's
}

// LoadIdentity reads files. Reloaded, which may be nil, is told of each change
// of them, with the error when they cannot be used; what there was before is
// used then.
func LoadIdentity(files IdentityFiles, reloaded func(error)) (*Identity, error) {
	if (files.Cert == "") != (files.Key == "") {
		return nil, errors.New("a certificate needs its key, and a key its certificate")
	}
	w, err := watch([]string{files.Cert, files.Key, files.CA}, files.load, reloaded)
	return &Identity{files, w}, err
}

// Reload reads the files again, changed or not.
func (id *Identity) Reload() { id.reload() }

func (f IdentityFiles) load() (c credentials, err error) {
	if f.Cert != "" {
		cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return c, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
		}
		c.cert = &cert
	}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return c, err
		}
		c.pool = x509.NewCertPool()
		if !c.pool.AppendCertsFromPEM(pem) {
			return c, fmt.Errorf("%s has no certificate in PEM form", f.CA)
		}
	}
	return c, nil
}

// Server is the configuration of a listener that speaks alpn, for each
// connection as the files are then. With asks a client may come without a
// certificate, to show a token; one that it shows is checked all the same.
func (id *Identity) Server(asks bool, alpn ...string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return id.server(asks, alpn...), nil },
	}
}

// server is the configuration for one connection.
func (id *Identity) server(asks bool, alpn ...string) *tls.Config {
	now := id.get()
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: alpn, ClientCAs: now.pool,
		Certificates: []tls.Certificate{*now.cert},
		// A resumed session would not notice that its certificate is not
		// trusted any more.
		SessionTicketsDisabled: true,
	}
	switch {
	case now.pool == nil:
		c.ClientAuth = tls.NoClientCert
	case asks:
		c.ClientAuth = tls.VerifyClientCertIfGiven
	default:
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c
}

// Takes reports whether clients can show a certificate.
func (id *Identity) Takes() bool { return id.files.CA != "" }

// client is the configuration to dial host.
func (id *Identity) client(host string) *tls.Config {
	now := id.get()
	c := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{ALPN}, RootCAs: now.pool, ServerName: host}
	if now.cert != nil {
		c.Certificates = []tls.Certificate{*now.cert}
	}
	return c
}

// secure puts TLS on conn, when there is an identity, and closes conn when
// that fails. Host is whom a client wants to reach.
func (c SessionConfig) secure(ctx context.Context, conn net.Conn, client bool) (net.Conn, error) {
	if c.Identity == nil {
		return conn, nil
	}
	var tc *tls.Conn
	if client {
		tc = tls.Client(conn, c.Identity.client(c.Host))
	} else {
		tc = tls.Server(conn, c.Identity.server(c.Tokens != nil, ALPN))
	}
	err := greet(ctx, conn, conn.SetDeadline, func() error {
		err := tc.HandshakeContext(ctx)
		if err == nil && tc.ConnectionState().NegotiatedProtocol != ALPN {
			err = Errorf(CodeUnauthorised, "the peer does not say in TLS that it speaks %s", ALPN)
		}
		var plain tls.RecordHeaderError
		if errors.As(err, &plain) && plain.Conn != nil && !client {
			_ = writeMessage(plain.Conn, &Reject{Code: CodeUnauthorised, Text: "this daemon speaks TLS only: say with --tls-ca whom to trust, and with --tls-cert or --token-file who you are"})
		}
		if err != nil && !client { // an alert may be on its way, and what a client sends ahead
			drain(conn)
		}
		return tlsError(err, client)
	})
	return tc, err
}

// tlsError says what an error of TLS means to a user, and gives it its code.
func tlsError(err error, client bool) error {
	var (
		coded  *Error
		verify *tls.CertificateVerificationError
		plain  tls.RecordHeaderError
		host   x509.HostnameError
		remote *net.OpError
	)
	switch {
	case err == nil, errors.As(err, &coded):
		return err
	case errors.As(err, &verify) && errors.As(err, &host) && client:
		return Errorf(CodeUnauthorised, "its certificate is not for %q: sbcast ca issue --host makes one that is (%w)", host.Host, host)
	case errors.As(err, &verify) && client:
		return Errorf(CodeUnauthorised, "its certificate is not to be trusted: %w; --tls-ca says whom to trust", verify.Err)
	case errors.As(err, &verify):
		return Errorf(CodeUnauthorised, "the peer's certificate is not good for this: %w", verify.Err)
	case errors.As(err, &plain) && client:
		return Errorf(CodeUnauthorised, "it does not speak TLS: give it a certificate, or dial it without")
	case errors.As(err, &plain):
		return Errorf(CodeUnauthorised, "the peer does not speak TLS")
	case errors.As(err, &remote) && remote.Op == "remote error" && !client:
		return Errorf(CodeUnauthorised, "the peer does not trust the certificate of this daemon (%w)", remote.Err)
	case errors.As(err, &remote) && remote.Op == "remote error":
		return Errorf(CodeUnauthorised, "it does not let this end in (%w): --tls-cert needs a certificate of a client or broadcaster, in its time, of an authority that the peer trusts", remote.Err)
	case strings.HasPrefix(err.Error(), "tls: "): // the rest of what crypto/tls finds wrong with a peer has no type
		return Errorf(CodeUnauthorised, "%w", err)
	default:
		return err
	}
}
