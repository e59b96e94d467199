// Answers: what became of an upload, as JSON and as an HTTP status.

package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// answer is the body of every answer, but for the page and its events. The
// shape is that of the proof of concept, and Code is new.
type answer struct {
	Name    string         `json:"name,omitempty"` // of a file among several
	Status  int            `json:"status"`
	Message string         `json:"message"`
	Code    protocol.Code  `json:"code,omitempty"`
	Data    map[string]any `json:"data,omitempty"`
}

// Keys of answer.Data beside the names of readers.
const (
	keyDuration = "duration"
	keyFiles    = "files"
)

// refusal is an error with the status to answer.
type refusal struct {
	status int
	code   protocol.Code
	text   string
}

func (e *refusal) Error() string { return e.text }

// refuse makes a refusal. The code is one of the protocol's, or "" where HTTP
// itself has the word for it.
func refuse(status int, code protocol.Code, format string, args ...any) error {
	return &refusal{status, code, fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return refuse(http.StatusBadRequest, "", format, args...)
}

// failure is the answer to an error.
func failure(err error) answer {
	var r *refusal
	if errors.As(err, &r) {
		return answer{Status: r.status, Message: err.Error(), Code: r.code}
	}
	e := protocol.AsError(err)
	return answer{Status: statusOf(e.Code), Message: err.Error(), Code: e.Code}
}

// statusOf is the HTTP status for an error of the protocol: 4xx where the
// client can do something about it, 5xx where the readers are to be looked at.
func statusOf(c protocol.Code) int {
	switch c {
	case protocol.CodeUnauthorised:
		return http.StatusUnauthorized
	case protocol.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case protocol.CodeName, protocol.CodeAborted:
		return http.StatusBadRequest
	case protocol.CodeExists, protocol.CodeConflict, protocol.CodeSuperseded, protocol.CodePolicy:
		return http.StatusConflict
	case protocol.CodeNoSpace:
		return http.StatusInsufficientStorage
	case protocol.CodeBusy, protocol.CodeShutdown, protocol.CodeInterrupted:
		return http.StatusServiceUnavailable
	case protocol.CodeStalled, protocol.CodeParked:
		return http.StatusGatewayTimeout
	case protocol.CodeInternal:
		return http.StatusInternalServerError
	default:
		return http.StatusBadGateway
	}
}

// receipt is the final word of one reader, under its name.
type receipt struct {
	Status      protocol.LeafState `json:"status"`
	Bytes       int64              `json:"bytes"`
	Digest      protocol.Digest    `json:"digest,omitempty"`
	Location    string             `json:"location,omitempty"`
	ResumedFrom int64              `json:"resumed_from,omitempty"`
	Seconds     float64            `json:"seconds"`
	Code        protocol.Code      `json:"code,omitempty"`
	Message     string             `json:"message,omitempty"`
}

// outcome is the answer for one file: ok when all readers have it, 207 when
// enough of them have.
func outcome(receipts []protocol.Receipt, err error, took time.Duration) answer {
	a := answer{Status: http.StatusOK, Message: "ok"}
	failed := 0
	data := map[string]any{}
	for _, r := range receipts {
		if r.Status == protocol.LeafFailed {
			failed++
		}
		data[readerKey(r.Leaf)] = receipt{
			Status: r.Status, Bytes: r.Bytes, Digest: r.Digest, Location: r.Location,
			ResumedFrom: r.ResumedFrom, Seconds: r.Seconds, Code: r.Code, Message: r.Text,
		}
	}
	data[keyDuration] = seconds(took)
	switch {
	case err != nil:
		a = failure(err)
	case failed > 0:
		a.Status = http.StatusMultiStatus
		a.Message = fmt.Sprintf("%d of %d readers failed", failed, len(receipts))
	}
	a.Data = data
	return a
}

// readerKey is the key of a reader. One whose name is taken gets a slash in
// front, which no name begins with.
func readerKey(name string) string {
	if name == keyDuration || name == keyFiles {
		return "/" + name
	}
	return name
}

// combine is the answer for an upload: that of its file, or the worst of
// several with all of them as data.files.
func combine(files []answer, took time.Duration) answer {
	if len(files) == 1 {
		a := files[0]
		a.Name = ""
		return a
	}
	worst := answer{Status: http.StatusOK, Message: "ok"}
	for _, f := range files {
		if f.Status > worst.Status {
			worst = answer{Status: f.Status, Message: f.Name + ": " + f.Message, Code: f.Code}
		}
	}
	worst.Data = map[string]any{keyDuration: seconds(took), keyFiles: files}
	return worst
}

// seconds is d as answers have it, to the millisecond.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

func (a answer) bytes() []byte {
	b, err := json.Marshal(a)
	if err != nil {
		panic("gateway: " + err.Error()) // there is nothing in it that cannot be marshalled
	}
	return append(b, '\n')
}

// write answers, and does not leave before the answer is on its way.
func (a answer) write(w http.ResponseWriter) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(answerTimeout))
	b := a.bytes()
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("Cache-Control", "no-store")
	if a.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", retryAfter)
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(b)
	_ = control.Flush()
}
