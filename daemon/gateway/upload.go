// Uploads: requests with files, from their parameters to their answer.

package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// upload is one request with files.
type upload struct {
	g      *Gateway
	r      *http.Request
	ctx    context.Context
	body   *body
	params params
	watch  *topic // where progress goes; nil: nobody asked
	begun  time.Time
}

// upload serves a request: files pushes what is in it, and returns an answer
// for each file, and why it went no further.
func (g *Gateway) upload(w http.ResponseWriter, r *http.Request, files func(*upload) ([]answer, error)) {
	u := &upload{g: g, r: r, body: newBody(r, http.NewResponseController(w), g.opts.Stall), begun: time.Now()}
	if err := g.enter(); err != nil {
		u.answer(w, failure(err))
	} else {
		u.serve(w, files)
	}
	u.body.linger() // it is no upload any more
}

func (u *upload) serve(w http.ResponseWriter, files func(*upload) ([]answer, error)) {
	defer u.g.uploads.Done()
	u.answer(w, u.run(files))
}

// answer tells the client a. The connection ends then, unless the body has.
func (u *upload) answer(w http.ResponseWriter, a answer) {
	if whole := u.body.stop(); !whole {
		w.Header().Set("Connection", "close")
	}
	a.write(w)
}

// run does the upload. Its slot is free before the answer is told: who has that
// may come again.
func (u *upload) run(files func(*upload) ([]answer, error)) answer {
	defer func() { <-u.g.slots }()
	var err error
	if u.params, err = parseParams(u.r.URL.RawQuery); err != nil {
		return failure(err)
	}
	if id := u.params.id; id != "" {
		if u.watch, err = u.g.events.begin(id); err != nil {
			return failure(err)
		}
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(u.r.Context()))
	defer cancel(nil)
	defer context.AfterFunc(u.r.Context(), func() { cancel(u.body.gone()) })()
	defer context.AfterFunc(u.g.ctx, func() { cancel(context.Cause(u.g.ctx)) })()
	u.ctx = ctx
	answers, err := files(u)
	if err != nil {
		answers = append(answers, failure(err))
	}
	a := combine(answers, time.Since(u.begun))
	u.g.events.end(u.params.id, u.watch, a)
	return a
}

// push pushes one file.
func (u *upload) push(name string, size int64, content io.Reader) answer {
	as, err := u.params.name, error(nil)
	if as == "" {
		as, err = protocol.ParseName(name)
	} else {
		name = string(as)
	}
	log := u.g.opts.Log.With("peer", u.r.RemoteAddr, "name", name)
	begun := time.Now()
	var receipts []protocol.Receipt
	if err == nil {
		log.Debug("upload begins", "size", size)
		receipts, err = u.g.pusher.Push(u.ctx, File{
			Name: as, Size: size, Content: limit(content, u.g.opts.MaxSize), Options: u.params.push,
		}, u.progress)
	}
	a := outcome(receipts, err, time.Since(begun))
	a.Name = name
	log.Info("upload ends", "status", a.Status, "message", a.Message, "took", time.Since(begun).Round(time.Millisecond))
	return a
}

func (u *upload) progress(p Progress) {
	if u.watch == nil {
		return
	}
	p.Leaves = slices.Clone(p.Leaves)
	for i := range p.Leaves {
		p.Leaves[i].Text = inHTTP(p.Leaves[i].Text)
	}
	u.watch.set(p)
}

// put pushes the body of a PUT.
func (u *upload) put() ([]answer, error) {
	name := strings.TrimPrefix(strings.TrimPrefix(u.r.URL.Path, pathBroadcast), "/")
	size := u.r.ContentLength
	h := u.r.Header
	sized := size != 0 || h.Get("Content-Length") != "" || len(u.r.TransferEncoding) > 0
	switch {
	case name == "" && u.params.name == "":
		return nil, badRequest("the file has no name: PUT %s/NAME", pathBroadcast)
	case h.Get("Content-Range") != "":
		return nil, badRequest("a part of a file (Content-Range: %s) cannot be pushed as a file", h.Get("Content-Range"))
	case h.Get("Content-Encoding") != "" && h.Get("Content-Encoding") != "identity":
		return nil, refuse(http.StatusUnsupportedMediaType, "", "Content-Encoding %q: want the file as it is", h.Get("Content-Encoding"))
	case !sized && !u.params.push.DryRun:
		return nil, refuse(http.StatusLengthRequired, "", "there is no body: an empty file has Content-Length: 0")
	case !sized:
		size = -1
	case u.g.opts.MaxSize > 0 && size > u.g.opts.MaxSize:
		return nil, errTooLarge(u.g.opts.MaxSize)
	}
	return []answer{u.push(name, size, u.body)}, nil
}

// form pushes the files of a form, one after the other, as they come. The first
// that fails ends it: what comes behind it is not worth waiting for.
func (u *upload) form() (answers []answer, err error) {
	f, err := openForm(u.r.Header, u.body)
	if err != nil {
		return nil, err
	}
	for {
		name, content, err := f.file()
		switch {
		case err != nil:
			return answers, err
		case content == nil && len(answers) == 0:
			return nil, badRequest("the form has no file: curl -F file=@FILE")
		case content == nil:
			return answers, nil
		case len(answers) > 0 && u.params.name != "":
			return answers, badRequest("parameter name is for one file, and the form has more")
		}
		a := u.push(name, -1, content)
		answers = append(answers, a)
		if a.Status >= http.StatusBadRequest {
			if len(answers) > 1 {
				answers[len(answers)-1].Message = fmt.Sprintf("%s (what came behind it was not read)", a.Message)
			}
			return answers, nil
		}
		if u.params.push.DryRun { // nobody has read it
			if err := f.advance(); err != nil {
				return answers, err
			}
		}
	}
}
