//go:build unix

package sink

import (
	"os/exec"
	"syscall"
)

// ownGroup puts a command into a process group of its own, so that what it
// starts ends with it, and a Ctrl-C meant for the daemon does not reach it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func killGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
