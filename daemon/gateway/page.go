// The page: plain files in the binary.

package gateway

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"net/http"
	"path"
	"time"
)

//go:embed page
var pageFiles embed.FS

// servePage serves what is in page/, and says 404 to everything else.
func servePage(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	if r.URL.Path == "/" {
		name = "index.html"
	}
	b, err := pageFiles.ReadFile("page/" + name)
	if err != nil || r.URL.Path != "/" && r.URL.Path != "/"+name {
		failure(refuse(http.StatusNotFound, "", "there is nothing at %q: push to %s", r.URL.Path, pathBroadcast)).write(w)
		return
	}
	if !allow(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout))
	w.Header().Set("Cache-Control", "no-cache") // ask whether it has changed, with each new binary it may
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(b)))
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(b))
}
