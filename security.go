// Who may connect: certificates and tokens, from flags.

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sbcast/sbcast/daemon"
	"github.com/sbcast/sbcast/protocol"
)

// identityFlags are those of everyone who dials.
func identityFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "tls-cert", EnvVars: []string{"SBCAST_TLS_CERT"}, Usage: "`FILE` with the certificate of this end"},
		&cli.StringFlag{Name: "tls-key", EnvVars: []string{"SBCAST_TLS_KEY"}, Usage: "`FILE` with its key"},
		&cli.StringFlag{Name: "tls-ca", EnvVars: []string{"SBCAST_TLS_CA"}, Usage: "`FILE` with the authorities to trust"},
	}
}

// clientFlags are those of commands that dial a daemon.
func clientFlags() []cli.Flag {
	return append(identityFlags(),
		&cli.StringFlag{Name: "token-file", EnvVars: []string{"SBCAST_TOKEN_FILE"}, Usage: "`FILE` with a token, in place of a certificate"},
		&cli.BoolFlag{Name: "tls", EnvVars: []string{"SBCAST_TLS"}, Usage: "dial with TLS, and trust the system's authorities"},
	)
}

// daemonFlags are those of daemons, which say who may connect, and how many.
func daemonFlags() []cli.Flag {
	return append(identityFlags(),
		&cli.StringFlag{Name: "token-file", EnvVars: []string{"SBCAST_TOKEN_FILE"}, Usage: "`FILE` with the tokens of clients without a certificate, from sbcast ca token"},
		&cli.StringSliceFlag{Name: "allow-name", Usage: "take only files whose name matches `PATTERN`, as *.mp4 or */*; once for each (default: all)"},
		&cli.GenericFlag{Name: "max-size", Value: &sizeValue{}, Usage: "take no file of more than `SIZE`"},
		&cli.GenericFlag{Name: "quota", Value: &sizeValue{}, Usage: "take at most `SIZE` from each client in a day"},
		&cli.BoolFlag{Name: "insecure", EnvVars: []string{"SBCAST_INSECURE"}, Usage: "let anybody push who can connect"},
		&cli.IntFlag{Name: "max-connections", Value: daemon.DefaultMaxConnections, Usage: "`NUMBER` of clients that may be connected at once"},
		&cli.IntFlag{Name: "max-transfers", Value: daemon.DefaultMaxTransfers, Usage: "`NUMBER` of pushes that may be under way at once"},
	)
}

// clientSession is how a command dials.
func clientSession(c *cli.Context) (protocol.SessionConfig, error) {
	cfg := protocol.SessionConfig{Agent: agent()}
	id, err := identity(c, nil)
	if err != nil {
		return cfg, err
	}
	cfg.Identity = id
	if path := c.String("token-file"); path != "" {
		if cfg.Token, err = protocol.ReadToken(path); err != nil {
			return cfg, configError(fmt.Errorf("--token-file: %w", err))
		}
	}
	if id == nil && (c.Bool("tls") || cfg.Token != "") {
		cfg.Identity, err = protocol.LoadIdentity(protocol.IdentityFiles{}, nil)
	}
	return cfg, err
}

// identity is that of --tls-cert, --tls-key and --tls-ca, nil without them.
func identity(c *cli.Context, reloaded func(error)) (*protocol.Identity, error) {
	files := protocol.IdentityFiles{Cert: c.String("tls-cert"), Key: c.String("tls-key"), CA: c.String("tls-ca")}
	if files == (protocol.IdentityFiles{}) {
		return nil, nil
	}
	id, err := protocol.LoadIdentity(files, reloaded)
	if err != nil {
		return nil, configError(fmt.Errorf("--tls-cert, --tls-key, --tls-ca: %w", err))
	}
	return id, nil
}

// guard says who may connect to a daemon, and what it takes from them.
type guard struct {
	identity *protocol.Identity
	tokens   *protocol.Tokens
	insecure bool
	rules    daemon.Rules

	maxConnections, maxTransfers int
}

// newGuard makes the guard that the flags describe. Files that are changed
// while the daemon runs are used from then on.
func newGuard(c *cli.Context, log *slog.Logger) (g guard, err error) {
	g.insecure = c.Bool("insecure")
	g.maxConnections, g.maxTransfers = c.Int("max-connections"), c.Int("max-transfers")
	if g.maxConnections < 1 || g.maxTransfers < 1 {
		return g, usagef("--max-connections and --max-transfers: want at least 1")
	}
	g.rules = daemon.Rules{AllowNames: c.StringSlice("allow-name"), MaxSize: sizeOf(c, "max-size"), Quota: sizeOf(c, "quota")}
	if err := g.rules.Check(); err != nil {
		return g, usagef("--allow-name: %v", err)
	}
	if g.identity, err = identity(c, changed(log, "certificates")); err != nil {
		return g, err
	}
	if path := c.String("token-file"); path != "" {
		if g.tokens, err = protocol.LoadTokens(path, changed(log, "tokens")); err != nil {
			return g, configError(fmt.Errorf("--token-file: %w", err))
		}
	}
	switch {
	case g.identity == nil && g.tokens != nil:
		err = errors.New("--token-file needs --tls-cert and --tls-key: tokens are told inside TLS only")
	case g.identity != nil && c.String("tls-cert") == "":
		err = errors.New("a daemon with --tls-ca needs --tls-cert and --tls-key too")
	case g.identity != nil && !g.knows() && !g.insecure:
		err = errors.New("--tls-cert alone says who this daemon is, not who may push: --tls-ca or --token-file does, or --insecure lets anybody")
	}
	if err != nil {
		err = configError(err)
	}
	return g, err
}

func changed(log *slog.Logger, what string) func(error) {
	return func(err error) {
		if err != nil {
			log.Error("the "+what+" changed and cannot be used: those from before are", "error", err)
			return
		}
		log.Info("the " + what + " were read again")
	}
}

// knows reports whether whoever connects has to say who it is.
func (g guard) knows() bool {
	return g.tokens != nil || g.identity != nil && g.identity.Takes()
}

// reloads are what SIGHUP does: all files are read again.
func (g guard) reloads() (all []func()) {
	if g.identity != nil {
		all = append(all, g.identity.Reload)
	}
	if g.tokens != nil {
		all = append(all, g.tokens.Reload)
	}
	return all
}

// session is how the daemon dials those below it.
func (g guard) session(window int64) protocol.SessionConfig {
	return protocol.SessionConfig{Agent: agent(), Window: window, Identity: g.identity}
}

// address is where to listen: on this machine only, unless it is known who
// connects, or somebody said that all may.
func (g guard) address(addr string) (string, error) {
	if g.knows() || g.insecure {
		return addr, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", configError(fmt.Errorf("--listen: %w", err))
	}
	if host == "" {
		return net.JoinHostPort("127.0.0.1", port), nil
	}
	if isLocal(host) {
		return addr, nil
	}
	return "", configError(fmt.Errorf("on %s anybody could push: --tls-cert, --tls-key and --tls-ca say who may (sbcast ca makes them), --insecure that all may", addr))
}

// isLocal reports whether host, a name or an address, is this machine.
func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// options completes those of a daemon.
func (g guard) options(o daemon.Options) daemon.Options {
	o.Identity, o.Tokens, o.Rules = g.identity, g.tokens, g.rules
	o.MaxConnections, o.MaxTransfers = g.maxConnections, g.maxTransfers
	return o
}

// listen opens a listener, or takes the one that systemd opened in place of
// addr, and says so on standard error, in one line that scripts can read the
// address from.
func (g guard) listen(errw io.Writer, role, addr, about string) (net.Listener, error) {
	return g.listenFor(errw, "listen", role, addr, about)
}

// listenFor is listen with the flag that takes another address.
func (g guard) listenFor(errw io.Writer, flag, role, addr, about string) (net.Listener, error) {
	ln, err := takeSocket(role)
	if err != nil {
		return nil, configError(err)
	}
	narrowed := false
	if ln == nil {
		ln, narrowed, err = g.open(flag, role, addr)
	} else if _, ok := ln.Addr().(*net.TCPAddr); ok {
		_, err = g.address(ln.Addr().String())
	}
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(errw, "sbcast %s: listening on %s%s\n", role, ln.Addr(), about)
	switch {
	case g.insecure && !g.knows():
		fmt.Fprintf(errw, "sbcast %s: --insecure: anybody who can connect can push\n", role)
	case narrowed:
		fmt.Fprintf(errw, "sbcast %s: nothing says who may push, so only this machine can connect: sbcast ca makes certificates, --insecure lets anybody\n", role)
	}
	return ln, nil
}

// open opens a listener on addr, or on as much of it as g allows.
func (g guard) open(flag, role, addr string) (ln net.Listener, narrowed bool, err error) {
	at, err := g.address(addr)
	if err != nil {
		return nil, false, err
	}
	if ln, err = net.Listen("tcp", at); err != nil {
		return nil, false, configError(fmt.Errorf("%s: cannot listen on %s: %w; --%s takes another address", role, at, withoutOp(err), flag))
	}
	return ln, at != addr, nil
}

// http is how a gateway speaks TLS, nil without an identity.
func (g guard) http() *tls.Config {
	if g.identity == nil {
		return nil
	}
	return g.identity.Server(g.tokens != nil, "http/1.1")
}

// admit says whether the client of a request may push: by its certificate,
// which TLS has verified, or by a token, as Bearer or as the password of Basic,
// which is what browsers ask their users for.
func (g guard) admit(r *http.Request) error {
	if !g.knows() || r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return nil
	}
	_, token, basic := r.BasicAuth()
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		token = bearer
	} else if !basic {
		return protocol.Errorf(protocol.CodeUnauthorised, "who is it? A certificate says so, or a token: Authorization: Bearer TOKEN, or curl -u :TOKEN")
	}
	var peer protocol.Peer
	ok := false
	if g.tokens != nil {
		peer, ok = g.tokens.Find(token)
	}
	if !ok {
		return protocol.Errorf(protocol.CodeUnauthorised, "the token is not one of this daemon's")
	}
	return peer.May(protocol.ScopePush)
}
