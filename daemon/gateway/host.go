// Host: what the gateway may be called, against DNS rebinding.

package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/sbcast/sbcast/protocol"
)

// AnyHost in Options.Hosts makes every name good.
const AnyHost = "*"

// hosts refuses requests to foreign names, where only this machine can connect.
// A page from elsewhere whose name comes to mean this machine (DNS rebinding)
// is of the same origin as the gateway, to a browser; but it cannot choose what
// the browser says it is asking.
func (g *Gateway) hosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.local.Load() && !g.called(r.Host) {
			w.Header().Set("Connection", "close")
			failure(refuse(http.StatusMisdirectedRequest, protocol.CodeUnauthorised,
				"this gateway is not called %q, but localhost, or by an address: --http-host adds a name", r.Host)).write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// called reports whether host, with a port or not, is a name of this gateway.
func (g *Gateway) called(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if _, err := netip.ParseAddr(name); err == nil || name == "" { // browsers say something
		return true
	}
	return name == "localhost" || strings.HasSuffix(name, ".localhost") ||
		slices.ContainsFunc(g.opts.Hosts, func(h string) bool { return h == AnyHost || strings.EqualFold(h, name) })
}

// loopback reports whether only this machine can connect to ln.
func loopback(ln net.Listener) bool {
	addr, ok := ln.Addr().(*net.TCPAddr)
	return ok && addr.IP.IsLoopback()
}
