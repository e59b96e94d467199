// Forms: multipart bodies with one file or several, read as they come.

package gateway

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"

	"github.com/sbcast/sbcast/protocol"
)

// Limits of a form.
const (
	maxFiles    = 1000
	maxHeading  = 64 << 10 // bytes before the content of a file
	maxEpilogue = 4 << 10  // bytes behind the last boundary
)

// form is a multipart/form-data body. Its files come one after the other.
type form struct {
	parts *multipart.Reader
	in    *heading // what parts reads
	body  *body
	next  *multipart.Part // nil behind the last
	files int
}

// openForm finds the first part.
func openForm(h http.Header, b *body) (*form, error) {
	kind, attrs, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || attrs["boundary"] == "" {
		return nil, refuse(http.StatusUnsupportedMediaType, "", "want multipart/form-data: curl -F file=@FILE, or the file itself with curl -T FILE http://HOST/broadcast/NAME")
	}
	f := &form{in: &heading{r: b, left: unbounded}, body: b}
	f.parts = multipart.NewReader(f.in, attrs["boundary"])
	return f, f.advance()
}

// advance finds the next part, or the proper end of the body. The content of
// the part before is skipped, if it was not read.
func (f *form) advance() error {
	if f.next != nil {
		if _, err := io.Copy(io.Discard, f.next); err != nil {
			return f.broken(err)
		}
	}
	f.in.left = maxHeading
	part, err := f.parts.NextRawPart() // raw: the content is pushed as it is
	f.in.left = unbounded
	switch {
	case err == io.EOF: // wrapped it means that the last boundary never came
		f.next = nil
		return f.finish()
	case err != nil:
		return f.broken(err)
	}
	f.next = part
	return nil
}

// finish reads what is behind the last boundary, which is nothing, and so
// finds out whether the body is whole.
func (f *form) finish() error {
	n, err := io.Copy(io.Discard, io.LimitReader(f.body, maxEpilogue+1))
	if err == nil && n > maxEpilogue {
		return badRequest("the form has more than %d bytes behind its end", maxEpilogue)
	}
	return err
}

// broken is what an error of the multipart parser means, which wraps what the
// body had to say.
func (f *form) broken(err error) error {
	if why := f.body.failure(); why != nil {
		return why
	}
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	return refuse(http.StatusBadRequest, protocol.CodeTruncated, "the form ended before its last boundary, or is no form: %v", err)
}

// file takes the next part, which is to be a file. It returns no reader behind
// the last one. The content ends with io.EOF only when what follows it was
// found to be in order.
func (f *form) file() (name string, content io.Reader, err error) {
	part := f.next
	if part == nil {
		return "", nil, nil
	}
	if f.files++; f.files > maxFiles {
		return "", nil, refuse(http.StatusRequestEntityTooLarge, "", "the form has more than %d files", maxFiles)
	}
	if part.FileName() == "" {
		return "", nil, badRequest("the form's field %q is not a file: options are parameters of the URL, /broadcast?require=any", part.FormName())
	}
	if enc := part.Header.Get("Content-Transfer-Encoding"); enc != "" && !asItIs(enc) {
		return "", nil, badRequest("the form's file %q is encoded as %q: want binary", part.FileName(), enc)
	}
	return baseName(part.FileName()), &fileReader{form: f, part: part}, nil
}

func asItIs(encoding string) bool {
	switch strings.ToLower(encoding) {
	case "binary", "8bit", "7bit":
		return true
	default:
		return false
	}
}

// baseName is the last part of what a browser says that a file is called, on
// whatever system.
func baseName(name string) string { return name[strings.LastIndexAny(name, `/\`)+1:] }

// fileReader is the content of one file of a form.
type fileReader struct {
	form *form
	part *multipart.Part
	err  error
}

func (r *fileReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.part.Read(p)
	switch {
	case err == io.EOF: //nolint:errorlint // as in advance
		if err = r.form.advance(); err == nil {
			err = io.EOF
		}
	case err != nil:
		err = r.form.broken(err)
	}
	r.err = err
	return n, err
}

// heading bounds what is read in search of a part: the parser keeps it.
type heading struct {
	r    io.Reader
	left int // bytes
}

const unbounded = -1

func (h *heading) Read(p []byte) (int, error) {
	switch {
	case h.left == 0:
		return 0, badRequest("the form has more than %d bytes before the content of a file", maxHeading)
	case h.left == unbounded:
		return h.r.Read(p)
	}
	n, err := h.r.Read(p[:min(len(p), h.left)])
	h.left -= n
	return n, err
}
