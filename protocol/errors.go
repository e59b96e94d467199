// Errors: wire codes and Go errors, mapped both ways in this one place.

package protocol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// Code classifies an error on the wire. Codes are append-only.
type Code string

// The codes, with what whoever gets one can do about it.
const (
	CodeProtocol     Code = "protocol"     // a frame broke the rules: report it, the peers do not fit together
	CodeVersion      Code = "version"      // no common version: upgrade one side
	CodeUnauthorised Code = "unauthorised" // not allowed: check certificate or token
	CodeName         Code = "name"         // not a name a sink takes: rename
	CodeExists       Code = "exists"       // a different file has the name: use --force or another name
	CodeConflict     Code = "conflict"     // another push is writing the name now: wait
	CodeSuperseded   Code = "superseded"   // a later attempt of the same transfer took over
	CodeBusy         Code = "busy"         // a limit is reached: try again later
	CodeChecksum     Code = "checksum"     // a frame was damaged on the way: try again
	CodeDigest       Code = "digest"       // the content is not what the source said: check the source
	CodeSize         Code = "size"         // more or fewer bytes than offered
	CodeWindow       Code = "window"       // the sender did not wait for acknowledgement
	CodeTruncated    Code = "truncated"    // the stream ended before Finish: try again, it resumes
	CodeNoSpace      Code = "no_space"     // disk or quota full: make room, try again
	CodeIO           Code = "io"           // the sink cannot read or write: see the text
	CodeDenied       Code = "denied"       // the sink may not write there: see the text
	CodeUnreachable  Code = "unreachable"  // no connection: is it running?
	CodeDead         Code = "dead"         // the peer stopped answering
	CodeStalled      Code = "stalled"      // no progress for too long
	CodeAborted      Code = "aborted"      // the sender took it back
	CodeInterrupted  Code = "interrupted"  // somebody stopped a daemon at its terminal: the push is forgotten
	CodeShutdown     Code = "shutdown"     // the daemon is stopping: try again
	CodePolicy       Code = "policy"       // not published because another leaf failed
	CodeLoop         Code = "loop"         // more broadcasters in a row than the offer allows
	CodeParked       Code = "parked"       // too slow for the others: fed in a second pass
	CodeCommand      Code = "command"      // the sink's command failed: see the text
	CodeUnsupported  Code = "unsupported"  // the receiver cannot do what was asked
	CodeInternal     Code = "internal"     // a fault in sbcast
	CodeTooLarge     Code = "too_large"    // larger than the receiver takes
)

// Known reports whether c is one of the codes above. A peer may have others.
func (c Code) Known() bool {
	switch c {
	case CodeProtocol, CodeVersion, CodeUnauthorised, CodeName, CodeExists, CodeConflict, CodeSuperseded, CodeBusy,
		CodeChecksum, CodeDigest, CodeSize, CodeWindow, CodeTruncated, CodeNoSpace, CodeIO, CodeDenied, CodeUnreachable,
		CodeDead, CodeStalled, CodeAborted, CodeInterrupted, CodeShutdown, CodePolicy, CodeLoop, CodeParked, CodeCommand,
		CodeUnsupported, CodeInternal, CodeTooLarge:
		return true
	default:
		return false
	}
}

// Error is an error with a code, as it travels in Reject, Ready and Receipt.
type Error struct {
	Code   Code
	Text   string // what happened and where, without the leaf's name
	Leaf   string // the leaf it happened on, "" for the hop's own end
	Leaves []Leaf // in a Reject: how each leaf stood
	cause  error
}

func (e *Error) Error() string {
	if e.Leaf == "" {
		return e.Text
	}
	return e.Leaf + ": " + e.Text
}

func (e *Error) Unwrap() error { return e.cause }

// On returns a copy of e that names leaf as where it happened.
func (e *Error) On(leaf string) *Error {
	c := *e
	c.Leaf = leaf
	return &c
}

// Is makes errors.Is(err, &Error{Code: c}) true for every error of code c.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Text == "" && t.Code == e.Code
}

// ErrForget is in the cause of an Abort when somebody gave the transfer up for
// good: the sender took it back, or a daemon was interrupted at its terminal.
var ErrForget = errors.New("forget the transfer")

// ErrOver is in the cause of an Abort when the transfer has failed elsewhere,
// for a reason that will not pass: nobody comes back to it.
var ErrOver = errors.New("the transfer is over")

// ErrInterrupted ends the transfers of a daemon that was interrupted.
var ErrInterrupted = &Error{Code: CodeInterrupted, Text: "the daemon was interrupted", cause: ErrForget}

// Errorf makes an Error; %w works as in fmt.Errorf.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Text: err.Error(), cause: errors.Unwrap(err)}
}

// HasCode reports whether err carries code.
func HasCode(err error, code Code) bool { return err != nil && AsError(err).Code == code }

// AsError gives err its code: the one it carries, or the one that fits the
// operating system's error in it. The text is the whole of err's. It returns
// nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		if error(e) == err { //nolint:errorlint // the outermost error itself is meant
			return e
		}
		return &Error{Code: e.Code, Text: err.Error(), Leaves: e.Leaves, cause: err}
	}
	return &Error{Code: codeOf(err), Text: err.Error(), cause: err}
}

func codeOf(err error) Code {
	// A syscall.Errno is a net.Error too, so files are looked at before the network.
	var opErr *net.OpError
	var dnsErr *net.DNSError
	var errno syscall.Errno
	var pathErr *fs.PathError
	var linkErr *os.LinkError
	file := errors.As(err, &pathErr) || errors.As(err, &linkErr)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return CodeNoSpace
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return CodeDenied
	case errors.Is(err, fs.ErrExist):
		return CodeExists
	case file:
		return CodeIO
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return CodeTruncated
	case errors.Is(err, context.Canceled):
		return CodeAborted
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return CodeUnreachable
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return CodeDead
	case errors.As(err, &opErr), errors.As(err, &dnsErr):
		return CodeUnreachable
	case errors.As(err, &errno):
		return CodeIO
	default:
		return CodeInternal
	}
}

// Retryable reports whether the same push may succeed when tried again
// without anybody changing anything.
func (c Code) Retryable() bool {
	switch c {
	case CodeUnreachable, CodeDead, CodeTruncated, CodeChecksum, CodeShutdown, CodeBusy, CodeStalled, CodeParked:
		return true
	default:
		return false
	}
}

// Over reports whether a transfer that ended with c will not be tried again by
// itself, so that there is nothing to hold open for it.
func (c Code) Over() bool {
	switch c {
	case CodeConflict, CodeSuperseded, CodeDigest: // another attempt comes, or is there
		return false
	default:
		return !c.Retryable()
	}
}

// rejectFrame is err as it goes on the wire, within the limits of a Reject.
func rejectFrame(err error) []byte {
	e := AsError(err)
	m := &Reject{Code: clipCode(e.Code), Text: clip(e.Text, maxTextLen), Leaf: clip(e.Leaf, maxLeafName)}
	frame, err := appendPaged(e.Leaves, func(rest []Leaf) Message { m.Leaves = rest; return m })
	if err != nil { // a leaf's name that no message may carry
		m.Leaves = nil
		frame, err = AppendMessage(nil, m)
	}
	if err != nil {
		panic("protocol: " + err.Error())
	}
	return frame
}

// asError is the Error that a peer's Reject stands for.
func (m *Reject) asError() *Error {
	return &Error{Code: m.Code, Text: m.Text, Leaf: m.Leaf, Leaves: m.Leaves, cause: m.Code.cause()}
}

// cause is what a code stands for beyond itself.
func (c Code) cause() error {
	if c == CodeInterrupted {
		return ErrForget
	}
	return nil
}

// clip cuts s to what a message may carry, limit bytes.
func clip(s string, limit int) string {
	if s = strings.ToValidUTF8(s, "?"); len(s) > limit {
		s = strings.ToValidUTF8(s[:limit-3], "") + "..."
	}
	return s
}

func clipCode(c Code) Code {
	if c == "" {
		return CodeInternal
	}
	return Code(clip(string(c), maxCodeLen))
}

// clip cuts the texts of a receipt to what a message may carry.
func (m *Receipt) clip() {
	m.Text, m.Location = clip(m.Text, maxTextLen), clip(m.Location, maxTextLen)
	if m.Code != "" {
		m.Code = clipCode(m.Code)
	}
}

// Combine makes one error of all the leaves that failed, of which there must
// be one. It has the code of the first. Leaves that failed only because of
// others are not named.
func Combine(leaves []Leaf) *Error {
	var failed, dragged []Leaf
	for _, l := range leaves {
		switch {
		case l.State == LeafFailed && l.Code == CodePolicy:
			dragged = append(dragged, l)
		case l.State == LeafFailed:
			failed = append(failed, l)
		}
	}
	if len(failed) == 0 {
		failed = dragged
	}
	if len(failed) == 1 {
		return &Error{Code: failed[0].Code, Text: failed[0].Text, Leaf: failed[0].Name, Leaves: leaves, cause: failed[0].Code.cause()}
	}
	// Readers that fail for the same reason are named together.
	var texts []string
	names := map[string][]string{}
	for _, l := range failed {
		if names[l.Text] == nil {
			texts = append(texts, l.Text)
		}
		names[l.Text] = append(names[l.Text], l.Name)
	}
	for i, text := range texts {
		texts[i] = strings.Join(names[text], ", ") + ": " + text
	}
	return &Error{Code: failed[0].Code, Text: strings.Join(texts, "; "), Leaves: leaves, cause: failed[0].Code.cause()}
}
