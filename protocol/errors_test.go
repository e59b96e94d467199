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
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCodesOfGoErrors(t *testing.T) {
	path := func(err error) error { return &fs.PathError{Op: "write", Path: "/srv/f", Err: err} }
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	read := func(err error) error {
		return &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", err)}
	}
	tests := []struct {
		err  error
		want Code
	}{
		{path(syscall.ENOSPC), CodeNoSpace},
		{path(syscall.EDQUOT), CodeNoSpace},
		{path(syscall.EFBIG), CodeNoSpace},
		{path(syscall.EACCES), CodeDenied},
		{path(syscall.EPERM), CodeDenied},
		{path(syscall.EROFS), CodeDenied},
		{fs.ErrPermission, CodeDenied},
		{path(syscall.EEXIST), CodeExists},
		{fs.ErrExist, CodeExists},
		{path(syscall.EIO), CodeIO},
		{path(syscall.ENOENT), CodeIO},
		{path(syscall.EISDIR), CodeIO},
		{path(syscall.ENOTDIR), CodeIO},
		{path(syscall.ENAMETOOLONG), CodeIO},
		{path(syscall.EMFILE), CodeIO},
		{path(syscall.ELOOP), CodeIO},
		{path(fs.ErrClosed), CodeIO},
		{&os.LinkError{Op: "rename", Old: "a", New: "b", Err: syscall.EXDEV}, CodeIO},
		{syscall.EIO, CodeIO},
		{io.EOF, CodeTruncated},
		{io.ErrUnexpectedEOF, CodeTruncated},
		{context.Canceled, CodeAborted},
		{context.DeadlineExceeded, CodeDead},
		{os.ErrDeadlineExceeded, CodeDead},
		{dial(syscall.ECONNREFUSED), CodeUnreachable},
		{dial(syscall.EHOSTUNREACH), CodeUnreachable},
		{dial(syscall.ENETUNREACH), CodeUnreachable},
		{dial(syscall.ETIMEDOUT), CodeUnreachable},
		{read(syscall.ECONNRESET), CodeUnreachable},
		{read(syscall.EPIPE), CodeUnreachable},
		{&net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}, CodeDead},
		{&net.DNSError{Err: "no such host", Name: "nowhere", IsNotFound: true}, CodeUnreachable},
		{net.ErrClosed, CodeUnreachable},
		{io.ErrClosedPipe, CodeUnreachable},
		{errors.New("something else"), CodeInternal},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%T %v", tt.err, tt.err), func(t *testing.T) {
			assert.Equal(t, tt.want, AsError(tt.err).Code)
			wrapped := fmt.Errorf("receive x: %w", tt.err)
			e := AsError(wrapped)
			assert.Equal(t, tt.want, e.Code, "wrapped")
			assert.Equal(t, wrapped.Error(), e.Text)
			assert.ErrorIs(t, e, tt.err, "the cause is lost")
		})
	}
}

func TestAsErrorKeepsWhatAnErrorSays(t *testing.T) {
	assert.Nil(t, AsError(nil))

	e := &Error{Code: CodeExists, Text: "is there", Leaf: "reader-1", Leaves: []Leaf{{Name: "reader-1", State: LeafFailed}}}
	assert.Same(t, e, AsError(e))

	wrapped := AsError(fmt.Errorf("push f: %w", e))
	assert.Equal(t, CodeExists, wrapped.Code)
	assert.Equal(t, "push f: reader-1: is there", wrapped.Error(), "the leaf is named twice, or not at all")
	assert.Equal(t, e.Leaves, wrapped.Leaves)
	assert.ErrorIs(t, wrapped, e)
}

func TestErrorfWraps(t *testing.T) {
	err := Errorf(CodeIO, "write %s at %d: %w", "f", 7, syscall.ENOSPC)
	assert.Equal(t, "write f at 7: no space left on device", err.Error())
	assert.ErrorIs(t, err, syscall.ENOSPC)
	assert.Equal(t, CodeIO, AsError(err).Code, "the code that was given gives way to the cause's")
	assert.NoError(t, errors.Unwrap(Errorf(CodeIO, "plain")))
}

func TestErrorsMatchByCode(t *testing.T) {
	err := fmt.Errorf("push: %w", Errorf(CodeBusy, "try later"))
	assert.ErrorIs(t, err, &Error{Code: CodeBusy})
	assert.NotErrorIs(t, err, &Error{Code: CodeIO})
	assert.NotErrorIs(t, err, &Error{Code: CodeBusy, Text: "something else"})
	assert.True(t, HasCode(err, CodeBusy))
	assert.False(t, HasCode(err, CodeIO))
	assert.False(t, HasCode(nil, CodeBusy))
	assert.False(t, HasCode(nil, ""))

	assert.ErrorIs(t, ErrInterrupted, ErrForget)
	assert.NotErrorIs(t, Errorf(CodeShutdown, "stopping"), ErrForget)
}

func TestOnlyWhatMayPassIsRetryable(t *testing.T) {
	for _, c := range []Code{CodeUnreachable, CodeDead, CodeTruncated, CodeChecksum, CodeShutdown, CodeBusy, CodeStalled} {
		assert.True(t, c.Retryable(), "%s", c)
	}
	for _, c := range []Code{
		CodeProtocol, CodeVersion, CodeUnauthorised, CodeName, CodeExists, CodeDigest, CodeSize, CodeWindow, CodeNoSpace,
		CodeIO, CodeDenied, CodeAborted, CodePolicy, CodeLoop, CodeCommand, CodeUnsupported, CodeInternal, CodeSuperseded, "",
	} {
		assert.False(t, c.Retryable(), "%s", c)
	}
}

func TestCombine(t *testing.T) {
	ready := Leaf{Name: "r0", State: LeafReady, Text: "not a failure"}
	full := Leaf{Name: "r1", State: LeafFailed, Code: CodeNoSpace, Text: "disk full"}
	full2 := Leaf{Name: "r3", State: LeafFailed, Code: CodeNoSpace, Text: "disk full"}
	dragged := Leaf{Name: "r4", State: LeafFailed, Code: CodePolicy, Text: "because of r1"}
	gone := Leaf{Name: "r2", State: LeafFailed, Code: CodeUnreachable, Text: "gone"}
	tests := []struct {
		leaves []Leaf
		code   Code
		text   string
	}{
		{[]Leaf{ready, full}, CodeNoSpace, "r1: disk full"},
		{[]Leaf{full, gone}, CodeNoSpace, "r1: disk full; r2: gone"},
		{[]Leaf{gone, ready, full, full2}, CodeUnreachable, "r2: gone; r1, r3: disk full"},
		{[]Leaf{dragged, full}, CodeNoSpace, "r1: disk full"},
		{[]Leaf{dragged, ready}, CodePolicy, "r4: because of r1"},
		{[]Leaf{{Name: "", State: LeafFailed, Code: CodeIO, Text: "bad disk"}}, CodeIO, "bad disk"},
	}
	for _, tt := range tests {
		err := Combine(tt.leaves)
		assert.Equal(t, tt.code, err.Code)
		assert.Equal(t, tt.text, err.Error())
		assert.Equal(t, tt.leaves, err.Leaves)
	}
	assert.Equal(t, "r1", Combine([]Leaf{full}).Leaf, "a single failure does not name its leaf")
}

// Who is told over the wire that a daemon was interrupted has to forget the
// transfer as well as one who saw it.
func TestInterruptTravels(t *testing.T) {
	assert.ErrorIs(t, parseReject(t, ErrInterrupted), ErrForget)
	leaf := Leaf{Name: "r1", State: LeafFailed, Code: CodeInterrupted, Text: "the daemon was interrupted"}
	assert.ErrorIs(t, Combine([]Leaf{leaf}), ErrForget)
	assert.ErrorIs(t, Combine([]Leaf{leaf, leaf}), ErrForget)
	assert.NotErrorIs(t, parseReject(t, Errorf(CodeShutdown, "stopping")), ErrForget)
}

func TestOnNamesTheLeaf(t *testing.T) {
	e := Errorf(CodeIO, "bad disk: %w", syscall.EIO)
	on := e.On("r1")
	assert.Equal(t, "r1: bad disk: input/output error", on.Error())
	assert.ErrorIs(t, on, syscall.EIO)
	assert.Empty(t, e.Leaf, "the original was changed")
}

// parseReject is what a peer gets of err.
func parseReject(t *testing.T, err error) *Error {
	t.Helper()
	near, far := memPipe(1 << 20)
	_, werr := far.Write(rejectFrame(err))
	require.NoError(t, werr)
	return expect[*Reject](newRawPeer(t, near)).asError()
}

func TestRejectCarriesTheError(t *testing.T) {
	e := &Error{Code: CodeExists, Text: "is there", Leaf: "reader-1", Leaves: []Leaf{{Name: "reader-1", State: LeafFailed}}}
	assert.Equal(t, e, parseReject(t, e))

	plain := parseReject(t, fmt.Errorf("write f: %w", syscall.ENOSPC))
	assert.Equal(t, CodeNoSpace, plain.Code)
	assert.Equal(t, "write f: no space left on device", plain.Text)
}

// Whatever went wrong, and whatever a peer below said of it, can be told: a
// daemon must not fall over a Reject of its own.
func TestEveryErrorFitsIntoAReject(t *testing.T) {
	many := make([]Leaf, 2000)
	for i := range many {
		many[i] = Leaf{Name: fmt.Sprint("reader-", i), State: LeafFailed, Text: "no"}
	}
	// JSON needs six bytes for each "<": what came in one frame may not fit into one again.
	longest := strings.Repeat("<", maxTextLen)
	tests := map[string]error{
		"long text":               &Error{Code: CodeIO, Text: strings.Repeat("x", 100_000)},
		"bad UTF-8":               &Error{Code: CodeIO, Text: "\xff\xfe", Leaf: "\xff"},
		"cut inside a rune":       &Error{Code: CodeIO, Text: strings.Repeat("ä", 100_000)},
		"long leaf":               &Error{Code: CodeIO, Leaf: strings.Repeat("x", 100_000)},
		"too many leaves":         &Error{Code: CodeIO, Text: "no", Leaves: many},
		"leaf that cannot travel": &Error{Code: CodeIO, Text: "no", Leaves: []Leaf{{Name: strings.Repeat("x", 600), State: LeafFailed}}},
		"no code":                 &Error{Text: "somehow"},
		"leaf failed without why": Combine([]Leaf{{Name: "r1", State: LeafFailed}}),
		"longest of a peer":       (&Reject{Code: Code(longest), Text: longest, Leaf: longest}).asError(),
	}
	for name, err := range tests {
		t.Run(name, func(t *testing.T) {
			var e *Error
			require.NotPanics(t, func() { e = parseReject(t, err) })
			assert.NotEmpty(t, e.Code)
		})
	}
}
