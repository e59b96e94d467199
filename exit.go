// Exit codes: what the process's end tells a script.

package main

import (
	"errors"
	"fmt"

	"github.com/sbcast/sbcast/client"
	"github.com/sbcast/sbcast/protocol"
)

// The exit codes, after sysexits.h where that has one.
const (
	exitFailed       = 1  // not published: the policy was not met
	exitPartial      = 3  // the policy was met, and some readers failed
	exitUsage        = 64 // wrong arguments
	exitData         = 65 // the content is not what the source said
	exitNoInput      = 66 // no such file
	exitUnreachable  = 69 // HOST does not answer
	exitIO           = 74 // the source could not be read
	exitTryAgain     = 75 // in use, full or stopping: try again later
	exitProtocol     = 76 // the peers do not understand each other
	exitUnauthorised = 77 // not allowed
	exitConfig       = 78 // a daemon cannot run as configured
)

// exitError carries an exit code to the end. Without err nothing is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func configError(err error) error { return &exitError{exitConfig, err} }

// exitCode finds the code for an error.
func exitCode(err error) int {
	var (
		exit    *exitError
		sig     *signalError
		partial *client.PartialError
		input   *client.InputError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &sig):
		return sig.code()
	case errors.As(err, &partial):
		return exitPartial
	case errors.As(err, &input):
		if input.Missing {
			return exitNoInput
		}
		return exitIO
	default:
		return wireExitCode(protocol.AsError(err))
	}
}

// wireExitCode is the code for an error of the protocol. A reader that cannot
// be reached has failed; HOST itself, which no leaf stands for, is unreachable.
func wireExitCode(e *protocol.Error) int {
	switch e.Code {
	case protocol.CodeUnreachable, protocol.CodeDead:
		if e.Leaf == "" && len(e.Leaves) == 0 {
			return exitUnreachable
		}
		return exitFailed
	case protocol.CodeDigest, protocol.CodeChecksum, protocol.CodeSize:
		return exitData
	case protocol.CodeConflict, protocol.CodeBusy, protocol.CodeShutdown, protocol.CodeInterrupted, protocol.CodeSuperseded:
		return exitTryAgain
	case protocol.CodeProtocol, protocol.CodeVersion, protocol.CodeWindow, protocol.CodeUnsupported, protocol.CodeLoop:
		return exitProtocol
	case protocol.CodeUnauthorised:
		return exitUnauthorised
	case protocol.CodeName:
		return exitUsage
	default:
		return exitFailed
	}
}
