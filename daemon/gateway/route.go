// Routes: which request goes where, and what every answer carries.

package gateway

import (
	"net/http"
	"strings"
)

// Paths. They are matched here and not by a ServeMux, which redirects what it
// cleans: an upload to a bad name is to be refused.
const (
	pathBroadcast = "/broadcast"
	pathEvents    = "/events/"
	pathHealth    = "/healthz"
	pathReady     = "/readyz"
)

// isHealth reports whether path is for machines that watch the gateway.
func isHealth(path string) bool { return path == pathHealth || path == pathReady }

func (g *Gateway) route(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case path == pathBroadcast || strings.HasPrefix(path, pathBroadcast+"/"):
		g.broadcast(w, r)
	case strings.HasPrefix(path, pathEvents):
		if allow(w, r, http.MethodGet) {
			g.watch(w, r, path[len(pathEvents):])
		}
	case path == pathHealth:
		if allow(w, r, http.MethodGet, http.MethodHead) {
			answer{Status: http.StatusOK, Message: "ok"}.write(w)
		}
	case path == pathReady:
		if allow(w, r, http.MethodGet, http.MethodHead) {
			g.ready(r.Context()).write(w)
		}
	default:
		servePage(w, r)
	}
}

func (g *Gateway) broadcast(w http.ResponseWriter, r *http.Request) {
	named := len(r.URL.Path) > len(pathBroadcast)+1
	switch {
	case r.Method == http.MethodPut:
		g.upload(w, r, (*upload).put)
	case r.Method == http.MethodPost && !named:
		g.upload(w, r, (*upload).form)
	case named:
		allow(w, r, http.MethodPut)
	default:
		allow(w, r, http.MethodPost, http.MethodPut)
	}
}

// allow refuses other methods.
func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	failure(refuse(http.StatusMethodNotAllowed, "", "%s %s: want %s", r.Method, r.URL.Path, strings.Join(methods, " or "))).write(w)
	return false
}

// policy is the Content-Security-Policy: the page is made of its own files.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// headers puts on every answer what keeps browsers from doing more with it
// than is meant.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// foreign answers what a page from somewhere else made a browser send.
func foreign(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Connection", "close")
	failure(refuse(http.StatusForbidden, "", "a page from another place may not push through this gateway")).write(w)
}
